"""The package's own sockets, whose descriptors the program can close and reuse.

A program that closes all descriptors, as daemons do with `os.closerange()`, closes these too. So each socket
remembers the open file of its descriptor, and neither uses nor closes the number once it means another file.
"""

from __future__ import annotations

import fcntl
import os
import weakref

from . import native
from .hints import Any

LOWEST_NUMBER = 512  # programs expect to get the lowest numbers
FILE = slice(1, 3)  # st_ino and st_dev of a stat result

_control_sockets: weakref.WeakSet[ControlSocket] = weakref.WeakSet()


class ControlSocket(native.Socket):  # type: ignore[misc]
    """A socket of this package. The interpreter does not warn if it is still open at the end."""

    __slots__ = ("file", "__weakref__")
    file: Any

    def remember_file(self) -> None:
        """Remembers the file that the descriptor means now."""
        self.file = os.fstat(self.fileno())[FILE]
        _control_sockets.add(self)

    def is_ours(self, _fstat: Any = os.fstat, _file: slice = FILE) -> bool:
        """Whether the descriptor still means the same file. Works after the interpreter has deleted the globals."""
        try:
            return _fstat(self.fileno())[_file] == self.file  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Closes the descriptor if it still means this socket."""
        if self.fileno() >= 0:
            if self.is_ours():
                super().close()
            else:
                super().detach()

    def __del__(self, _close: Any = close) -> None:
        _close(self)


def with_high_number(sock: Any) -> ControlSocket:
    """Moves a socket to a high descriptor number. The new socket is blocking."""
    try:
        number = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, LOWEST_NUMBER)
    except (OSError, ValueError):
        number = os.dup(sock.fileno())  # the limit of open files is lower
    high = ControlSocket(fileno=number)
    high.remember_file()
    sock.close()
    high.settimeout(None)
    return high


def is_control_socket(number: int) -> bool:
    """Whether a descriptor means a socket of this package, under its own number or another."""
    file = os.fstat(number)[FILE]
    # The set itself must not be iterated: another thread can add to it.
    present = (reference() for reference in list(_control_sockets.data))  # type: ignore[attr-defined]
    return any(sock is not None and sock.file == file for sock in present)
