"""One connection to the broker with one call at a time, its attachments and its descriptors.

After an exception in the middle of a call the connection is unusable: close it. The session then asks the broker on
another connection for the outcome of the call. `shared.py` has several calls in progress on one connection.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

from . import frame, native
from .control_socket import ControlSocket, with_high_number
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response, decode, decode_response, encode, encode_cancellation
from .settings import Endpoint

if TYPE_CHECKING:
    import subprocess

_FIRST_READ = 1 << 18
_HEADER_BYTES = 1024
_CLOEXEC = native.module.MSG_CMSG_CLOEXEC
_CONNECT_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1

LOST = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
"""Error numbers of a connection that has ended."""


class Unsent(OSError):
    """The kernel refused the descriptors of a request. No byte of the request has been sent."""


class Connection:
    """A stream to the broker."""

    __slots__ = (
        "stream", "is_ours", "number", "request",
        "_endpoint", "_process", "_descriptors", "_method", "__weakref__",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        """Connects. Raises `BrokerError` if there is no broker."""
        self._endpoint = endpoint
        self._process: subprocess.Popen[bytes] | None = None
        self._descriptors: list[int] = []
        self._method = ""
        self.number = -1
        """The number of the connection, which `call.resolve` takes."""
        self.request = 0
        """The id of the latest request."""
        self.stream = self._open()
        self.is_ours = self.stream.is_ours
        """Whether the program has left the descriptor of the connection alone."""

    def _open(self) -> ControlSocket:
        if self._endpoint.command:
            return self._start_command()
        stream = ControlSocket(native.module.AF_UNIX, native.module.SOCK_STREAM)
        stream.remember_file()
        try:
            self._connect(stream)
        except OSError as error:
            raise self._unreachable(error) from None
        else:
            return with_high_number(stream)
        finally:
            stream.close()

    def _connect(self, stream: ControlSocket) -> None:
        """Connects. Retries while the backlog is full of connections that the broker has not accepted yet."""
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

    def _start_command(self) -> ControlSocket:
        import subprocess  # slow to import, and for this alone

        ours, theirs = native.module.socketpair()
        try:
            self._process = subprocess.Popen(self._endpoint.command, stdin=theirs, stdout=theirs)
        except OSError as error:
            ours.close()
            raise self._unreachable(error) from None
        finally:
            theirs.close()
        return with_high_number(ours)

    def _unreachable(self, error: OSError) -> BrokerError:
        reason = error.strerror or str(error)
        advice = "check that sockbrokerd runs there, or set --broker or SOCKBROKER"
        return BrokerError(f"cannot connect to the broker at {self._endpoint}: {reason}; {advice}")

    def begin(self, method: str, params: dict[str, Any]) -> Response:
        """The first call: attaches the connection to a session. Fails if the broker does not respond in time."""
        self.stream.settimeout(_CONNECT_SECONDS)
        params = {**params, "attachments": True}
        if self._endpoint.command:
            params["descriptors"] = False  # the program would lose them
        self.send(method, params)
        response = self.receive()
        self.stream.settimeout(None)
        if response.error is None:
            self.number = response.value["connection"]
        return response

    def send(
        self, method: str, params: Any, attachments: Sequence[Any] = (), descriptors: Sequence[int] = ()
    ) -> None:
        """Sends a request. Raises `BrokerError` if the broker has gone, as `receive` does."""
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

    def receive(self, expected_bytes: int = 0, takes_descriptors: bool = False) -> Response:
        """Waits for the response to the request, with about this many bytes of attachments."""
        try:
            if expected_bytes or takes_descriptors:
                response = self._receive(b"", expected_bytes, takes_descriptors)
            else:
                data = self.stream.recv(_HEADER_BYTES)
                header, _, body = data.partition(b"\r\n\r\n")
                if header == b"Content-Length: %d" % len(body):  # JSON alone and complete: most responses
                    response = Response(decode(body.decode(), 0)[0])
                else:
                    response = self._receive(data, 0, False)
        except (OSError, ValueError, EOFError, StopIteration) as error:
            raise self._lost(error) from None
        if response.id != self.request:
            text = f"{self._method} failed: the broker at {self._endpoint} sent the response to another request"
            raise BrokerError(f"{text}: {response.error}")
        return response

    def cancel(self) -> None:
        """Cancels the request. The broker responds to it all the same."""
        try:
            self._send(encode_cancellation(self.request), (), ())
        except OSError as error:
            raise self._lost(error) from None

    def loss_during(self, method: str, reason: str = "") -> str:
        """The text of a `BrokerError` when the connection is lost."""
        what = f"the broker at {self._endpoint} closed the connection{reason}"
        return f"{method} failed: {what}; check that it still runs"

    def _lost(self, error: Exception) -> BrokerError:
        if self.number < 0 and isinstance(error, EOFError):
            text = f"the broker at {self._endpoint} closed a new connection"
            return BrokerError(f"{text}: one of its limits connections and connections_per_user may be reached")
        return BrokerError(self.loss_during(self._method, f" ({error})" if str(error) else ""))

    def _send(self, body: bytes, attachments: Sequence[Any], descriptors: Sequence[int]) -> None:
        lengths = [len(part) for part in attachments]
        text = frame.encode_header(len(body), lengths, len(descriptors)) + body
        parts = [text, *attachments]
        try:
            sent = self.stream.sendmsg(parts, frame.rights(descriptors))
        except OSError as error:
            if not descriptors or error.errno in LOST or not self.is_ours():
                raise
            raise Unsent(error.errno, error.strerror) from None
        for part in parts:
            if sent < len(part):
                self.stream.sendall(memoryview(part)[sent:])
                sent = 0
            else:
                sent -= len(part)

    def _receive(self, data: bytes, expected_bytes: int, takes_descriptors: bool) -> Response:
        """A response in a frame of any form, which begins with `data`."""
        data = data or self._read(min(expected_bytes, _FIRST_READ) + _HEADER_BYTES, takes_descriptors)
        while (header := frame.decode_header(data)) is None:
            data += self._read(_HEADER_BYTES, takes_descriptors)
        if len(data) < header.frame_size():
            data = self._read_rest(data, header.frame_size())
        text, attachments = header.split(data)
        received, extra = self._descriptors[: header.descriptors], self._descriptors[header.descriptors :]
        self._descriptors = []
        frame.close_all(extra)  # the header did not announce them
        return decode_response(text, attachments, received, header.descriptors)

    def _read(self, size: int, takes_descriptors: bool) -> bytes:
        """Reads what has arrived, and keeps its descriptors until their frame is complete."""
        if not takes_descriptors:
            data = self.stream.recv(size)
        else:
            data, ancillary, _, _ = self.stream.recvmsg(size, frame.DESCRIPTOR_SPACE, _CLOEXEC)
            if ancillary:
                self._descriptors += frame.received(ancillary)
        if not data:
            raise EOFError
        return data  # type: ignore[no-any-return]

    def _read_rest(self, data: bytes, size: int) -> bytes:
        """Reads the rest of a frame that begins with `data`. Its descriptors arrived with its first byte."""
        buffer = bytearray(size)
        buffer[: len(data)] = data
        at = len(data)
        with memoryview(buffer) as view:
            while at < size:
                n = self.stream.recv_into(view[at:])
                if not n:
                    raise EOFError
                at += n
        return bytes(buffer)

    def fileno(self) -> int:
        """The descriptor, to wait for the response together with something else; -1 once closed."""
        return self.stream.fileno()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Closes the connection. The broker cancels the calls in progress on it."""
        self.stream.close()
        frame.close_all(self._descriptors)
        self._descriptors = []
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Closes this process's copy after a fork. The parent keeps the connection."""
        self._process = None
        self.stream.close()
