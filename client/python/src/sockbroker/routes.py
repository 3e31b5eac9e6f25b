"""Finds the way to a broker."""

from __future__ import annotations

from .route import CommandRoute, Route, UnixRoute
from .settings import UNIX, Endpoint


def find(endpoint: Endpoint, has_channels: bool = False, pair: str = UNIX) -> Route:
    """The way to a broker. Logs in if it is on another machine: with channels by an agent. Raises `BrokerError`."""
    if has_channels and (endpoint.ssh is not None or endpoint.tls is not None):
        from . import agent  # as below

        return agent.find(endpoint, pair)
    if endpoint.ssh is not None:
        from . import ssh  # slow to import, and for this alone

        return ssh.find(endpoint, endpoint.ssh)
    if endpoint.tls is not None:
        from . import tls  # for this alone

        return tls.TlsRoute(endpoint, endpoint.tls)
    return UnixRoute(endpoint) if endpoint.path else CommandRoute(endpoint)
