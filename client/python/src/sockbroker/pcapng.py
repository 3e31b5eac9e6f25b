"""Reads the pcapng files that a broker writes: little-endian, with times in nanoseconds."""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterator

MAX_BLOCK_BYTES = 16 << 20
"""The maximum length of a block, as in libpcap."""

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC = 0x1A2B3C4D
_OVERHEAD = 12
_COMMENT = 1
_IF_NAME, _IF_TSRESOL = 2, 9
_EPB_FLAGS, _EPB_DROPCOUNT = 2, 4
_COUNTERS = {4: "received", 5: "dropped", 8: "delivered"}
_NANOSECONDS = b"\x09"
_DIRECTIONS = (None, "in", "out", None)

_words = struct.Struct("<II").unpack_from
_option = struct.Struct("<HH").unpack_from
_packet = struct.Struct("<IIIII").unpack_from


class Packet(namedtuple("Packet", ("time_ns", "data", "length", "interface", "direction", "link_type", "dropped"))):
    """A captured packet."""

    __slots__ = ()
    time_ns: int
    """When the kernel received or sent it, in nanoseconds since 1970."""
    data: bytes
    """The captured bytes."""
    length: int
    """The length on the wire."""
    interface: str
    """The name of the interface."""
    direction: str | None
    """`in` if the host received it, `out` if it sent it, `None` if this is not known."""
    link_type: int
    """What the bytes begin with: `LINKTYPE_` of tcpdump.org."""
    dropped: int
    """How many packets of the interface were lost since the packet before."""

    @property
    def time(self) -> float:
        """The time in seconds since 1970, as `time.time()`."""
        return self.time_ns / 1e9

    def __bytes__(self) -> bytes:
        return self.data

    def __repr__(self) -> str:
        way = self.direction or "on"
        return f"<packet {way} {self.interface} at {self.time:.6f}, {self.length} bytes: {self.data[:60].hex(' ')}>"


class Interface(namedtuple("Interface", ("name", "link_type", "snaplen"))):
    """The description of an interface."""

    __slots__ = ()
    name: str
    link_type: int
    snaplen: int


class Statistics(namedtuple("Statistics", ("interface", "received", "dropped", "delivered", "comment"))):
    """The counters of a capture so far. The comment of the last one is the reason of the end."""

    __slots__ = ()
    interface: str
    received: int
    dropped: int
    delivered: int
    comment: str


class Decoder:
    """Decodes blocks, one by one."""

    def __init__(self) -> None:
        self._interfaces: list[Interface] = []
        self._reason = ""

    def is_whole(self) -> bool:
        """Whether the last counters had the reason of the end. A file without interfaces has no counters."""
        return bool(self._reason) or not self._interfaces

    def decode(self, block: bytes | memoryview) -> Interface | Packet | Statistics | None:
        """What a whole block describes; `None` for other blocks. Raises `ValueError` if it is malformed."""
        try:
            kind, _ = _words(block)
            body = block[8:-4]
            if kind == _PACKET:
                return self._packet(body)
            if kind == _SECTION:
                if _words(body)[0] != _MAGIC:
                    raise ValueError("the section is not little-endian")
                self._interfaces.clear()
            elif kind == _INTERFACE:
                return self._interface(body)
            elif kind == _STATISTICS:
                return self._statistics(body)
        except (struct.error, IndexError):
            raise ValueError("a block of the capture file is malformed") from None
        return None

    def _interface(self, body: bytes | memoryview) -> Interface:
        link_type, _ = _option(body)
        (_, snaplen) = _words(body)
        options = dict(_options(body[8:]))
        if options.get(_IF_TSRESOL) != _NANOSECONDS:
            raise ValueError("the times of an interface are not in nanoseconds")
        made = Interface(options.get(_IF_NAME, b"").decode(errors="replace"), link_type, snaplen)
        self._interfaces.append(made)
        return made

    def _packet(self, body: bytes | memoryview) -> Packet:
        number, high, low, captured, length = _packet(body)
        interface = self._interfaces[number]
        data = bytes(body[20 : 20 + captured])
        if len(data) < captured:
            raise IndexError
        direction, dropped = None, 0
        for code, value in _options(body[20 + (captured + 3 & ~3) :]):
            if code == _EPB_FLAGS:
                direction = _DIRECTIONS[value[0] & 3]
            elif code == _EPB_DROPCOUNT:
                dropped = int.from_bytes(value, "little")
        return Packet(high << 32 | low, data, length, interface.name, direction, interface.link_type, dropped)

    def _statistics(self, body: bytes | memoryview) -> Statistics:
        (number, _) = _words(body)
        options = dict(_options(body[12:]))
        counts = {name: int.from_bytes(options.get(code, b""), "little") for code, name in _COUNTERS.items()}
        comment = self._reason = options.get(_COMMENT, b"").decode(errors="replace")
        return Statistics(interface=self._interfaces[number].name, comment=comment, **counts)


def _options(data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        code, size = _option(data, at)
        if code == 0:
            return
        value = bytes(data[at + 4 : at + 4 + size])
        if len(value) < size:
            raise IndexError
        yield code, value
        at += 4 + (size + 3 & ~3)


def block_size(data: bytes | bytearray | memoryview, at: int) -> int:
    """The length of the block that begins there; 0 if the data ends before it does.

    Raises `ValueError` if no block begins there.
    """
    left = len(data) - at
    if left < _OVERHEAD:
        return 0
    _, size = _words(data, at)
    if size < _OVERHEAD or size % 4 or size > MAX_BLOCK_BYTES:
        raise ValueError(f"a block of the capture file has the length {size}")
    return size if size <= left else 0


def whole_blocks(data: bytes | bytearray | memoryview) -> int:
    """The length of the whole blocks at the beginning of the data."""
    at = 0
    while size := block_size(data, at):
        at += size
    return at
