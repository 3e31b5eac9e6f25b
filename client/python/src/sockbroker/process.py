"""The client that the sockets of a process use unless the program has connected to another broker."""

from __future__ import annotations

from .client import Client
from .settings import settings

_default: Client | None = None


def configure(
    mode: str | None = None,
    url: str | None = None,
    netns: str | None = None,
    pair: str | None = None,
    persist: bool | None = None,
    reconnect_seconds: float | None = None,
) -> Client:
    """Sets mode and broker for this process. Open sockets keep their session with another broker."""
    global _default
    _default = Client(settings(mode, url, netns, pair, persist, reconnect_seconds))
    return _default


def default() -> Client:
    """The client of this process."""
    return _default or configure()
