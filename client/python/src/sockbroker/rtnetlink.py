"""Reads the interfaces of a network namespace by rtnetlink: their hardware addresses, flags and addresses."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from . import native
from .hints import Any

ROUTE = 0
"""`NETLINK_ROUTE`, the protocol of the socket."""
_GETLINK, _NEWLINK, _GETADDR, _NEWADDR = 18, 16, 22, 20
_ERROR, _DONE = 2, 3
_DUMP_REQUEST = 0x301
_MAX_MESSAGE = 1 << 16
_RECEIVE_BUFFER = 1 << 20
_LINK_ADDRESS, _LINK_NAME = 1, 3
_ADDRESS, _LOCAL = 1, 2

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_link = struct.Struct("=BxHiII")
_address = struct.Struct("=BBBBI")


class Link:
    """An interface."""

    def __init__(self, index: int, kind: int, flags: int, name: str, address: bytes) -> None:
        self.index = index
        self.kind = kind
        """`ARPHRD_`."""
        self.flags = flags
        """`IFF_`."""
        self.name = name
        self.address = address
        """The hardware address."""
        self.ips: list[str] = []


def links(sock: Any) -> list[Link]:
    """All interfaces, with their IP addresses, by a new socket of the protocol `NETLINK_ROUTE`."""
    sock.setsockopt(native.module.SOL_SOCKET, native.module.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.bind((0, 0))
    found: dict[int, Link] = {}
    for body in _dump(sock, _GETLINK, _NEWLINK):
        _, kind, index, flags, _ = _link.unpack_from(body)
        values = dict(_attributes(body[_link.size :]))
        name = values.get(_LINK_NAME, b"").rstrip(b"\0").decode(errors="surrogateescape")
        found[index] = Link(index, kind, flags, name, values.get(_LINK_ADDRESS, b""))
    for body in _dump(sock, _GETADDR, _NEWADDR):
        family, _, _, _, index = _address.unpack_from(body)
        values = dict(_attributes(body[_address.size :]))
        value = values.get(_LOCAL) or values.get(_ADDRESS)
        if value and index in found and family in (native.module.AF_INET, native.module.AF_INET6):
            found[index].ips.append(native.module.inet_ntop(family, value))
    return list(found.values())


def _dump(sock: Any, request: int, answer: int) -> Iterator[bytes]:
    """The bodies of the messages of a dump."""
    sock.sendall(_header.pack(_header.size + _link.size, request, _DUMP_REQUEST, request, 0) + bytes(_link.size))
    while True:
        data = sock.recv(_MAX_MESSAGE)
        while len(data) >= _header.size:
            size, kind, _, number, _ = _header.unpack_from(data)
            if size < _header.size:
                break
            body, data = data[_header.size : size], data[size + 3 & ~3 :]
            if number != request:
                continue
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            if kind == answer:
                yield body


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _attribute.size:
        size, kind = _attribute.unpack_from(data)
        if size < _attribute.size:
            return
        yield kind & 0x3FFF, data[_attribute.size : size]
        data = data[size + 3 & ~3 :]
