"""One connection to the broker: one call at a time, with attachments and descriptors.

Whatever goes wrong in the middle of a call, the connection is of no further use: close it. The session
then asks the broker on another connection what became of the call.
"""

from __future__ import annotations

import binascii
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from . import frame, native
from .errors import BrokerError
from .settings import Endpoint

if TYPE_CHECKING:
    import subprocess

_FIRST_READ = 1 << 18
_HEAD_ROOM = 1024
_CLOEXEC = native.module.MSG_CMSG_CLOEXEC
# Programs expect the lowest numbers to be theirs.
_LOWEST_NUMBER = 512
_CONNECT_SECONDS = 10.0

_encode = frame.encoder()
_decode: Callable[[str, int], tuple[Any, int]] = (
    json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # frames have nothing around their JSON
)


class _Stream(native.Socket):  # type: ignore[misc]
    """A stream that may end with the interpreter, without a warning."""

    __slots__ = ()

    def __del__(self, _close: Any = native.Socket.close) -> None:
        _close(self)


class Answer:
    """A result, or an error object, with what came beside it."""

    __slots__ = ("id", "value", "error", "attachments", "descriptors")

    def __init__(self, message: Any, attachments: Sequence[bytes] = (), descriptors: Iterable[int] = ()) -> None:
        self.id = message.get("id")
        self.error = message.get("error")
        self.value = message.get("result")
        self.attachments = attachments
        self.descriptors = [*descriptors]

    def data(self, value: Any) -> bytes:
        """The bytes that a value of the result spells."""
        if type(value) is dict:
            return self.attachments[value["attachment"]]
        return binascii.a2b_base64(value)

    def take(self) -> int | None:
        """The next descriptor, which is the caller's from now on; `None` if there is none left."""
        return self.descriptors.pop(0) if self.descriptors else None


class _AnswerWithDescriptors(Answer):
    """Descriptors that nobody takes are closed. Most answers have none, and are spared the finalizer."""

    __slots__ = ()

    def __del__(self) -> None:
        frame.close_all(self.descriptors)


class Connection:
    """A stream to the broker."""

    __slots__ = ("_stream", "_endpoint", "_process", "_descriptors", "_method", "number", "request", "__weakref__")

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
        self._stream = self._open()

    def _open(self) -> Any:
        if self._endpoint.command:
            return self._spawn()
        stream = _Stream(native.module.AF_UNIX, native.module.SOCK_STREAM)
        try:
            # A Unix socket connects at once, unless the broker hangs with a full backlog.
            stream.settimeout(_CONNECT_SECONDS)
            stream.connect(self._endpoint.path)
        except OSError as error:
            stream.close()
            reason = error.strerror or str(error)
            raise BrokerError(f"the broker at {self._endpoint} cannot be reached: {reason}") from None
        return _raised(stream)

    def _spawn(self) -> Any:
        import subprocess  # slow to import, and for this alone

        ours, theirs = native.module.socketpair()
        try:
            self._process = subprocess.Popen(self._endpoint.command, stdin=theirs, stdout=theirs)
        except OSError as error:
            ours.close()
            raise BrokerError(f"the broker at {self._endpoint} cannot be reached: {error}") from None
        finally:
            theirs.close()
        return _raised(ours)

    def begin(self, method: str, params: dict[str, Any]) -> Answer:
        """The first call: attaches the connection to a session. A silent broker is given up."""
        self._stream.settimeout(_CONNECT_SECONDS)
        answer = self.call(method, {**params, "attachments": True})
        self._stream.settimeout(None)
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
        text = '{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}' % (number, method, _encode(params))
        body = text.encode()
        try:
            if attachments or descriptors:
                self._send(body, attachments, descriptors)
            else:
                self._stream.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        except OSError as error:
            raise self._lost(error) from None

    def receive(self, room: int = 0, takes_descriptors: bool = False) -> Answer:
        """Waits for the answer to the request."""
        try:
            if room or takes_descriptors:
                answer = self._receive(b"", room, takes_descriptors)
            else:
                data = self._stream.recv(_HEAD_ROOM)
                head, _, body = data.partition(b"\r\n\r\n")
                if head == b"Content-Length: %d" % len(body):  # JSON alone, and all of it: most answers
                    answer = Answer(_decode(body.decode(), 0)[0])
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

    def _lost(self, error: Exception) -> BrokerError:
        reason = f": {error}" if str(error) else ""
        return BrokerError(f"the broker at {self._endpoint} ended the connection during {self._method}{reason}")

    def _send(self, body: bytes, attachments: Sequence[Any], descriptors: Sequence[int]) -> None:
        lengths = [len(part) for part in attachments]
        text = frame.write_head(len(body), lengths, len(descriptors)) + body
        parts = [text, *attachments]
        sent = self._stream.sendmsg(parts, frame.rights(descriptors))
        for part in parts:
            if sent < len(part):
                self._stream.sendall(memoryview(part)[sent:])
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
        message = _decode(data[at : at + head.content].decode(), 0)[0]
        at += head.content
        parts = []
        for length in head.attachments:
            parts.append(data[at : at + length])
            at += length
        received, self._descriptors[: head.descriptors] = self._descriptors[: head.descriptors], []
        return _AnswerWithDescriptors(message, parts, received) if received else Answer(message, parts)

    def _read(self, size: int, takes: bool) -> bytes:
        """What has come; descriptors beside it are kept until their frame is whole."""
        if not takes:
            data = self._stream.recv(size)
        else:
            data, ancillary, _, _ = self._stream.recvmsg(size, frame.DESCRIPTOR_SPACE, _CLOEXEC)
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
                n = self._stream.recv_into(view[at:])
                if not n:
                    raise EOFError
                at += n
        return bytes(buffer)

    def fileno(self) -> int:
        """The descriptor, to wait for an answer together with something else; -1 once closed."""
        return self._stream.fileno()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the connection; the broker cancels what is under way on it."""
        self._stream.close()
        frame.close_all(self._descriptors)
        self._descriptors = []
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Closes this process's copy after a fork; the parent's goes on."""
        self._process = None
        self._stream.close()


def _raised(stream: Any) -> Any:
    """The stream under a high number, blocking."""
    try:
        number = fcntl.fcntl(stream.fileno(), fcntl.F_DUPFD_CLOEXEC, _LOWEST_NUMBER)
    except (OSError, ValueError):
        number = os.dup(stream.fileno())  # the limit of open files is lower
    high = _Stream(fileno=number)
    stream.close()
    high.settimeout(None)
    return high
