"""The class of direct mode: native, with the broker for what the kernel refuses.

A call that this process may make costs nothing. What it may not (a raw socket, a low port, an option that
needs a capability) the broker does on the same open socket, which then is native again.
"""

from __future__ import annotations

import errno
import reprlib
from typing import Any, Callable

from . import creation, native
from .arguments import method
from .base import Base
from .errors import BrokerError, still_refused
from .handle import Transit, in_transit
from .transfer import HandleSocket
from .encoding import integer

_REFUSED = (errno.EPERM, errno.EACCES)
_SNIFFER = (int(native.module.AF_INET), int(native.module.SOCK_RAW), 0)
_UNIX = int(native.module.AF_UNIX)
_natively = native.Socket


class DirectSocket(Base):
    """Every method that is not here is the interpreter's own."""

    __slots__ = ()

    @method
    def __init__(self, family: Any = -1, type: Any = -1, proto: Any = -1, fileno: Any = None) -> None:
        passed = in_transit(fileno, (family, type, proto))
        if passed is not None:
            self._take_whole(passed)
            return
        if isinstance(self, HandleSocket):
            self.__class__ = self.__class__.__base__  # type: ignore[assignment]  # of a class that was served, but not this one
        try:
            _natively.__init__(self, family, type, proto, fileno)
        except OSError as error:
            if fileno is not None or not _may_be_served(error, family, type, proto):
                raise
            refused = error
        else:
            return
        kind = [integer(item) for item in (family, type, proto)]
        self._take_whole(instead(refused, _described(kind), lambda: creation.create(*kind)))

    def _take_whole(self, passed: Transit) -> None:
        """Native from now on; served call by call if the policy keeps the descriptor."""
        self._take(passed)
        if _natively.fileno(self) < 0:
            self.__class__ = served(self.__class__)
        else:
            handle, self._handle = self._handle, None
            if handle is not None:
                handle.close()

    @method
    def bind(self, address: Any, /) -> None:
        self._perhaps("bind", address)

    @method
    def setsockopt(self, *args: Any) -> None:
        self._perhaps("setsockopt", *args)

    @method
    def ioctl(self, control: Any, option: Any = None, /) -> Any:
        """As `HandleSocket.ioctl`."""
        if self._handle is not None:
            return HandleSocket.ioctl(self, control, option)
        return self._through_broker("ioctl", control, option)

    def _perhaps(self, name: str, *args: Any) -> None:
        """Natively, and in the broker if this process may not, or has no descriptor."""
        if self._handle is not None:
            getattr(HandleSocket, name)(self, *args)
            return
        try:
            getattr(_natively, name)(self, *args)
        except OSError as error:
            # The broker's rights on files are not this process's.
            if error.errno not in _REFUSED or self._family() == _UNIX:
                raise
            refused = error
        else:
            return
        what = f"{name}({', '.join(map(reprlib.repr, args))})"
        instead(refused, what, lambda: self._through_broker(name, *args))

    def _through_broker(self, name: str, *args: Any) -> Any:
        """One call on this socket, which the broker adopts for as long as it takes."""
        facts = self._facts()
        handle = creation.adopt(_natively.fileno(self), facts)
        borrowed = HandleSocket.__new__(HandleSocket)
        number = handle.shown()
        borrowed._take(Transit(number, handle, facts))
        try:
            return getattr(borrowed, name)(*args)
        finally:
            borrowed.close()


def _may_be_served(error: OSError, family: Any, kind: Any, protocol: Any) -> bool:
    """Whether the broker can do what the kernel has refused: for want of rights, or a sniffer."""
    if error.errno in _REFUSED:
        return True
    return error.errno == errno.EPROTONOSUPPORT and (family, kind, protocol) == _SNIFFER


def instead(refused: OSError, what: str, call: Callable[[], Any]) -> Any:
    """What the broker does. Where it may not either, or there is none, the kernel's refusal remains."""
    try:
        return call()
    except (BrokerError, PermissionError) as error:
        failure = still_refused(refused, what, error)
    raise failure


def _described(kind: list[int]) -> str:
    """A call of `socket()` in the module's words."""
    family, type_ = (_name_of(prefix, value) for prefix, value in zip(("AF_", "SOCK_"), kind))
    return f"socket({family}, {type_}, {kind[2]})"


def _name_of(prefix: str, value: int) -> str:
    names = (name for name in dir(native.module) if name.startswith(prefix) and getattr(native.module, name) == value)
    return next(names, str(value))


_served: dict[type, type] = {}


def served(cls: type) -> type:
    """The same class with every operation in the broker; what a subclass overrides stays so."""
    if issubclass(cls, HandleSocket):
        return cls
    made = _served.get(cls)
    if made is None:
        names = {"__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = _served[cls] = type(cls.__name__, (cls, HandleSocket), names)
    return made
