"""Divides capture files of any program, pcapng or pcap, into parts that are files of their own."""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterator
from typing import BinaryIO

from .pcapng import MAX_BLOCK_BYTES

BYTES_MAX, PACKETS_MAX, SECONDS_MAX = 1 << 20, 16384, 0.2
"""A part ends before it has more bytes or packets, and before a packet that is due so long after its first one."""

_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_IF_TSRESOL, _IF_TSOFFSET = 9, 14
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1),
}  # fmt: skip


class Part(namedtuple("Part", ("data", "first", "packets", "due"))):
    """Packets for one call."""

    __slots__ = ()
    data: bytes
    """A capture file."""
    first: int
    """The number of the first packet."""
    packets: int
    due: float
    """When the first packet is due, in seconds after the start."""


class Malformed(ValueError):
    """A capture file that cannot be read further. The text names the packet."""


class Divider:
    """Divides files, one after the other. Each begins when the last packet of the one before is due."""

    def __init__(self, speed: float | None, pps: float | None, limit: int | None) -> None:
        self._speed, self._pps, self._limit = speed, pps, limit
        self.packets, self._last = 0, 0.0

    @property
    def is_done(self) -> bool:
        """Whether no further packet is wanted."""
        return self._limit is not None and self.packets >= self._limit

    def parts(self, file: BinaryIO) -> Iterator[Part]:
        """The parts of a file. Raises `Malformed` behind the last part that is whole."""
        part: list[bytes] = []
        size = first = count = 0
        due = 0.0
        base, origin, time = self._last, None, 0
        context: list[bytes] = []
        failure = None
        blocks = _blocks(file)
        while not self.is_done:
            try:
                block = next(blocks, None)
            except Malformed as error:
                failure = error
                break
            if block is None:
                break
            if block.time is None:
                if block.begins:
                    context.clear()
                context.append(block.data)
                if part:
                    part.append(block.data)
                    size += len(block.data)
                continue
            time = time if block.time < 0 else block.time
            origin = time if origin is None else origin
            at = self._due(base, max(0, time - origin))
            if part and (size + len(block.data) > BYTES_MAX or count >= PACKETS_MAX or at - due > SECONDS_MAX):
                yield Part(b"".join(part), first, count, due)
                part = []
            if not part:
                part = [*context]
                size, first, count, due = sum(map(len, part)), self.packets + 1, 0, at
            part.append(block.data)
            size += len(block.data)
            count += 1
            self.packets += 1
            self._last = max(self._last, at)
        if part:
            yield Part(b"".join(part), first, count, due)
        if failure is not None:
            raise Malformed(f"packet {self.packets + 1}: {failure}") from None

    def _due(self, base: float, nanoseconds: int) -> float:
        if self._pps is not None:
            return self.packets / self._pps
        return base + nanoseconds / 1e9 / self._speed if self._speed else 0.0


class _Block(namedtuple("_Block", ("data", "time", "begins"))):
    """A part of a file: a packet with its time in nanoseconds, or -1 without one, or what later packets need."""

    __slots__ = ()
    data: bytes
    time: int | None
    begins: bool


def _blocks(file: BinaryIO) -> Iterator[_Block]:
    start = _read(file, 4, "the file")
    if not start:
        return
    if start in _PCAP:
        yield from _pcap(file, start)
    elif int.from_bytes(start, "little") == _SECTION:
        yield from _pcapng(file, start)
    else:
        raise Malformed(f"the file begins with {start.hex()}, which is neither pcapng nor pcap")


def _pcap(file: BinaryIO, start: bytes) -> Iterator[_Block]:
    order, unit = _PCAP[start]
    yield _Block(start + _read(file, 20, "the header", required=True), None, True)
    header = struct.Struct(order + "IIII")
    while fields := _read(file, header.size, "the header of a packet"):
        seconds, fraction, captured, _ = header.unpack(fields)
        if captured > MAX_BLOCK_BYTES:
            raise Malformed(f"a packet has {captured} bytes")
        data = _read(file, captured, "a packet", required=captured > 0)
        yield _Block(fields + data, seconds * 10**9 + fraction * unit, False)


def _pcapng(file: BinaryIO, start: bytes) -> Iterator[_Block]:
    order = "<"
    clocks: list[tuple[int, int]] = []
    while start:
        head = start + _read(file, 4, "a block", required=True)
        if int.from_bytes(start, "little") == _SECTION:
            magic = _read(file, 4, "a section", required=True)
            if magic not in _ORDERS:
                raise Malformed(f"a section has the byte-order magic {magic.hex()}")
            order, clocks = _ORDERS[magic], []
            head += magic
        kind, size = struct.unpack_from(order + "II", head)
        if size < 12 or size % 4 or size > MAX_BLOCK_BYTES:
            raise Malformed(f"a block has the length {size}")
        block = head + _read(file, size - len(head), "a block", required=True)
        body = block[8:-4]
        try:
            if kind == _SECTION:
                yield _Block(block, None, True)
            elif kind == _INTERFACE:
                clocks.append(_clock(order, body[8:]))
                yield _Block(block, None, False)
            elif kind == _SIMPLE:
                yield _Block(block, -1, False)
            elif kind in (_PACKET, _OBSOLETE):
                layout = "III" if kind == _PACKET else "HxxII"
                number, high, low = struct.unpack_from(order + layout, body)
                unit, offset = clocks[number]
                yield _Block(block, (high << 32 | low) * 10**9 // unit + offset, False)
        except (struct.error, IndexError):
            raise Malformed("a block is malformed") from None
        start = _read(file, 4, "a block")


def _clock(order: str, options: bytes) -> tuple[int, int]:
    """The units in a second, and the offset in nanoseconds, of the times of an interface."""
    unit, offset, at = 10**6, 0, 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from(order + "HH", options, at)
        value = options[at + 4 : at + 4 + size]
        if code == 0:
            break
        if code == _IF_TSRESOL:
            unit = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _IF_TSOFFSET:
            offset = struct.unpack(order + "q", value)[0] * 10**9
        at += 4 + (size + 3 & ~3)
    return unit, offset


def _read(file: BinaryIO, size: int, what: str, required: bool = False) -> bytes:
    """As many bytes; none at the end of the file, unless they are required."""
    data = b""
    while len(data) < size:
        more = file.read(size - len(data))
        if not isinstance(more, bytes):
            raise TypeError("the file of packets must be open in binary mode, and block")
        if not more:
            break
        data = data + more if data else more
    if len(data) < size and (data or required):
        raise Malformed(f"the file ends within {what}")
    return data
