"""The module that replaces `_socket`, below the standard library's own `socket.py`."""

from __future__ import annotations

import functools
import types

from . import handle, native, process
from .hints import Any
from .settings import DIRECT, REMOTE

RCVALL = {"SIO_RCVALL": 0x98000001, "RCVALL_OFF": 0, "RCVALL_ON": 1}
"""Constants of `_socket` on another platform, which the broker emulates."""


def build(mode: str) -> types.ModuleType:
    """A module with every name of `_socket` and brokered sockets."""
    made = types.ModuleType("_socket", native.module.__doc__)
    for name in dir(native.module):
        if not (name.startswith("__") and name.endswith("__")):
            setattr(made, name, getattr(native.module, name))
    for name, value in RCVALL.items():
        setattr(made, name, value)
    if mode == REMOTE:
        _take_constants(made)
    served = _direct() if mode == DIRECT else _mediated()
    served.update(dup=_dup, close=_close, SocketType=served["socket"])
    for name, value in served.items():
        if hasattr(made, name):
            setattr(made, name, value)
    made.native_module = native.module  # type: ignore[attr-defined]
    made.__spec__ = native.module.__spec__
    return made


def _direct() -> dict[str, Any]:
    """What direct mode replaces."""
    from . import direct

    return {"socket": direct.DirectSocket, "sethostname": direct.sethostname}


def _mediated() -> dict[str, Any]:
    """What the other modes replace. Imports all that later calls need: the program may leave its root or its user."""
    from . import mediated, pairs, resolver

    return {**resolver.FUNCTIONS, "socket": mediated.MediatedSocket, "socketpair": pairs.socketpair}


def _take_constants(made: types.ModuleType) -> None:
    """Sets the constants of the broker's platform, and deletes those that it does not have."""
    answer = process.call("socket.constants", [])[1].value
    constants = answer["constants"]
    for name in dir(native.module):
        is_constant = name[:1].isupper() and isinstance(getattr(native.module, name), int)
        if is_constant and name not in constants:
            delattr(made, name)
    for name, value in constants.items():
        if hasattr(native.module, name) or name in RCVALL:
            setattr(made, name, value)
    made.has_ipv6 = answer["has_ipv6"]  # type: ignore[attr-defined]


def _dup(fd: Any, /) -> Any:
    """Duplicates a descriptor, or the handle of a pseudo descriptor."""
    found = handle.by_pseudo(fd)
    if found is None:
        return native.module.dup(fd)
    from . import creation

    undelivered = functools.partial(creation.discard, found.session)
    response = found.call("dup", [], undelivered=undelivered)
    return creation.transit(found.session, response.value, response)


def _close(fd: Any, /) -> None:
    if not handle.close_pseudo(fd):
        native.module.close(fd)
        handle.close_of_descriptor(fd)
