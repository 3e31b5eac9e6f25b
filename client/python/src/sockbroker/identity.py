"""The ids and capabilities of a thread, by which the kernel decides what the thread is allowed to open."""

from __future__ import annotations

import os
from collections import namedtuple

_STATUS = "/proc/thread-self/status"
_STATUS_BYTES = 8192
_PERMITTED, _EFFECTIVE = b"\nCapPrm:\t", b"\nCapEff:\t"
_DIGITS = 16


class Capabilities(namedtuple("Capabilities", ("permitted", "effective"))):
    """Sets of capabilities, with one bit for each."""

    __slots__ = ()
    permitted: int
    effective: int


class Identity(namedtuple("Identity", ("users", "groups", "supplementary", "capabilities"))):
    """User ids and group ids (real, effective, saved) and capabilities, which are `None` where they cannot be read."""

    __slots__ = ()
    users: tuple[int, int, int]
    groups: tuple[int, int, int]
    supplementary: tuple[int, ...]
    capabilities: Capabilities | None

    def is_same(self, other: Identity) -> bool:
        """Whether both have the same ids, and the same capabilities as far as these are known."""
        unknown = self.capabilities is None or other.capabilities is None
        return self[:3] == other[:3] and (unknown or self.capabilities == other.capabilities)

    def has_given_up(self, before: Identity) -> bool:
        """Whether a thread with this identity cannot regain the rights of `before`, as after `setuid()`."""
        if self.capabilities and before.capabilities and before.capabilities.permitted & ~self.capabilities.permitted:
            return True
        return before.users[1] not in self.users and self.users[1] != 0


def current() -> Identity:
    """The identity of the calling thread."""
    return Identity(os.getresuid(), os.getresgid(), tuple(os.getgroups()), _capabilities())


def _capabilities() -> Capabilities | None:
    try:
        number = os.open(_STATUS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(number, _STATUS_BYTES)
    finally:
        os.close(number)
    return Capabilities(_field(text, _PERMITTED), _field(text, _EFFECTIVE))


def _field(text: bytes, name: bytes) -> int:
    at = text.find(name) + len(name)
    return int(text[at : at + _DIGITS], 16)
