"""Results of interrupted calls.

The exception of a signal handler can interrupt a call after the kernel has taken data from the socket. The next
receive, or accept, on the handle returns that result. `select` does not report it.
"""

from __future__ import annotations

import collections

from . import frame, native
from .hints import Any

_PEEK = int(native.module.MSG_PEEK)
_TRUNC = int(native.module.MSG_TRUNC)
_STREAM = int(native.module.SOCK_STREAM)


class Message:
    """What one receive returns. `n` is the result of the system call, which can exceed the data with `MSG_TRUNC`."""

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


class UndeliveredResults:
    """The results of one handle's interrupted calls, in order."""

    def __init__(self) -> None:
        self.messages: collections.deque[Message] = collections.deque()
        self.accepted: collections.deque[tuple[Any, Any]] = collections.deque()

    def receive(self, size: int, flags: int, kind: int) -> Message | None:
        """The next message, cut to `size` bytes as a receive would do it. A stream keeps the rest."""
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
        """Closes the descriptors and sockets of all results."""
        for message in self.messages:
            frame.close_all(message.descriptors)
        self.messages.clear()
        self.accepted.clear()
