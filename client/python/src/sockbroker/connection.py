"""One connection to the broker: one call at a time, with attachments and descriptors.

Whatever goes wrong in the middle of a call, the connection is of no further use: close it. The session
then asks the broker on another connection what became of the call. `shared.py` has several calls in progress
on one connection.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any, Sequence

from . import frame, native
from .jsonrpc import Answer, answer_of, decode, encode
from .errors import BrokerError
from .control_socket import FILE, Owned, raised
from .settings import Endpoint

if TYPE_CHECKING:
    import subprocess

_FIRST_READ = 1 << 18
_HEAD_ROOM = 1024
_PEEK = native.module.MSG_PEEK | native.module.MSG_DONTWAIT
_CLOEXEC = native.module.MSG_CMSG_CLOEXEC
_CONNECT_SECONDS = 10.0
_fstat: Any = os.fstat
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1

LOST = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
"""Errors of a connection that is of no further use."""


class Unsent(OSError):
    """The kernel did not take the descriptors of a request, of which nothing has been sent."""


class Connection:
    """A stream to the broker."""

    __slots__ = ("stream", "_endpoint", "_process", "_descriptors", "_method", "number", "request", "__weakref__")

    def __init__(self, endpoint: Endpoint) -> None:
        """Connects; `BrokerError` if nobody serves there."""
        self._endpoint = endpoint
        self._process: subprocess.Popen[bytes] | None = None
        self._descriptors: list[int] = []
        self._method = ""
        self.number = -1
        """The connection's number, as `call.resolve` names it."""
        self.request = 0
        """The id of the latest request."""
        self.stream = self._open()

    def _open(self) -> Owned:
        if self._endpoint.command:
            return self._spawn()
        stream = Owned(native.module.AF_UNIX, native.module.SOCK_STREAM)
        stream.claim()
        try:
            self._connect(stream)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BrokerError(f"the broker at {self._endpoint} cannot be reached: {reason}") from None
        else:
            return raised(stream)
        finally:
            stream.close()

    def _connect(self, stream: Owned) -> None:
        """Connects. While the broker has not accepted earlier connections the kernel may have no room for one."""
        stream.setblocking(False)
        deadline = time.monotonic() + _CONNECT_SECONDS
        pause = _FIRST_PAUSE
        while True:
            try:
                return stream.connect(self._endpoint.path)  # type: ignore[no-any-return]
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = f"the backlog of its control socket has been full for {_CONNECT_SECONDS:g} seconds"
                    raise OSError(errno.EAGAIN, text) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _spawn(self) -> Owned:
        import subprocess  # slow to import, and for this alone

        ours, theirs = native.module.socketpair()
        try:
            self._process = subprocess.Popen(self._endpoint.command, stdin=theirs, stdout=theirs)
        except OSError as error:
            ours.close()
            raise BrokerError(f"the broker at {self._endpoint} cannot be reached: {error}") from None
        finally:
            theirs.close()
        return raised(ours)

    def begin(self, method: str, params: dict[str, Any]) -> Answer:
        """The first call: attaches the connection to a session. A silent broker is given up."""
        self.stream.settimeout(_CONNECT_SECONDS)
        answer = self.call(method, {**params, "attachments": True})
        self.stream.settimeout(None)
        if answer.error is None:
            self.number = answer.value["connection"]
        return answer

    def call(
        self,
        method: str,
        params: Any,
        attachments: Sequence[Any] = (),
        descriptors: Sequence[int] = (),
        room: int = 0,
        takes_descriptors: bool = False,
    ) -> Answer:
        """Calls a method and waits for its answer, which may have about `room` bytes of attachments.

        Any exception leaves the connection in the middle of a call; `BrokerError` if the broker has gone.
        """
        self.send(method, params, attachments, descriptors)
        return self.receive(room, takes_descriptors)

    def send(
        self, method: str, params: Any, attachments: Sequence[Any] = (), descriptors: Sequence[int] = ()
    ) -> None:
        """Sends a request."""
        number = self.request = self.request + 1
        self._method = method
        body = ('{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}' % (number, method, encode(params))).encode()
        try:
            if attachments or descriptors:
                self._send(body, attachments, descriptors)
            else:
                self.stream.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        except Unsent:
            raise
        except OSError as error:
            raise self._lost(error) from None

    def receive(self, room: int = 0, takes_descriptors: bool = False) -> Answer:
        """Waits for the answer to the request."""
        try:
            if room or takes_descriptors:
                answer = self._receive(b"", room, takes_descriptors)
            else:
                data = self.stream.recv(_HEAD_ROOM)
                head, _, body = data.partition(b"\r\n\r\n")
                if head == b"Content-Length: %d" % len(body):  # JSON alone, and all of it: most answers
                    answer = Answer(decode(body.decode(), 0)[0])
                else:
                    answer = self._receive(data, 0, False)
        except (OSError, ValueError, EOFError, StopIteration) as error:
            raise self._lost(error) from None
        if answer.id != self.request:
            raise BrokerError(f"the broker at {self._endpoint} answered another request: {answer.error}")
        return answer

    def cancel(self) -> None:
        """Asks the broker to end the request; it is answered all the same."""
        text = '{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}' % self.request
        try:
            self._send(text.encode(), (), ())
        except OSError as error:
            raise self._lost(error) from None

    def loss_during(self, method: str, reason: str = "") -> str:
        """What a `BrokerError` says when the connection is lost."""
        return f"the broker at {self._endpoint} ended the connection during {method}{reason}"

    def _lost(self, error: Exception) -> BrokerError:
        if self.number < 0 and isinstance(error, EOFError):
            text = "closed a new connection: it may have reached one of its limits connections and connections_per_user"
            return BrokerError(f"the broker at {self._endpoint} {text}")
        return BrokerError(self.loss_during(self._method, f": {error}" if str(error) else ""))

    def _send(self, body: bytes, attachments: Sequence[Any], descriptors: Sequence[int]) -> None:
        lengths = [len(part) for part in attachments]
        text = frame.write_head(len(body), lengths, len(descriptors)) + body
        parts = [text, *attachments]
        try:
            sent = self.stream.sendmsg(parts, frame.rights(descriptors))
        except OSError as error:
            if not descriptors or error.errno in LOST or not self.stream.is_ours():
                raise
            raise Unsent(error.errno, error.strerror) from None
        for part in parts:
            if sent < len(part):
                self.stream.sendall(memoryview(part)[sent:])
                sent = 0
            else:
                sent -= len(part)

    def _receive(self, data: bytes, room: int, takes: bool) -> Answer:
        """An answer in a frame of any form, of which `data` has come."""
        data = data or self._read(min(room, _FIRST_READ) + _HEAD_ROOM, takes)
        while True:
            found = frame.read_head(data)
            if found is not None:
                break
            data += self._read(_HEAD_ROOM, takes)
        head, at = found
        whole = at + head.content + sum(head.attachments)
        if len(data) < whole:
            data = self._read_rest(data, whole)
        text = data[at : at + head.content]
        at += head.content
        parts = []
        for length in head.attachments:
            parts.append(data[at : at + length])
            at += length
        received, self._descriptors = self._descriptors[: head.descriptors], self._descriptors[head.descriptors :]
        frame.close_all(self._descriptors)  # no frame has announced them
        self._descriptors = []
        return answer_of(text, parts, received, head.descriptors)

    def _read(self, size: int, takes: bool) -> bytes:
        """What has come; descriptors beside it are kept until their frame is whole."""
        if not takes:
            data = self.stream.recv(size)
        else:
            data, ancillary, _, _ = self.stream.recvmsg(size, frame.DESCRIPTOR_SPACE, _CLOEXEC)
            if ancillary:
                self._descriptors += frame.received(ancillary)
        if not data:
            raise EOFError
        return data  # type: ignore[no-any-return]

    def _read_rest(self, data: bytes, whole: int) -> bytes:
        """The whole frame. Its descriptors came with its first byte."""
        buffer = bytearray(whole)
        buffer[: len(data)] = data
        at = len(data)
        with memoryview(buffer) as view:
            while at < whole:
                n = self.stream.recv_into(view[at:])
                if not n:
                    raise EOFError
                at += n
        return bytes(buffer)

    def is_ours(self) -> bool:
        """Whether the program has left the connection's number alone."""
        try:
            return _fstat(self.stream.fileno())[FILE] == self.stream.file  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return False

    def is_alive(self) -> bool:
        """Whether the broker has left the connection open; no call may be in progress on it."""
        if not self.stream.is_ours():
            return False
        try:
            return bool(self.stream.recv(1, _PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def fileno(self) -> int:
        """The descriptor, to wait for an answer together with something else; -1 once closed."""
        return self.stream.fileno()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the connection; the broker cancels what is under way on it."""
        self.stream.close()
        frame.close_all(self._descriptors)
        self._descriptors = []
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Closes this process's copy after a fork; the parent's goes on."""
        self._process = None
        self.stream.close()
