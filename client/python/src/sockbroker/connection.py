"""One connection to the broker with one call at a time, its attachments and its descriptors.

After an exception in the middle of a call the connection is unusable: close it. The session then asks the broker on
another connection for the outcome of the call. `shared.py` has several calls in progress on one connection.
"""

from __future__ import annotations

import errno
import select as _select
import time
from collections.abc import Sequence

from . import frame, native, preamble
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response, decode, decode_response, encode, encode_cancellation, encode_notification

if TYPE_CHECKING:
    from .route import Route

_poll = _select.poll
_POLLIN = _select.POLLIN
_FIRST_READ = 1 << 18
_HEADER_BYTES = 1024
_CLOEXEC = native.module.MSG_CMSG_CLOEXEC

LOST = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
"""Error numbers of a connection that has ended."""


class Unsent(OSError):
    """The kernel refused the descriptors of a request. No byte of the request has been sent."""


class Connection:
    """A stream to the broker."""

    __slots__ = (
        "stream", "is_ours", "number", "epoch", "request",
        "_route", "_process", "_descriptors", "_method", "__weakref__",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        """Connects. Raises `BrokerError` if there is no broker."""
        self._route = route
        self._descriptors: list[int] = []
        self._method = ""
        self.number = -1
        """The number of the connection, which `call.resolve` takes."""
        self.epoch = 0
        """The number of the process that serves it."""
        self.request = 0
        """The id of the latest request."""
        self.stream, self._process = route.open()
        self.is_ours = self.stream.is_ours
        """Whether the program has left the descriptor of the connection alone."""

    def begin(self, method: str, params: dict[str, Any]) -> Response:
        """The first call: attaches the connection to a session. Fails if the broker does not respond in time."""
        self.begin_sending(method, params)
        return self.finish_beginning()

    def begin_sending(self, method: str, params: dict[str, Any]) -> None:
        """Sends the first call. `finish_beginning` must follow."""
        self.stream.settimeout(self._route.answer_seconds)
        params = {**params, "attachments": True}
        if not self._route.endpoint.passes_descriptors:
            params["descriptors"] = False  # the relay would lose them
        unsent: BrokerError | None = None
        try:
            self.send(method, params)
        except BrokerError as error:
            unsent = error
        if self._route.has_preamble:  # a command that has ended can have printed the reason
            try:
                preamble.skip(self.stream)
            except (OSError, EOFError) as error:
                raise self._lost(error) from None
        if unsent is not None:
            raise unsent

    def finish_beginning(self) -> Response:
        """Waits for the response to the first call."""
        response = self.receive()
        self.stream.settimeout(None)
        if response.error is None:
            self.number = response.value["connection"]
            self.epoch = response.value.get("epoch", 0)
        return response

    def send(
        self,
        method: str,
        params: Any,
        attachments: Sequence[Any] = (),
        descriptors: Sequence[int] = (),
        before: tuple[str, Any] | None = None,
    ) -> None:
        """Sends a request. Raises `BrokerError` if the broker has gone, as `receive` does."""
        number = self.request = self.request + 1
        self._method = method
        body = ('{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}' % (number, method, encode(params))).encode()
        first = b"" if before is None else encode_notification(*before)
        try:
            if attachments or descriptors or first:
                self._send(body, attachments, descriptors, first)
            else:
                self.stream.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        except Unsent:
            raise
        except OSError as error:
            raise self._lost(error) from None

    def notify(self, method: str, params: Any) -> None:
        """Sends a notification, which has no response."""
        self._method = method
        try:
            self.stream.sendall(encode_notification(method, params))
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
            text = f"{self._method} failed: the broker at {self._route.endpoint} sent the response to another request"
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
        what = f"the broker at {self._route.endpoint} closed the connection{reason}"
        return f"{method} failed: {what}; {self._route.explanation() or 'check that it still runs'}"

    def _lost(self, error: Exception) -> BrokerError:
        if self.number < 0 and isinstance(error, EOFError):
            text = f"the broker at {self._route.endpoint} closed a new connection"
            limits = "one of its limits connections and connections_per_user may be reached"
            return BrokerError(f"{text}: {str(error) or self._route.explanation() or limits}")
        return BrokerError(self.loss_during(self._method, f" ({error})" if str(error) else ""))

    def _send(
        self, body: bytes, attachments: Sequence[Any], descriptors: Sequence[int], first: bytes = b""
    ) -> None:
        lengths = [len(part) for part in attachments]
        text = first + frame.encode_header(len(body), lengths, len(descriptors)) + body
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

    def is_readable_by(self, deadline: float) -> bool:
        """Waits until the broker has sent something or closed the connection. Returns whether it has by then."""
        poll = _poll()
        poll.register(self.stream.fileno(), _POLLIN)
        return bool(poll.poll(max(0, round((deadline - time.monotonic()) * 1000))))

    def shut_down(self) -> None:
        """Ends the connection for a thread that uses it, which must close it."""
        if self.is_ours():
            try:
                self.stream.shutdown(native.module.SHUT_RDWR)
            except OSError:
                pass  # it has ended already

    def forget(self) -> None:
        """Closes this process's copy after a fork. The parent keeps the connection."""
        self._process = None
        self.stream.close()
