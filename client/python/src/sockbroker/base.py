"""What every socket object of this package has: the interpreter's class below, and perhaps a handle.

The class below holds the descriptor, where there is one, so that `ssl`, `select` and `fileno()` work on it.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from . import native
from .arguments import label, method
from .handle import FIRST_SHOWN, Facts, Handle, Transit, detach, note_descriptor


class Sealed(type):
    """The class `_socket.socket` cannot be changed, in CPython as here; its subclasses can."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if "sealed" in cls.__dict__:
            raise TypeError(f"cannot set {name!r} attribute of immutable type '_socket.socket'")
        super().__setattr__(name, value)


class Base(native.Socket, metaclass=Sealed):  # type: ignore[misc]
    """A socket object with room for a handle."""

    __slots__ = ("_handle",)
    _handle: Handle | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls, *args, **kwargs)
        made._handle = None
        return made

    @method
    def close(self) -> None:
        """Closes handle and descriptor."""
        handle = self._handle
        if handle is not None:
            self._handle = None
            if not handle.close() and native.Socket.fileno(self) < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # closed by its number
        native.Socket.close(self)

    @method
    def detach(self) -> int:
        """The descriptor, which is the caller's; where there is none, the number that passes the handle on."""
        handle, self._handle = self._handle, None
        number: int = native.Socket.detach(self)
        if handle is not None and number < 0:
            return detach(handle)
        if handle is not None:
            handle.close()
        return number

    def _take(self, passed: Transit) -> None:
        """Becomes the socket that an integer passed on."""
        facts = passed.facts
        if passed >= FIRST_SHOWN:
            label(self, *facts[:3])
        else:
            native.Socket.__init__(self, *facts[:3], int(passed))
        self._handle = passed.handle
        if facts.timeout != native.Socket.gettimeout(self):
            self._note_timeout(facts.timeout)
        self._note_descriptor()

    def _note_descriptor(self) -> None:
        descriptor = native.Socket.fileno(self)
        if descriptor >= 0 and self._handle is not None:
            note_descriptor(descriptor, self._handle)

    def _note_timeout(self, seconds: float | None) -> None:
        """The timeout below; without a descriptor it is noted all the same."""
        try:
            native.Socket.settimeout(self, seconds)
        except OSError:
            if native.Socket.fileno(self) >= 0:
                raise

    def _revive(self) -> bool:
        """Whether the socket has got another handle, in place of one that was lost."""
        return False

    def _facts(self) -> Facts:
        timeout = native.Socket.gettimeout(self)
        return Facts(self._family(), self._kind(), self._protocol(), timeout)

    def _family(self) -> int:
        return native.Socket.family.__get__(self)  # type: ignore[no-any-return]

    def _kind(self) -> int:
        return native.Socket.type.__get__(self)  # type: ignore[no-any-return]

    def _protocol(self) -> int:
        return native.Socket.proto.__get__(self)  # type: ignore[no-any-return]
