"""LSP framing with attachments and descriptors: heads, and ancillary data of descriptors.

A frame is a head, JSON, and raw attachments. PROTOCOL.md, "LSP framing" and "Descriptors".
"""

from __future__ import annotations

import array
import json
import os
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from . import native

MAX_ATTACHMENTS = 64
MAX_DESCRIPTORS = 253  # SCM_MAX_FD
DESCRIPTOR_SPACE = native.module.CMSG_SPACE(4 * MAX_DESCRIPTORS)
_RIGHTS = (int(native.module.SOL_SOCKET), int(native.module.SCM_RIGHTS))
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
