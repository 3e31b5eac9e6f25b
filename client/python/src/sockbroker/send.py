"""Sending on mediated sockets: how `send`, `sendall`, `sendto`, `sendmsg` and `sendmsg_afalg` call the broker."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence

from . import native
from .base import BrokeredSocket
from .encoding import RequestParts, c_int, encode_address, integer, octets
from .handle import Handle
from .hints import Any
from .unix_paths import encode_existing, is_native, needs_descriptors

_STREAM = int(native.module.SOCK_STREAM)
_MAX_BUFFERS = 1024  # UIO_MAXIOV
_MAX_RIGHTS = 253  # SCM_MAX_FD
NOT_GIVEN: Any = object()
"""The default of arguments that can be `None`."""


def send(sock: BrokeredSocket, data: Any, flags: Any) -> int:
    """`send`."""
    rest = [c_int(flags)]
    with octets(data) as view:
        return _send_parts(sock, "send", view, rest)


def sendall(sock: BrokeredSocket, data: Any, flags: Any) -> None:
    """`sendall`. Several calls if the data exceeds the limit of one, each with the timeout of the socket."""
    flags = c_int(flags)
    with octets(data) as view:
        handle = sock._open()
        part = handle.session.max_part
        timeout = native.Socket.gettimeout(sock)
        deadline = time.monotonic() + timeout if timeout else None
        for start in range(0, max(len(view), 1), part):
            if start and deadline is not None and time.monotonic() >= deadline:
                raise native.module.timeout("timed out")
            _send_part(handle, "sendall", view[start : start + part], [flags])


def sendto(sock: BrokeredSocket, data: Any, *rest: Any) -> int:
    """`sendto`, with flags and address or with the address alone."""
    if not 1 <= len(rest) <= 2:
        raise TypeError("sendto() takes 2 or 3 arguments")
    flags = c_int(rest[0]) if len(rest) == 2 else 0
    sock._open()
    with octets(data) as view:
        address = encode_address(native.family_of(sock), rest[-1])
        if is_native(sock):
            return native.Socket.sendto(sock, view, flags, rest[-1])  # type: ignore[no-any-return]
        sys.audit("socket.sendto", sock, rest[-1])
        if not needs_descriptors(sock):
            return _send_parts(sock, "sendto", view, [flags, address])
        with RequestParts() as parts:
            address = encode_existing(rest[-1], parts)
            return _send_parts(sock, "sendto", view, [flags, address], parts.descriptors)


def sendmsg(sock: BrokeredSocket, buffers: Any, ancdata: Any, flags: Any, address: Any) -> int:
    """`sendmsg`."""
    handle, flags = sock._open(), c_int(flags)
    encoded = None if address is None else encode_address(native.family_of(sock), address)
    if address is not None and is_native(sock):
        return native.Socket.sendmsg(sock, buffers, ancdata, flags, address)  # type: ignore[no-any-return]
    parts = RequestParts()
    views = [octets(buffer) for buffer in buffers]
    try:
        if len(views) > _MAX_BUFFERS:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        data = views[0] if len(views) == 1 else memoryview(b"".join(views))
        control = parts.ancillary(ancdata)
        if len(parts.descriptors) > _MAX_RIGHTS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sys.audit("socket.sendmsg", sock, address)
        if address is not None and needs_descriptors(sock):
            encoded = encode_existing(address, parts)
        first = _first_part(sock, data)
        params = [[parts.data(first)] if views else [], control, flags, encoded]
        attached = {"attachments": parts.attachments, "descriptors": parts.descriptors}
        sent: int = handle.call("sendmsg", params, **attached).value
        if sent == len(first) < len(data):
            sent += _send_rest(sock, "sendmsg", data[sent:], [flags, encoded])
    finally:
        parts.close()
        for view in views:
            view.release()
    return sent


def sendmsg_afalg(sock: BrokeredSocket, msg: Any, op: Any, iv: Any, assoclen: Any, flags: Any) -> int:
    """`sendmsg_afalg`."""
    handle = sock._open()
    parts = RequestParts()
    params: dict[str, Any] = {"op": integer(op), "flags": c_int(flags)}
    params["msg"] = [parts.data(_copied(part)) for part in msg]
    if iv is not NOT_GIVEN:
        params["iv"] = parts.data(_copied(iv))
    if assoclen is not NOT_GIVEN:
        params["assoclen"] = integer(assoclen)
    return handle.call_by_name("sendmsg_afalg", params, parts.attachments).value  # type: ignore[no-any-return]


def _first_part(sock: BrokeredSocket, data: memoryview) -> memoryview:
    """What one call of the broker takes. Raises `EMSGSIZE` for a longer datagram, which cannot be sent at all."""
    part = sock._open().session.max_part
    if len(data) > part and native.type_of(sock) != _STREAM:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    return data[:part]


def _send_parts(
    sock: BrokeredSocket, name: str, data: memoryview, rest: list[Any], descriptors: Sequence[int] = ()
) -> int:
    """Sends like one system call: a blocking stream takes all of the data."""
    first = _first_part(sock, data)
    sent = _send_part(sock._open(), name, first, rest, descriptors)
    if sent == len(first) < len(data):
        sent += _send_rest(sock, name, data[sent:], rest)
    return sent


def _send_rest(sock: BrokeredSocket, name: str, data: memoryview, rest: list[Any]) -> int:
    """Sends on a blocking stream what follows the first part. As in the kernel, the next call reports an error."""
    sent = 0
    while sent < len(data) and native.Socket.gettimeout(sock) is None:
        part = _first_part(sock, data[sent:])
        try:
            if name == "sendmsg":
                params = [[{"attachment": 0}], [], *rest]
                taken = sock._open().call("sendmsg", params, attachments=[part]).value
            else:
                taken = _send_part(sock._open(), name, part, rest)
        except OSError:
            break
        sent += taken
        if taken < len(part):
            break
    return sent


def _send_part(handle: Handle, name: str, part: Any, rest: list[Any], descriptors: Sequence[int] = ()) -> int:
    if len(part):
        response = handle.call(name, [{"attachment": 0}, *rest], attachments=[part], descriptors=descriptors)
    else:
        response = handle.call(name, ["", *rest], descriptors=descriptors)
    return response.value or 0


def _copied(buffer: Any) -> bytes:
    with octets(buffer) as view:
        return bytes(view)
