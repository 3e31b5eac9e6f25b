"""A call on a shared connection: one thread waits for it, another one sends and receives."""

from __future__ import annotations

import _thread
from collections.abc import Sequence

from . import frame
from .hints import Any
from .jsonrpc import Response, encode_notification, encode_request


class Message:
    """What a client sends for a call: a request, and what the broker executes before it without a response."""

    __slots__ = ("method", "params", "attachments", "descriptors", "before")

    def __init__(
        self,
        method: str,
        params: Any,
        attachments: Sequence[Any] = (),
        descriptors: Sequence[int] = (),
        before: tuple[str, Any] | None = None,
    ) -> None:
        self.method, self.params, self.attachments, self.descriptors = method, params, attachments, descriptors
        self.before = before
        """A method with its parameters."""


class Call:
    """A request, and the means to wake the thread that waits for its response."""

    __slots__ = (
        "method", "handle", "params", "attachments", "descriptors", "number",
        "before", "response", "error", "cancelled", "is_notification", "finished", "done", "bell",
    )  # fmt: skip

    def __init__(self, message: Message) -> None:
        params = message.params
        first = params[0] if isinstance(params, list) and params else None
        self.method = message.method
        self.handle = params.get("handle") if isinstance(params, dict) else first
        self.params = params
        self.attachments = [bytes(part) for part in message.attachments]
        self.descriptors = list(message.descriptors)
        self.before = message.before
        self.number = 0
        self.response: Response | None = None
        self.error: Exception | None = None
        self.cancelled = self.is_notification = self.finished = False
        self.bell: Any = None
        """A socket that is closed when the call ends, so that its peer becomes readable."""
        self.done = _thread.allocate_lock()
        self.done.acquire()

    def frame(self) -> bytes:
        """The bytes of the request."""
        body = encode_request(None if self.is_notification else self.number, self.method, self.params)
        header = frame.encode_header(len(body), [len(part) for part in self.attachments], len(self.descriptors))
        first = b"" if self.before is None else encode_notification(*self.before)
        return b"".join((first, header, body, *self.attachments))

    def size(self) -> int:
        """The approximate size of the request in bytes."""
        return sum(map(len, self.attachments))

    def finish(self) -> None:
        """Wakes the thread that waits."""
        if not self.finished:
            self.finished = True
            if self.bell is not None:
                self.bell.close()
            self.done.release()
