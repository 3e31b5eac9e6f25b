"""Receiving on mediated sockets: how `recv`, `recvfrom`, `recv_into`, `recvmsg` and their like call the broker."""

from __future__ import annotations

import os
import sys

from . import frame, native
from .base import BrokeredSocket
from .encoding import c_int, decode_address, decode_ancillary, integer, octets
from .hints import Any
from .jsonrpc import Response
from .undelivered import Message, UndeliveredResults

_CLOEXEC = int(native.module.MSG_CMSG_CLOEXEC)
_CTRUNC = int(native.module.MSG_CTRUNC)
_WAITALL = int(native.module.MSG_WAITALL)
_NEVER_WAITS = int(native.module.MSG_PEEK | native.module.MSG_DONTWAIT | native.module.MSG_OOB)
_STREAM, _DGRAM = int(native.module.SOCK_STREAM), int(native.module.SOCK_DGRAM)
_AHEAD_MAX = 64
_DATAGRAM_MAX = 65_535
"""No datagram is longer."""


def data(sock: BrokeredSocket, name: str, bufsize: Any, flags: Any) -> Message:
    """`recv` and `recvfrom`: data without ancillary data."""
    wanted, flags = _buffer_size(bufsize), c_int(flags)
    size = _limited(sock, wanted)
    message = _call(sock, name, size, [size, flags], flags)
    frame.close_all(message.descriptors)
    if size < wanted and flags & _WAITALL and message.n == size:
        _wait_for_rest(sock, message, name, wanted, flags)
    return message


def into(sock: BrokeredSocket, name: str, buffer: Any, nbytes: Any, flags: Any) -> Message:
    """`recv_into` and `recvfrom_into`: the same into a buffer of the caller."""
    size = _buffer_size(nbytes)
    with octets(buffer) as view:
        _require_writable(view)
        if size > len(view):
            raise ValueError("nbytes is greater than the length of the buffer")
        message = data(sock, name, size or len(view), flags)
        view[: len(message.data)] = message.data
    return message


def with_ancillary(sock: BrokeredSocket, bufsize: Any, ancbufsize: Any, flags: Any) -> Message:
    """`recvmsg`."""
    size, ancillary_size, flags = _limited(sock, _buffer_size(bufsize)), _buffer_size(ancbufsize), c_int(flags)
    message = _call(sock, "recvmsg", size, [size, ancillary_size, flags], flags, takes_descriptors=True)
    _set_inheritable(message, flags)
    return message


def with_ancillary_into(sock: BrokeredSocket, buffers: Any, ancbufsize: Any, flags: Any) -> Message:
    """`recvmsg_into`."""
    ancillary_size, flags = _buffer_size(ancbufsize), c_int(flags)
    views = [octets(buffer) for buffer in buffers]
    try:
        for view in views:
            _require_writable(view)
        sizes = [len(view) for view in views]
        params = [sizes, ancillary_size, flags]
        message = _call(sock, "recvmsg_into", sum(sizes), params, flags, takes_descriptors=True)
        _scatter(message.data, views)
    finally:
        for view in views:
            view.release()
    _set_inheritable(message, flags)
    return message


def padded(message: Message) -> bytes:
    """The data. With `MSG_TRUNC` CPython returns as many bytes as the datagram had, the last of them undefined."""
    missing = message.n - len(message.data)
    return message.data if missing <= 0 else message.data + bytes(missing)


def _call(
    sock: BrokeredSocket, name: str, size: int, params: list[Any], flags: int, takes_descriptors: bool = False
) -> Message:
    """One receive, or the result of an interrupted one. `params` include the flags."""
    handle = sock._open()
    if handle.undelivered is not None:
        message = handle.undelivered.receive(size, flags, native.type_of(sock))
        if message is not None:
            return message
    family = native.family_of(sock)

    def keep(response: Response) -> None:
        handle.undelivered = handle.undelivered or UndeliveredResults()
        values = response.value if isinstance(response.value, list) else [response.value]
        handle.undelivered.messages.extend(_decode(response, value, family) for value in values)

    longest = min(size, _DATAGRAM_MAX)
    count = _ahead(sock, name, longest, flags)
    if count > 1:
        params = [count, longest, 0, flags]
        response = handle.call("recvmmsg", params, expected_bytes=count * longest, undelivered=keep)
        keep(response)
        return handle.undelivered.receive(size, flags, native.type_of(sock))  # type: ignore[union-attr,return-value]
    response = handle.call(name, params, expected_bytes=size, takes_descriptors=takes_descriptors, undelivered=keep)
    return _decode(response, response.value, family)


def _ahead(sock: BrokeredSocket, name: str, size: int, flags: int) -> int:
    """How many datagrams one call receives: several of a socket of another machine that an event loop waits for."""
    handle = sock._open()
    if handle.watch is None or handle.watch < 0 or flags or size < _DATAGRAM_MAX or name not in ("recv", "recvfrom"):
        return 1
    if native.type_of(sock) != _DGRAM or native.Socket.gettimeout(sock) != 0.0:
        return 1
    return min(_AHEAD_MAX, handle.session.max_receive // size)


def _decode(response: Response, value: Any, family: int) -> Message:
    ancillary, descriptors = decode_ancillary(value.get("ancdata", ()), response)
    address = decode_address(value.get("address"), family)
    flags = value.get("flags", 0) | (_CTRUNC if response.missing else 0)
    return Message(response.data(value["data"]), value["n"], ancillary, flags, address, descriptors)


def _wait_for_rest(sock: BrokeredSocket, message: Message, name: str, wanted: int, flags: int) -> None:
    """Receives on a blocking stream what exceeds the limit of one call."""
    if flags & _NEVER_WAITS or native.type_of(sock) != _STREAM or native.Socket.gettimeout(sock) is not None:
        return
    parts = [message.data]
    while message.n < wanted:
        size = _limited(sock, wanted - message.n)
        try:
            more = _call(sock, name, size, [size, flags], flags)
        except OSError:
            break  # as in the kernel: this call returns what has arrived, and the next call fails
        parts.append(more.data)
        message.n += more.n
        if more.n < size:
            break
    message.data = b"".join(parts)


def _limited(sock: BrokeredSocket, size: int) -> int:
    """The size that one call requests. A stream returns the rest to the next call."""
    return min(size, sock._open().session.max_receive)


def _buffer_size(size: Any) -> int:
    number = integer(size)
    if not 0 <= number <= sys.maxsize:
        raise ValueError(f"{number} is not the size of a buffer")
    return number


def _require_writable(view: memoryview) -> None:
    if view.readonly:
        raise TypeError("the buffer is read-only")


def _scatter(received: bytes, buffers: list[Any]) -> None:
    at = 0
    for buffer in buffers:
        part = received[at : at + len(buffer)]
        buffer[: len(part)] = part
        at += len(part)


def _set_inheritable(message: Message, flags: int) -> None:
    """Lets children inherit received descriptors, as natively, unless the caller set `MSG_CMSG_CLOEXEC`."""
    if not flags & _CLOEXEC:
        for descriptor in message.descriptors:
            os.set_inheritable(descriptor, True)
