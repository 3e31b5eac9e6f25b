"""Sockets in other network namespaces than that of the broker."""

from __future__ import annotations

from . import creation
from .hints import Any


class Namespace:
    """A network namespace: that of this process when it connected to the broker, or one with a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"sockbroker.namespace({self.name!r})"

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Any:
        """A new socket in this namespace. Its addresses must be numeric."""
        from . import socket  # executes the standard library's module, which programs with `install()` have already

        return socket.socket(fileno=creation.create(family, type, proto, self.name))
