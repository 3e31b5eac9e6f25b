"""LSP framing with attachments and descriptors: heads, and ancillary data of descriptors.

A frame is a head, JSON, and raw attachments. PROTOCOL.md, "LSP framing" and "Descriptors".
"""

from __future__ import annotations

import array
import collections
import json
import os
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from . import native

MAX_ATTACHMENTS = 64
MAX_DESCRIPTORS = 253  # SCM_MAX_FD
DESCRIPTOR_SPACE = native.module.CMSG_SPACE(4 * MAX_DESCRIPTORS)
_RIGHTS = (int(native.module.SOL_SOCKET), int(native.module.SCM_RIGHTS))
_CTRUNC = int(native.module.MSG_CTRUNC)
_LONGEST_HEAD = 4096


class Head(NamedTuple):
    """What stands before a frame's JSON."""

    content: int
    attachments: tuple[int, ...]
    descriptors: int


def encoder() -> Callable[[Any], str]:
    """Writes JSON without blanks. `JSONEncoder.encode` makes the encoder in C anew for each call."""
    plain = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    text = json.encoder.encode_basestring
    encode = make(None, plain.default, text, None, ":", ",", False, False, True)
    return lambda value: "".join(encode(value, 0))


def write_head(content: int, attachments: Sequence[int], descriptors: int) -> bytes:
    """The head of a request, with its blank line."""
    head = "Content-Length: %d\r\n" % content
    if attachments:
        head += "Attachments: %s\r\n" % ",".join(map(str, attachments))
    if descriptors:
        head += "Fds: %d\r\n" % descriptors
    return (head + "\r\n").encode("ascii")


def read_head(data: bytes | bytearray) -> tuple[Head, int] | None:
    """The head at the beginning of the data and where it ends; `None` if it is not whole.

    `ValueError` for what is no head.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > _LONGEST_HEAD:
            raise ValueError("no head of a frame")
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
        raise ValueError("a head without Content-Length")
    return Head(content, attachments, descriptors), end + 4


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """Ancillary data that carries descriptors."""
    return [(*_RIGHTS, array.array("i", descriptors))] if descriptors else []


def received(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in received ancillary data."""
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == _RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return numbers.tolist()


def close_all(descriptors: Iterable[int]) -> None:
    """Closes descriptors that nobody wants; one that is closed already is no matter."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


class Reader:
    """Frames out of a stream that may hold several, with the descriptors that came with each."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._groups: collections.deque[tuple[list[int], bool]] = collections.deque()

    def feed(self, data: bytes, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> None:
        """What one read returned."""
        self._data += data
        is_cut = bool(flags & _CTRUNC)
        if ancillary or is_cut:
            self._groups.append((received(ancillary), is_cut))

    def next(self) -> tuple[bytes, list[bytes], list[int], int] | None:
        """JSON, attachments, descriptors and how many were announced; `None` if no frame is whole."""
        found = read_head(self._data)
        if found is None:
            return None
        head, at = found
        if len(self._data) < at + head.content + sum(head.attachments):
            return None
        parts = []
        for length in (head.content, *head.attachments):
            parts.append(bytes(self._data[at : at + length]))
            at += length
        del self._data[:at]
        descriptors: list[int] = []
        while len(descriptors) < head.descriptors and self._groups:
            numbers, is_cut = self._groups.popleft()
            descriptors += numbers
            if is_cut:
                break  # the kernel dropped the rest of this frame's descriptors
        close_all(descriptors[head.descriptors :])
        return parts[0], parts[1:], descriptors[: head.descriptors], head.descriptors

    def close(self) -> None:
        """Closes descriptors that no frame has claimed."""
        for numbers, _ in self._groups:
            close_all(numbers)
        self._groups.clear()
