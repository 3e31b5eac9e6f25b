"""A call that one thread waits for and another one sends and receives."""

from __future__ import annotations

import _thread
from typing import Any, Sequence

from . import frame
from .jsonrpc import Answer, request


class Call:
    """A request, and the thread that waits for its answer."""

    __slots__ = (
        "method", "handle", "body", "attachments", "descriptors", "number",
        "answer", "error", "cancelled", "is_notification", "finished", "done", "bell",
    )  # fmt: skip

    def __init__(
        self, method: str, params: Any, attachments: Sequence[Any] = (), descriptors: Sequence[int] = ()
    ) -> None:
        first = params[0] if isinstance(params, list) and params else None
        self.method = method
        self.handle = params.get("handle") if isinstance(params, dict) else first
        self.body = params
        self.attachments = [bytes(part) for part in attachments]
        self.descriptors = list(descriptors)
        self.number = 0
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.cancelled = self.is_notification = self.finished = False
        self.bell: Any = None
        """A socket that gets the end of its stream when the call ends."""
        self.done = _thread.allocate_lock()
        self.done.acquire()

    def frame(self) -> bytes:
        """The bytes of the request."""
        body = request(None if self.is_notification else self.number, self.method, self.body)
        head = frame.write_head(len(body), [len(part) for part in self.attachments], len(self.descriptors))
        return b"".join((head, body, *self.attachments))

    def size(self) -> int:
        """About the bytes of the request."""
        return sum(map(len, self.attachments))

    def finish(self) -> None:
        """Lets the thread that waits go on."""
        if not self.finished:
            self.finished = True
            if self.bell is not None:
                self.bell.close()
            self.done.release()
