"""Results that came too late: their call was interrupted, but the data had been taken.

The next receive, or accept, on the handle gets them. They are invisible to `select`.
"""

from __future__ import annotations

import collections
from typing import Any

from . import frame, native

_PEEK = int(native.module.MSG_PEEK)
_TRUNC = int(native.module.MSG_TRUNC)
_STREAM = int(native.module.SOCK_STREAM)


class Message:
    """One receive's worth: data, what the system call returned, ancillary data, descriptors, flags, sender."""

    __slots__ = ("data", "n", "ancillary", "flags", "address", "descriptors")

    def __init__(
        self, data: bytes, n: int, ancillary: list[Any], flags: int, address: Any, descriptors: list[int]
    ) -> None:
        self.data = data
        self.n = n
        self.ancillary = ancillary
        self.flags = flags
        self.address = address
        self.descriptors = descriptors


class LateResults:
    """What one handle's interrupted calls received, in order."""

    def __init__(self) -> None:
        self.messages: collections.deque[Message] = collections.deque()
        self.accepted: collections.deque[tuple[Any, Any]] = collections.deque()

    def receive(self, size: int, flags: int, kind: int) -> Message | None:
        """The next message as a receive of `size` bytes would get it; of a stream the bytes that fit."""
        if not self.messages:
            return None
        first = self.messages[0]
        rest = first.data[size:]
        is_stream = kind == _STREAM
        truncated = 0 if is_stream or not rest else _TRUNC
        n = first.n if flags & _TRUNC and not is_stream else min(len(first.data), size)
        taken = Message(
            first.data[:size], n, first.ancillary, first.flags | truncated, first.address, first.descriptors
        )
        if flags & _PEEK:
            taken.ancillary, taken.descriptors = [], []
        elif is_stream and rest:
            first.data, first.n = rest, len(rest)
            first.ancillary, first.descriptors = [], []
        else:
            self.messages.popleft()
        return taken

    def close(self) -> None:
        """Closes what nobody will take."""
        for message in self.messages:
            frame.close_all(message.descriptors)
        self.messages.clear()
        self.accepted.clear()
