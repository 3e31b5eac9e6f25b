"""The socket class of direct mode: native, with the broker for what the kernel refuses.

A call that this process is allowed to make costs nothing. If the kernel refuses one for want of rights (a raw socket,
a low port, an option that needs a capability), the broker does it on the same open socket.
"""

from __future__ import annotations

import errno

from . import native
from .arguments import method
from .base import BrokeredSocket
from .errors import BrokerError, still_refused
from .handle import Transit, in_transit
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client

_REFUSED = (errno.EPERM, errno.EACCES)
_RCVALL = (int(native.module.AF_INET), int(native.module.SOCK_RAW), 0)
_UNIX = int(native.module.AF_UNIX)


class DirectSocket(BrokeredSocket):
    """Every method that is not defined here is the interpreter's own."""

    __slots__ = ()

    @method
    def __init__(self, family: Any = -1, type: Any = -1, proto: Any = -1, fileno: Any = None) -> None:
        passed = in_transit(fileno, (family, type, proto))
        if passed is not None:
            self._become_native(passed)
            return
        if self._is_served():
            self.__class__ = self.__class__.__base__  # type: ignore[assignment]  # the new socket is native at first
        try:
            native.Socket.__init__(self, family, type, proto, fileno)
        except OSError as error:
            if fileno is not None or not _can_be_served(error, family, type, proto):
                raise
            refused = error
        else:
            self._apply_default_timeout()
            return
        self._become_native(_escalation(refused).create(self._client, refused, family, type, proto))

    def _become_native(self, passed: Transit) -> None:
        """Becomes a native socket. The broker makes every call if the policy does not pass the descriptor."""
        self._become(passed)
        if native.Socket.fileno(self) < 0:
            self.__class__ = _escalation().served_class(self.__class__)
        else:
            handle, self._handle = self._handle, None
            if handle is not None:
                handle.close()

    def _is_served(self) -> bool:
        return "is_served" in self.__class__.__dict__

    @method
    def bind(self, address: Any, /) -> None:
        self._try_natively("bind", address)

    @method
    def setsockopt(self, *args: Any) -> None:
        self._try_natively("setsockopt", *args)

    @method
    def ioctl(self, control: Any, option: Any = None, /) -> Any:
        """As `MediatedSocket.ioctl`."""
        return _escalation().call(self, "ioctl", control, option)

    def _try_natively(self, name: str, *args: Any) -> None:
        """Makes a call natively, and through the broker if the kernel refuses it or there is no descriptor."""
        if self._handle is not None:
            _escalation().call(self, name, *args)
            return
        try:
            getattr(native.Socket, name)(self, *args)
        except OSError as error:
            # The rights of this process decide about files, not those of the broker.
            if error.errno not in _REFUSED or native.family_of(self) == _UNIX:
                raise
            refused = error
        else:
            return
        _escalation(refused).call_instead(refused, self, name, *args)


def sethostname(client: Client, name: Any, /) -> None:
    """`socket.sethostname`: natively, and by the broker if the kernel refuses it."""
    try:
        native.module.sethostname(name)
    except PermissionError as error:
        refused = error
    else:
        return
    _escalation(refused).sethostname(client, refused, name)


def _can_be_served(error: OSError, family: Any, type_: Any, proto: Any) -> bool:
    """Whether the broker can create what the kernel refused for want of rights, or emulate it for `SIO_RCVALL`."""
    if error.errno in _REFUSED:
        return True
    return error.errno == errno.EPROTONOSUPPORT and (family, type_, proto) == _RCVALL


def _escalation(refused: OSError | None = None) -> Any:
    """The part of direct mode that uses the broker. Most programs never need it, and start faster without it.

    If it cannot be loaded, because the program has changed its root or its user, the kernel's error remains.
    """
    try:
        from . import escalation
    except (ImportError, OSError) as error:
        if refused is None:
            raise
        failure = BrokerError(f"cannot load the module sockbroker.escalation: {error}; keep the package readable")
    else:
        return escalation
    raise still_refused(refused, "this call", failure)
