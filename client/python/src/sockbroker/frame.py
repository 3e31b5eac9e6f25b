"""LSP framing with attachments, and the ancillary data that carries descriptors.

A frame is a header, JSON, and raw attachments. See PROTOCOL.md, "LSP framing" and "Descriptors".
"""

from __future__ import annotations

import array
import collections
import os
from collections import namedtuple
from collections.abc import Iterable, Sequence

from . import native

MAX_ATTACHMENTS = 64
MAX_DESCRIPTORS = 253  # SCM_MAX_FD
DESCRIPTOR_SPACE = native.module.CMSG_SPACE(4 * MAX_DESCRIPTORS)
_RIGHTS = (int(native.module.SOL_SOCKET), int(native.module.SCM_RIGHTS))
_CTRUNC = int(native.module.MSG_CTRUNC)
_MAX_HEADER = 4096


class Header(namedtuple("Header", ("size", "content", "attachments", "descriptors"))):
    """The header of a frame: the lengths of itself, the JSON and the attachments, and the number of descriptors."""

    __slots__ = ()
    size: int
    content: int
    attachments: tuple[int, ...]
    descriptors: int

    def frame_size(self) -> int:
        """The length of the whole frame."""
        return self.size + self.content + sum(self.attachments)

    def split(self, data: bytes | bytearray) -> tuple[bytes, list[bytes]]:
        """The JSON and the attachments of a whole frame, with which `data` begins."""
        parts, at = [], self.size
        for length in (self.content, *self.attachments):
            parts.append(bytes(data[at : at + length]))
            at += length
        return parts[0], parts[1:]


def encode_header(content: int, attachments: Sequence[int], descriptors: int) -> bytes:
    """The header of a request, with the blank line that ends it."""
    header = "Content-Length: %d\r\n" % content
    if attachments:
        header += "Attachments: %s\r\n" % ",".join(map(str, attachments))
    if descriptors:
        header += "Fds: %d\r\n" % descriptors
    return (header + "\r\n").encode("ascii")


def decode_header(data: bytes | bytearray) -> Header | None:
    """The header at the beginning of the data; `None` if it is not complete.

    Raises `ValueError` if the data does not begin with a header.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > _MAX_HEADER:
            raise ValueError("the data does not begin with the header of a frame")
        return None
    content, descriptors = -1, 0
    attachments: tuple[int, ...] = ()
    for line in bytes(data[:end]).split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"content-length":
            content = int(value)
        elif name == b"attachments":
            attachments = tuple(int(length) for length in value.split(b",") if length.strip())
        elif name == b"fds":
            descriptors = int(value)
    if content < 0:
        raise ValueError("the header of a frame has no Content-Length")
    return Header(end + 4, content, attachments, descriptors)


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """Ancillary data that passes descriptors."""
    return [(*_RIGHTS, array.array("i", descriptors))] if descriptors else []


def received(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in received ancillary data."""
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == _RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return numbers.tolist()


def close_all(descriptors: Iterable[int]) -> None:
    """Closes descriptors. Ignores one that is closed already."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


class Reader:
    """Splits a stream into frames, each with the descriptors that arrived with it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._groups: collections.deque[tuple[list[int], bool]] = collections.deque()

    def feed(self, data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> None:
        """Takes what one `recvmsg` returned."""
        self._data += data
        is_cut = bool(flags & _CTRUNC)
        if ancillary or is_cut:
            self._groups.append((received(ancillary), is_cut))

    def next(self) -> tuple[bytes, list[bytes], list[int], int] | None:
        """JSON, attachments, descriptors and the announced number of descriptors; `None` if no frame is complete."""
        header = decode_header(self._data)
        if header is None or len(self._data) < header.frame_size():
            return None
        content, attachments = header.split(self._data)
        del self._data[: header.frame_size()]
        descriptors: list[int] = []
        while len(descriptors) < header.descriptors and self._groups:
            numbers, is_cut = self._groups.popleft()
            descriptors += numbers
            if is_cut:
                break  # the kernel dropped the other descriptors of this frame
        close_all(descriptors[header.descriptors :])
        return content, attachments, descriptors[: header.descriptors], header.descriptors

    def close(self) -> None:
        """Closes descriptors that no frame has claimed."""
        for numbers, _ in self._groups:
            close_all(numbers)
        self._groups.clear()
