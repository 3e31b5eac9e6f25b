"""Direct mode after a refusal of the kernel: the broker makes the call, on the same socket."""

from __future__ import annotations

import reprlib
from collections.abc import Callable

from . import creation, delegation, native, resolver
from .base import BrokeredSocket
from .encoding import integer
from .errors import BrokerError, still_refused
from .handle import Transit, spec_of
from .hints import TYPE_CHECKING, Any
from .mediated import MediatedSocket

if TYPE_CHECKING:
    from .client import Client


def create(client: Client, refused: OSError, family: Any, type_: Any, proto: Any) -> Transit:
    """Creates a socket that the kernel refused to create."""
    numbers = [integer(item) for item in (family, type_, proto)]
    return _instead(refused, _described(numbers), lambda: delegation.create(client, *numbers))  # type: ignore[no-any-return]


def call_instead(refused: OSError, sock: BrokeredSocket, name: str, *args: Any) -> None:
    """Makes a call that the kernel refused."""
    what = f"{name}({', '.join(map(reprlib.repr, args))})"
    _instead(refused, what, lambda: _apply(sock, name, *args))


def _apply(sock: BrokeredSocket, name: str, *args: Any) -> None:
    """Makes a call on a native socket in one exchange, if it is one of those that the broker applies."""
    if not delegation.apply(sock, name, *args):
        call(sock, name, *args)


def sethostname(client: Client, refused: OSError, name: Any) -> None:
    """Sets the host name, which the kernel refused."""
    _instead(refused, f"sethostname({name!r})", lambda: resolver.sethostname(client, name))


def call(sock: BrokeredSocket, name: str, *args: Any) -> Any:
    """Makes a call through the broker. If the socket has no handle, the broker adopts it for this one call."""
    if sock._handle is not None:
        return getattr(MediatedSocket, name)(sock, *args)
    spec = spec_of(sock)
    handle = creation.adopt(sock._client, native.Socket.fileno(sock), spec)
    borrowed = MediatedSocket.__new__(MediatedSocket)
    borrowed._become(Transit(handle.pseudo_descriptor(), handle, spec))
    try:
        return getattr(borrowed, name)(*args)
    finally:
        borrowed.close()


def _instead(refused: OSError, what: str, action: Callable[[], Any]) -> Any:
    """Does an action of the broker. If that fails too, raises the kernel's error with both reasons."""
    try:
        return action()
    except (BrokerError, PermissionError) as error:
        failure = still_refused(refused, what, error)
    raise failure


def _described(numbers: list[int]) -> str:
    """A call of `socket()` with the names of its constants."""
    family, type_ = (_name_of(prefix, value) for prefix, value in zip(("AF_", "SOCK_"), numbers))
    return f"socket({family}, {type_}, {numbers[2]})"


def _name_of(prefix: str, value: int) -> str:
    names = (name for name in dir(native.module) if name.startswith(prefix) and getattr(native.module, name) == value)
    return next(names, str(value))


def served_class(cls: type) -> type:
    """The same class for a socket without a descriptor: the broker does every operation that no subclass overrides."""
    if issubclass(cls, MediatedSocket):
        return cls
    made: type | None = cls.__dict__.get("_served_class")
    if made is None:
        names = {"__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__, "is_served": True}
        made = type(cls.__name__, (cls, MediatedSocket), names)
        type.__setattr__(cls, "_served_class", made)
    return made
