"""The common class of brokered sockets.

    socket.socket                  the standard library's class, in `socket.py`
    MediatedSocket, DirectSocket   `_socket.socket` in the modes: how operations reach the kernel
    BrokeredSocket                 owns the handle, and becomes the socket that a number passes on
    the interpreter's class        holds the descriptor, if there is one, for `ssl`, `select` and `fileno()`
"""

from __future__ import annotations

import errno
import os

from . import native
from .arguments import method, set_attributes
from .handle import FIRST_PSEUDO, Handle, Transit, detach, note_descriptor
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client


class SocketType(type):
    """The type of `_socket.socket`: gives a class CPython's name and documentation, and refuses changes of it."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], contents: dict[str, Any], as_socket: bool = False
    ) -> SocketType:
        if as_socket:
            name = "socket"
            contents.update(__module__="_socket", __qualname__=name, __doc__=native.Socket.__doc__, is_immutable=True)
        return super().__new__(mcs, name, bases, contents)

    def __setattr__(cls, name: str, value: Any) -> None:
        if "is_immutable" in cls.__dict__:
            raise TypeError(f"cannot set {name!r} attribute of immutable type '_socket.socket'")
        super().__setattr__(name, value)


class BrokeredSocket(native.Socket, metaclass=SocketType):  # type: ignore[misc]
    """A socket object that can own a handle of the broker."""

    __slots__ = ("_handle",)
    _handle: Handle | None
    _client: Client
    """The client of new sockets, which the class of each module has."""

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
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # closed by its number before
        native.Socket.close(self)

    @method
    def detach(self) -> int:
        """Returns the descriptor, which the caller owns, or a pseudo descriptor, which passes the handle on."""
        handle, self._handle = self._handle, None
        number: int = native.Socket.detach(self)
        if handle is not None and number < 0:
            return detach(handle)
        if handle is not None:
            session, channel_of = handle.session if handle.channel else None, handle.number
            handle.close()
            if session is not None and channel_of is not None:
                Handle(session, channel_of).leave_to(number)
        return number

    def _open(self) -> Handle:
        """The handle. Raises `EBADF` if the socket is closed."""
        handle = self._handle
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def _become(self, passed: Transit) -> None:
        """Becomes the socket that an integer passes on."""
        spec = passed.spec
        if passed >= FIRST_PSEUDO:
            set_attributes(self, *spec[:3])
        else:
            native.Socket.__init__(self, *spec[:3], int(passed))
        self._handle = passed.handle
        if spec.timeout != native.Socket.gettimeout(self):
            self._apply_timeout(native.Socket.settimeout, spec.timeout)
        self._note_descriptor()

    def _apply_timeout(self, setter: Any, value: Any) -> None:
        """Sets the timeout of the interpreter's part, which stores it also if its system call has no descriptor."""
        try:
            setter(self, value)
        except OSError:
            if native.Socket.fileno(self) >= 0:
                raise

    def _apply_default_timeout(self) -> None:
        """Sets the default timeout of the client, if it has another one than the process, after creation."""
        if self._client.has_own_timeout:
            native.Socket.settimeout(self, self._client.default_timeout())

    def _note_descriptor(self) -> None:
        descriptor = native.Socket.fileno(self)
        if descriptor >= 0 and self._handle is not None:
            note_descriptor(descriptor, self._handle)

    def _readopt(self) -> bool:
        """Gets another handle in place of one that is lost. Returns whether it did."""
        return False
