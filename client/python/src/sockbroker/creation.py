"""Creates sockets in the broker, and lets the broker adopt descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from . import native
from .control_socket import is_control_socket
from .errors import ArgumentError, BrokerError, Denied
from .handle import UNMEDIATED, Handle, SocketSpec, Transit, by_channel, by_watch, close_number, spec_of
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response
from .session import Session
from .settings import OF_BROKER

if TYPE_CHECKING:
    from .client import Client

_UNIX = int(native.module.AF_UNIX)

PASSED = {"descriptor": 0}
"""A network namespace whose descriptor is attached to the call."""


def create(client: Client, family: int, type_: int, proto: int, *, netns: str | int | None = None) -> Transit:
    """`socket.socket`, with a descriptor if the mode has one and the policy passes it.

    `netns` is a name, or the descriptor of a network namespace that this user has made.
    """
    if family == _UNIX and netns is None and client.keeps_unix_sockets:
        made = native.module.socket(family, type_, proto)
        spec = spec_of(made)._replace(timeout=client.default_timeout())
        return Transit(made.detach(), UNMEDIATED, spec)
    return _create(client, "socket.socket", family, type_, proto, netns)[0]


def connection(client: Client, params: dict[str, Any]) -> Transit:
    """`socket.create_connection`, with the descriptor of a channel if the mode has one."""
    if client.has_channels and not client.settings.endpoint.passes_descriptors:
        params = {**params, "want_channel": True}  # the agent returns the descriptor at once
    made = _call(client, "socket.create_connection", params)[0]
    made.handle.skips_answers = client.settings.mode in OF_BROKER
    return with_channel(made) if client.has_channels and made.handle.channel is None else made


def with_channel(made: Transit) -> Transit:
    """The same connected stream with the descriptor of a channel, which has the data of the socket."""
    handle = made.handle
    params = {"handle": handle.number, "want_fd": True, "close": True}
    response = handle.session.call("channel.open", params, takes_descriptors=True)
    descriptor = response.take_descriptor()
    if descriptor is None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    handle.note_channel(descriptor)
    return Transit(descriptor, handle, made.spec)


def create_served(client: Client, family: int, type_: int, proto: int) -> Transit:
    """`socket.socket` without a descriptor."""
    return _call(client, "socket.socket", _params(client, family, type_, proto))[0]


def pair(client: Client, family: int, type_: int, proto: int) -> list[Transit]:
    """`socket.socketpair`. This process creates Unix sockets itself: both ends are for itself and its children."""
    if family == _UNIX:
        return native_pair(client, family, type_, proto)
    return _create(client, "socket.socketpair", family, type_, proto)


def _create(
    client: Client, method: str, family: int, type_: int, proto: int, netns: str | int | None = None
) -> list[Transit]:
    passed = [netns] if isinstance(netns, int) else []
    params = _params(client, family, type_, proto, PASSED if isinstance(netns, int) else netns)
    if client.wants_descriptors:
        try:
            return _call(client, method, {**params, "want_fd": True}, passed)
        except Denied:
            pass  # perhaps the policy forbids the descriptor alone: the next call shows it
    return _call(client, method, params, passed)


def _params(client: Client, family: int, type_: int, proto: int, netns: Any = None) -> dict[str, Any]:
    timeout = client.default_timeout()
    params: dict[str, Any] = {"family": family, "type": type_, "proto": proto, "timeout": timeout}
    if netns is None and family != _UNIX:
        netns = client.settings.netns
    if netns is not None:
        params["netns"] = netns
    return params


def _call(client: Client, method: str, params: dict[str, Any], descriptors: Sequence[int] = ()) -> list[Transit]:
    session, response = client.call(method, params, unwanted=discard, takes_descriptors=True, descriptors=descriptors)
    made = response.value if isinstance(response.value, list) else [response.value]
    return [transit(session, one, response) for one in made]


def transit(session: Session, made: Any, response: Response) -> Transit:
    """The socket of a result, with the next descriptor of the response. Raises `EMFILE` if the kernel dropped that."""
    if response.missing:
        discard(session, response)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    handle = Handle(session, made["handle"])
    spec = SocketSpec(made["family"], made["type"], made["proto"], made["timeout"])
    descriptor = response.take_descriptor()
    if descriptor is None:
        return Transit(handle.pseudo_descriptor(), handle, spec)
    if made.get("channel") is not None:
        handle.note_channel(descriptor)
    return Transit(descriptor, handle, spec)


def discard(session: Session, response: Response) -> None:
    """Closes the sockets that an interrupted call created."""
    made = response.value if isinstance(response.value, list) else [response.value]
    for one in made:
        close_number(session, one["handle"])


def check_not_control_socket(descriptor: int) -> None:
    """Refuses to pass the package's own connection."""
    if is_control_socket(descriptor):
        text = f"cannot use descriptor {descriptor}: it is the package's own connection to the broker"
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: {text}")


def adopt(client: Client, descriptor: int, spec: SocketSpec) -> Handle:
    """A handle for a descriptor of this process, which stays open."""
    check_not_control_socket(descriptor)
    if client.has_channels:
        watched = by_watch(descriptor)
        if watched is not None:
            response = watched.call("dup", [])
            return transit(watched.session, response.value, response).handle
        return by_channel(descriptor)
    params: dict[str, Any] = {"fileno": 0, "family": spec.family, "type": spec.type, "proto": spec.proto}
    params["timeout"] = spec.timeout
    try:
        session, response = client.call("socket.socket", params, unwanted=discard, descriptors=[descriptor])
    except ArgumentError as error:
        raise error.exception from None
    return Handle(session, response.value["handle"])


def adopt_if_allowed(client: Client, descriptor: int, spec: SocketSpec) -> Handle:
    """The same. A Unix socket stays native if the policy excludes it from the broker, and in remote mode."""
    if spec.family != _UNIX:
        return adopt(client, descriptor, spec)
    check_not_control_socket(descriptor)
    if not client.wants_descriptors:
        return UNMEDIATED
    session = client.opened()
    if session is not None and session.excludes_unix_sockets:
        return UNMEDIATED
    try:
        return adopt(client, descriptor, spec)
    except (BrokerError, Denied):
        session = client.opened()
        if session is not None:
            session.excludes_unix_sockets = True
        return UNMEDIATED


def native_pair(client: Client, family: int, type_: int, proto: int) -> list[Transit]:
    """A pair that this process creates, so that it has the credentials of this process.

    The broker adopts it, except in remote mode.
    """
    made = []
    for sock in native.module.socketpair(family, type_, proto):
        spec = spec_of(sock)._replace(timeout=client.default_timeout())
        handle = adopt_if_allowed(client, sock.fileno(), spec)
        made.append(Transit(sock.detach(), handle, spec))
    return made
