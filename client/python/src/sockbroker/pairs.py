"""`socket.socketpair` in mediated and remote mode."""

from __future__ import annotations

from . import creation, native
from .encoding import integer
from .handle import Transit, spec_of
from .hints import TYPE_CHECKING, Any
from .mediated import MediatedSocket

if TYPE_CHECKING:
    from .client import Client

_UNIX, _STREAM = native.module.AF_UNIX, native.module.SOCK_STREAM


class PairEnd(MediatedSocket, as_socket=True):
    """An end of a pair. `socket.socketpair` detaches it at once to create its own object, which gets the handle too."""

    __slots__ = ()

    def detach(self) -> int:
        passed, self._handle = self._handle, None
        if passed is None:
            return native.Socket.detach(self)  # type: ignore[no-any-return]
        spec = spec_of(self)
        descriptor = native.Socket.detach(self)
        return Transit(descriptor if descriptor >= 0 else passed.pseudo_descriptor(), passed, spec)


def socketpair(client: Client, family: Any = _UNIX, type: Any = _STREAM, proto: Any = 0, /) -> Any:
    """Returns a pair of connected sockets, with the credentials of this process where it can create them itself."""
    numbers = [integer(_UNIX if family is None else family), integer(type), integer(proto)]
    return tuple(PairEnd(*passed.spec[:3], passed) for passed in creation.pair(client, *numbers))
