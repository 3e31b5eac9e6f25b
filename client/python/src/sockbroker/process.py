"""The client that the sockets of a process use unless the program has connected to another broker."""

from __future__ import annotations

from .client import Client
from .settings import Settings, settings

_default: Client | None = None


def configure(made: Settings) -> Client:
    """Sets mode and broker for this process. Open sockets keep their session with another broker."""
    global _default
    _default = Client(made)
    return _default


def default() -> Client:
    """The client of this process."""
    return _default or configure(settings())
