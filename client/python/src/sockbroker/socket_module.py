"""The module that stands in the place of `_socket`, below the standard library's own `socket.py`."""

from __future__ import annotations

import functools
import types
from typing import Any

from . import creation, handle, native, process, resolver
from .arguments import function
from .base import Sealed
from .direct import DirectSocket, instead
from .settings import DIRECT, REMOTE
from .transfer import HandleSocket
from .encoding import integer

SNIFFING = {"SIO_RCVALL": 0x98000001, "RCVALL_OFF": 0, "RCVALL_ON": 1}
"""Constants of other platforms' modules that the broker understands."""


def build(mode: str) -> types.ModuleType:
    """A module with every name of `_socket`, in which sockets are the broker's."""
    made = types.ModuleType("_socket", native.module.__doc__)
    for name in dir(native.module):
        if not (name.startswith("__") and name.endswith("__")):
            setattr(made, name, getattr(native.module, name))
    for name, value in SNIFFING.items():
        setattr(made, name, value)
    if mode == REMOTE:
        _take_constants(made)
    served: dict[str, Any] = {} if mode == DIRECT else dict(resolver.FUNCTIONS)
    if mode == DIRECT:
        served["sethostname"] = _sethostname
    cls = _socket_class(mode)
    if mode != DIRECT:
        served["socketpair"] = _socketpair(_end_class(cls))
    served.update(socket=cls, dup=_dup, close=_close)
    served["SocketType"] = served["socket"]
    for name, value in served.items():
        if hasattr(made, name):
            setattr(made, name, value)
    made.native_module = native.module  # type: ignore[attr-defined]
    made.__spec__ = native.module.__spec__
    return made


def _socket_class(mode: str) -> Any:
    base = DirectSocket if mode == DIRECT else HandleSocket
    contents = {"__slots__": (), "__module__": "_socket", "__doc__": native.Socket.__doc__}
    return Sealed("socket", (base,), {**contents, "sealed": True})


def _take_constants(made: types.ModuleType) -> None:
    """The numbers of the broker's platform. What it does not have does not exist."""
    answer = process.call("socket.constants", [])[1].value
    constants = answer["constants"]
    for name in dir(native.module):
        is_constant = name[:1].isupper() and isinstance(getattr(native.module, name), int)
        if is_constant and name not in constants:
            delattr(made, name)
    for name, value in constants.items():
        if hasattr(native.module, name) or name in SNIFFING:
            setattr(made, name, value)
    made.has_ipv6 = answer["has_ipv6"]  # type: ignore[attr-defined]


def _end_class(cls: Any) -> Any:
    """The class of a pair's ends, which `socket.py` detaches at once to make its own objects of them."""

    def detach(self: Any) -> int:
        passed, self._handle = self._handle, None
        facts = self._facts()
        descriptor = native.Socket.detach(self)
        return handle.Transit(descriptor if descriptor >= 0 else passed.shown(), passed, facts)

    return type("socket", (cls,), {"__slots__": (), "__module__": "_socket", "detach": detach})


def _socketpair(end: Any) -> Any:
    """The function that makes pairs with ends of this class."""
    unix, stream = native.module.AF_UNIX, native.module.SOCK_STREAM

    @function
    def socketpair(family: Any = unix, type: Any = stream, proto: Any = 0, /) -> Any:
        """A pair made by this process where it can, so that its credentials are in it."""
        kind = [integer(unix if family is None else family), integer(type), integer(proto)]
        return tuple(end(*passed.facts[:3], passed) for passed in creation.pair(*kind))

    return socketpair


def _dup(fd: Any, /) -> Any:
    """Of a descriptor one more, of a handle without one another handle."""
    shown = handle.by_number(fd)
    if shown is None:
        return native.module.dup(fd)
    answer = shown.call("dup", [], late=functools.partial(creation.discard, shown.session))
    return creation.transit(shown.session, answer.value, answer)


def _close(fd: Any, /) -> None:
    if not handle.close_shown(fd):
        native.module.close(fd)
        handle.close_of_descriptor(fd)


def _sethostname(name: Any, /) -> None:
    """Natively, and by the broker if this process may not."""
    try:
        native.module.sethostname(name)
    except PermissionError as error:
        refused = error
    else:
        return
    instead(refused, f"sethostname({name!r})", lambda: resolver.sethostname(name))
