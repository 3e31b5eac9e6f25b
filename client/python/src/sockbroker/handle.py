"""A handle of the broker, owned by one socket object, and its life as a number.

`socket.py` passes a socket on as an integer: `accept`, `dup` and `detach` give one, `socket(fileno=...)`
takes it. Where there is a descriptor it is that; a handle without one is shown by a number from 2^30 on,
which no kernel gives to a descriptor.
"""

from __future__ import annotations

import errno
import itertools
import os
import weakref
from typing import Any, NamedTuple

from .jsonrpc import Answer
from .session import Session
from .errors import BrokerError
from .undelivered import LateResults

FIRST_SHOWN = 1 << 30
_numbers = itertools.count(FIRST_SHOWN)
_shown: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()
_by_descriptor: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()
_detached: dict[int, Handle] = {}


class Handle:
    """Closes itself in the broker when it is collected."""

    __slots__ = ("session", "number", "late", "_shown", "__weakref__")

    def __init__(self, session: Session, number: int) -> None:
        session.handles += 1
        self.session = session
        self.number: int | None = number
        self.late: LateResults | None = None
        """What interrupted calls received."""
        self._shown = -1

    def call(self, name: str, params: list[Any], **beside: Any) -> Answer:
        """Calls a method of this socket: the handle comes first."""
        number = self.number
        if number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.session.call("socket." + name, [number, *params], **beside)

    def call_by_name(self, name: str, params: dict[str, Any], attachments: list[Any]) -> Answer:
        """The same with parameters by name."""
        number = self.number
        if number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.session.call("socket." + name, {"handle": number, **params}, attachments)

    def shown(self) -> int:
        """The number that stands for it where a descriptor would; -1 once it is closed."""
        if self.number is None:
            return -1
        if self._shown < 0:
            self._shown = next(_numbers)
            _shown[self._shown] = self
        return self._shown

    def release(self) -> int | None:
        """Takes the broker's number: from now on this object closes nothing."""
        number, self.number = self.number, None
        if number is not None:
            self.session.handles -= 1
        late, self.late = self.late, None
        if late is not None:
            late.close()
        return number

    def close(self) -> bool:
        """Closes the socket in the broker; whether it was open. It is closed too if the broker has gone."""
        number = self.release()
        if number is None or self.session.ended:
            return number is not None
        try:
            self.session.call("socket.close", [number])
        except (BrokerError, OSError):
            pass
        except BaseException:
            close_number(self.session, number)  # interrupted, perhaps before it was sent
            raise
        return True

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter may be half gone
            pass


def _local() -> Handle:
    made = Handle.__new__(Handle)
    made.number, made.late, made._shown = None, None, -1
    return made


LOCAL = _local()
"""In place of the handle of a Unix socket that this process holds and the broker does not mediate."""


def close_number(session: Session, number: int) -> None:
    """Closes a handle that has no object, or may be closed already."""
    try:
        session.call("socket.close", [number])
    except Exception:
        pass


class Facts(NamedTuple):
    """What Python's attributes say of a socket."""

    family: int
    kind: int
    protocol: int
    timeout: float | None


class Transit(int):
    """The integer by which `socket.py` passes a handle on: a descriptor, or the number it is shown by."""

    handle: Handle
    facts: Facts

    def __new__(cls, number: int, handle: Handle, facts: Facts) -> Transit:
        made = super().__new__(cls, number)
        made.handle = handle
        made.facts = facts
        return made


def in_transit(number: Any, given: tuple[Any, Any, Any]) -> Transit | None:
    """The handle that an integer passes on, if it does.

    Family, type and protocol may be given, as for a descriptor. A number that is still another object's is
    shared with it, as a descriptor would be: whoever closes it closes it for both.
    """
    if isinstance(number, Transit):
        return number
    if not isinstance(number, int) or number < FIRST_SHOWN:
        return None
    handle = _detached.pop(number, None) or by_number(number)
    if handle is None:
        return None
    known = attributes(handle)
    family, kind, protocol = (own if asked == -1 else asked for asked, own in zip(given, known[:3]))
    return Transit(number, handle, Facts(family, kind, protocol, known.timeout))


def detach(handle: Handle) -> int:
    """Gives a handle away as a number, which keeps it open until it is adopted or closed."""
    number = handle.shown()
    _detached[number] = handle
    return number


def by_number(number: Any) -> Handle | None:
    """The open handle that is shown by this number."""
    if not isinstance(number, int) or number < FIRST_SHOWN:
        return None
    handle = _shown.get(number)
    return handle if handle is not None and handle.number is not None else None


def close_shown(number: Any) -> bool:
    """Closes the handle that is shown by this number; whether there is one."""
    handle = by_number(number)
    if handle is None:
        return False
    _detached.pop(number, None)
    handle.close()
    return True


def attributes(handle: Handle) -> Facts:
    """What the broker knows of a handle."""
    value = handle.call("attributes", []).value
    return Facts(value["family"], value["type"], value["proto"], value["timeout"])


def note_descriptor(descriptor: int, handle: Handle) -> None:
    """Remembers whose descriptor this is, for `socket.close()` of a number."""
    _by_descriptor[descriptor] = handle


def close_of_descriptor(descriptor: Any) -> None:
    """Closes the handle of a descriptor that has been closed."""
    if isinstance(descriptor, int):
        handle = _by_descriptor.pop(descriptor, None)
        if handle is not None:
            handle.close()
