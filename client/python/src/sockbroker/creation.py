"""Making sockets in the broker, and adopting descriptors."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import native, process
from .jsonrpc import Answer
from .session import Session
from .errors import ArgumentError, BrokerError, Denied
from .handle import LOCAL, Facts, Handle, Transit, close_number
from .control_socket import is_owned
from .process import configured
from .settings import REMOTE


_UNIX = int(native.module.AF_UNIX)


def wants_descriptor() -> bool:
    """Whether new sockets come with a descriptor."""
    return configured().mode != REMOTE


def create(family: int, kind: int, protocol: int) -> Transit:
    """`socket.socket`, with a descriptor if the mode has one and the policy hands it over."""
    params = {"family": family, "type": kind, "proto": protocol, "timeout": default_timeout()}
    return _made("socket.socket", params, 1)[0]


def pair(family: int, kind: int, protocol: int) -> list[Transit]:
    """`socket.socketpair`. Unix sockets are made by this process where it has descriptors, or the broker may not."""
    if family == _UNIX and wants_descriptor():
        return native_pair(family, kind, protocol)
    params = {"family": family, "type": kind, "proto": protocol, "timeout": default_timeout()}
    try:
        return _made("socket.socketpair", params, 2)
    except Denied:
        if family != _UNIX:
            raise
    return native_pair(family, kind, protocol)


def _made(method: str, params: dict[str, Any], count: int) -> list[Transit]:
    if wants_descriptor():
        try:
            where, answer = _call(method, {**params, "want_fd": True})
            return _transits(where, answer, count)
        except Denied:
            pass  # perhaps the descriptor alone: the next call tells
    where, answer = _call(method, params)
    return _transits(where, answer, count)


def _call(method: str, params: dict[str, Any]) -> tuple[Session, Answer]:
    return process.call(method, params, unwanted=discard, takes_descriptors=True)


def _transits(where: Session, answer: Answer, count: int) -> list[Transit]:
    made = [answer.value] if count == 1 else answer.value
    return [transit(where, one, answer) for one in made]


def transit(where: Session, made: Any, answer: Answer) -> Transit:
    """The socket of a result, with the next descriptor beside the answer; `EMFILE` if there was no room for that."""
    if answer.missing:
        discard(where, answer)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    handle = Handle(where, made["handle"])
    facts = Facts(made["family"], made["type"], made["proto"], made["timeout"])
    descriptor = answer.take()
    return Transit(handle.shown() if descriptor is None else descriptor, handle, facts)


def discard(where: Session, answer: Answer) -> None:
    """Closes the sockets of a call that was interrupted, which nothing else refers to."""
    made = answer.value if isinstance(answer.value, list) else [answer.value]
    for one in made:
        close_number(where, one["handle"])


def adopt(descriptor: int, facts: Facts) -> Handle:
    """A handle for a descriptor of the client, which stays open."""
    if is_owned(descriptor):
        text = "this descriptor is the package's own connection to the broker"
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: {text}")
    params: dict[str, Any] = {"fileno": 0, "family": facts.family, "type": facts.kind, "proto": facts.protocol}
    params["timeout"] = facts.timeout
    try:
        where, answer = process.call("socket.socket", params, unwanted=discard, descriptors=[descriptor])
    except ArgumentError as error:
        raise error.made from None
    return Handle(where, answer.value["handle"])


def default_timeout() -> float | None:
    """Seconds that new sockets begin with."""
    return native.module.getdefaulttimeout()  # type: ignore[no-any-return]


def native_pair(family: int, kind: int, protocol: int) -> list[Transit]:
    """A pair that this process makes itself, so that its credentials are in it, and the broker adopts if it may."""
    made = []
    for sock in native.module.socketpair(family, kind, protocol):
        facts = Facts(sock.family, sock.type, sock.proto, sock.gettimeout())
        handle = adopt_or_keep(sock.fileno(), facts)
        made.append(Transit(sock.detach(), handle, facts))
    return made


def adopt_or_keep(descriptor: int, facts: Facts) -> Handle:
    """The same. A Unix socket that the policy keeps from the broker remains this process's own."""
    if facts.family != _UNIX:
        return adopt(descriptor, facts)
    where = process.opened()
    if where is not None and where.keeps_unix_sockets:
        return LOCAL
    try:
        return adopt(descriptor, facts)
    except (BrokerError, Denied):
        where = process.opened()
        if where is not None:
            where.keeps_unix_sockets = True
        return LOCAL
