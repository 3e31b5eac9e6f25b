"""`socket.create_connection` as one call of the broker: a round trip instead of one for each step."""

from __future__ import annotations

import functools
import sys

from . import creation, native
from .encoding import host, integer
from .errors import ArgumentError
from .hints import TYPE_CHECKING, Any
from .settings import CALLER, OF_BROKER

if TYPE_CHECKING:
    from .client import Client

_STEPS = ("socket", "getaddrinfo")
_LAST_PORT = 0xFFFF


def shorten(module: dict[str, Any], client: Client) -> None:
    """Replaces the function in the scope of a module of sockets, in remote mode.

    The standard library's function makes the calls that this one does not: with unusual arguments, or if the program
    has replaced a function that it uses.
    """
    if client.settings.mode not in OF_BROKER or client.settings.netns == CALLER:
        return
    standard, default = module["create_connection"], module["_GLOBAL_DEFAULT_TIMEOUT"]
    steps = [module[name] for name in _STEPS]

    @functools.wraps(standard)
    def create_connection(address: Any, timeout: Any = default, source_address: Any = None, **options: Any) -> Any:
        if options or [module[name] for name in _STEPS] != steps or not _is_usual(address, source_address):
            return standard(address, timeout, source_address, **options)
        name, port = address
        try:
            seconds = client.default_timeout() if timeout is default else native.checked_timeout(timeout)
            params: dict[str, Any] = {"address": [host(name), integer(port)], "timeout": seconds}
            if source_address:
                params["source_address"] = [host(source_address[0]), integer(source_address[1])]
        except (TypeError, ValueError, OverflowError):
            return standard(address, timeout, source_address)
        sys.audit("socket.getaddrinfo", name, port, 0, int(module["SOCK_STREAM"]), 0, 0)
        if client.settings.netns is not None:
            params["netns"] = client.settings.netns
        try:
            made = creation.connection(client, params)
        except ArgumentError:
            return standard(address, timeout, source_address)
        return module["socket"](fileno=made)

    module["create_connection"] = create_connection


def _is_usual(address: Any, source_address: Any) -> bool:
    return _is_address(address) and (not source_address or _is_address(source_address))


def _is_address(value: Any) -> bool:
    """Whether this is a name and a number of a port."""
    if type(value) not in (tuple, list) or len(value) != 2:
        return False
    name, port = value
    return isinstance(name, str) and name != "" and isinstance(port, int) and 0 <= port <= _LAST_PORT
