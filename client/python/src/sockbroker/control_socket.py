"""Sockets of this package itself, whose numbers the program may close and use again.

`os.closerange()` and loops over `os.close()`, as daemons make them, do not know of these sockets. So each
remembers which open file it is, and neither uses nor closes its number once that means another file.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from typing import Any

from . import native

# Programs expect the lowest numbers to be theirs.
_LOWEST_NUMBER = 512
FILE = slice(1, 3)  # st_ino and st_dev of a stat result

_owned: weakref.WeakSet[Owned] = weakref.WeakSet()


class Owned(native.Socket):  # type: ignore[misc]
    """A socket of this package. It may end with the interpreter, without a warning."""

    __slots__ = ("file", "__weakref__")
    file: Any

    def claim(self) -> None:
        """Remembers the file that the number means now."""
        self.file = os.fstat(self.fileno())[FILE]
        _owned.add(self)

    def is_ours(self, _fstat: Any = os.fstat) -> bool:
        """Whether the number still means the same file."""
        try:
            return _fstat(self.fileno())[FILE] == self.file  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Closes the number if it is still this socket's."""
        if self.fileno() >= 0:
            if self.is_ours():
                native.Socket.close(self)
            else:
                native.Socket.detach(self)

    def __del__(self, _close: Any = close) -> None:
        _close(self)


def raised(sock: Any) -> Owned:
    """The socket under a high number, blocking."""
    try:
        number = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, _LOWEST_NUMBER)
    except (OSError, ValueError):
        number = os.dup(sock.fileno())  # the limit of open files is lower
    high = Owned(fileno=number)
    high.claim()
    sock.close()
    high.settimeout(None)
    return high


def is_owned(number: int) -> bool:
    """Whether a descriptor is a socket of this package, under this number or another."""
    file = os.fstat(number)[FILE]
    return any(sock.file == file for sock in list(_owned))
