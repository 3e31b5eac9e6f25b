"""Creates sockets in the broker, and lets the broker adopt descriptors."""

from __future__ import annotations

import errno
import os

from . import native, process
from .control_socket import is_control_socket
from .errors import ArgumentError, BrokerError, Denied
from .handle import UNMEDIATED, Handle, SocketSpec, Transit, close_number, spec_of
from .hints import Any
from .jsonrpc import Response
from .session import Session
from .settings import REMOTE

_UNIX = int(native.module.AF_UNIX)


def wants_descriptor() -> bool:
    """Whether new sockets get a descriptor."""
    return process.configured().mode != REMOTE


def create(family: int, type_: int, proto: int, *, netns: str | None = None) -> Transit:
    """`socket.socket`, with a descriptor if the mode has one and the policy passes it."""
    return _create("socket.socket", family, type_, proto, netns)[0]


def pair(family: int, type_: int, proto: int) -> list[Transit]:
    """`socket.socketpair`. This process creates Unix sockets itself: both ends are for itself and its children."""
    if family == _UNIX:
        return native_pair(family, type_, proto)
    return _create("socket.socketpair", family, type_, proto)


def _create(method: str, family: int, type_: int, proto: int, netns: str | None = None) -> list[Transit]:
    timeout = native.module.getdefaulttimeout()
    params: dict[str, Any] = {"family": family, "type": type_, "proto": proto, "timeout": timeout}
    if netns is None and family != _UNIX:
        netns = process.configured().netns
    if netns is not None:
        params["netns"] = netns
    if wants_descriptor():
        try:
            return _call(method, {**params, "want_fd": True})
        except Denied:
            pass  # perhaps the policy forbids the descriptor alone: the next call shows it
    return _call(method, params)


def _call(method: str, params: dict[str, Any]) -> list[Transit]:
    session, response = process.call(method, params, unwanted=discard, takes_descriptors=True)
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
    return Transit(handle.pseudo_descriptor() if descriptor is None else descriptor, handle, spec)


def discard(session: Session, response: Response) -> None:
    """Closes the sockets that an interrupted call created."""
    made = response.value if isinstance(response.value, list) else [response.value]
    for one in made:
        close_number(session, one["handle"])


def adopt(descriptor: int, spec: SocketSpec) -> Handle:
    """A handle for a descriptor of this process, which stays open."""
    _refuse_control_socket(descriptor)
    params: dict[str, Any] = {"fileno": 0, "family": spec.family, "type": spec.type, "proto": spec.proto}
    params["timeout"] = spec.timeout
    try:
        session, response = process.call("socket.socket", params, unwanted=discard, descriptors=[descriptor])
    except ArgumentError as error:
        raise error.exception from None
    return Handle(session, response.value["handle"])


def adopt_if_allowed(descriptor: int, spec: SocketSpec) -> Handle:
    """The same. A Unix socket stays native if the policy excludes it from the broker, and in remote mode."""
    if spec.family != _UNIX:
        return adopt(descriptor, spec)
    _refuse_control_socket(descriptor)
    if not wants_descriptor():
        return UNMEDIATED
    session = process.opened()
    if session is not None and session.excludes_unix_sockets:
        return UNMEDIATED
    try:
        return adopt(descriptor, spec)
    except (BrokerError, Denied):
        session = process.opened()
        if session is not None:
            session.excludes_unix_sockets = True
        return UNMEDIATED


def _refuse_control_socket(descriptor: int) -> None:
    if is_control_socket(descriptor):
        text = f"cannot use descriptor {descriptor}: it is the package's own connection to the broker"
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: {text}")


def native_pair(family: int, type_: int, proto: int) -> list[Transit]:
    """A pair that this process creates, so that it has the credentials of this process.

    The broker adopts it, except in remote mode.
    """
    made = []
    for sock in native.module.socketpair(family, type_, proto):
        spec = spec_of(sock)
        handle = adopt_if_allowed(sock.fileno(), spec)
        made.append(Transit(sock.detach(), handle, spec))
    return made
