"""The module that replaces `_socket`, below the standard library's own `socket.py`."""

from __future__ import annotations

import functools
import types

from . import handle, native
from .base import SocketType
from .hints import TYPE_CHECKING, Any
from .settings import DIRECT, OF_BROKER

if TYPE_CHECKING:
    from .client import Client

RCVALL = {"SIO_RCVALL": 0x98000001, "RCVALL_OFF": 0, "RCVALL_ON": 1}
"""Constants of `_socket` on another platform, which the broker emulates."""


def build(client: Client, name: str) -> types.ModuleType:
    """A module with every name of `_socket` and the sockets of a client. Its functions are known as those of `name`."""
    made = types.ModuleType("_socket", native.module.__doc__)
    for item in dir(native.module):
        if not (item.startswith("__") and item.endswith("__")):
            setattr(made, item, getattr(native.module, item))
    for item, value in RCVALL.items():
        setattr(made, item, value)
    if client.settings.mode in OF_BROKER:
        _take_constants(made, client)
    served = _direct(client, name) if client.settings.mode == DIRECT else _mediated(client, name)
    served.update(dup=_dup, close=_close, SocketType=served["socket"])
    for item, value in served.items():
        if hasattr(made, item):
            setattr(made, item, value)
    made.native_module = native.module  # type: ignore[attr-defined]
    made.__spec__ = native.module.__spec__
    return made


def _direct(client: Client, name: str) -> dict[str, Any]:
    """What direct mode replaces."""
    from . import direct
    from .arguments import bound

    served = {"socket": _class(direct.DirectSocket, client), "sethostname": bound(direct.sethostname, client, name)}
    return {**served, **_timeouts(client, name)} if client.has_own_timeout else served


def _mediated(client: Client, name: str) -> dict[str, Any]:
    """What the other modes replace. Imports all that later calls need: the program may leave its root or its user."""
    from . import mediated, pairs, resolver
    from .arguments import function

    served = resolver.functions(client, name)
    if client.has_channels:
        from .channel_socket import ChannelSocket  # for this mode alone

        served["socket"] = _class(ChannelSocket, client)
    else:
        served["socket"] = _class(mediated.MediatedSocket, client)
    served["socketpair"] = function(pairs.socketpair, client, name)
    return {**served, **_timeouts(client, name)}


def _timeouts(client: Client, name: str) -> dict[str, Any]:
    from .arguments import bound

    return {served.__name__: bound(served, client, name) for served in (getdefaulttimeout, setdefaulttimeout)}


def getdefaulttimeout(client: Client) -> float | None:
    return client.default_timeout()


def setdefaulttimeout(client: Client, timeout: Any, /) -> None:
    client.set_default_timeout(timeout)


def _class(kind: type, client: Client) -> type:
    """The class of sockets whose creation is a call of this client."""
    return SocketType("socket", (kind,), {"__slots__": (), "_client": client}, as_socket=True)


def _take_constants(made: types.ModuleType, client: Client) -> None:
    """Sets the constants of the broker's platform, and deletes those that it does not have."""
    answer = client.call("socket.constants", [])[1].value
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
    found = handle.by_pseudo(fd) or handle.by_watch(fd)
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
