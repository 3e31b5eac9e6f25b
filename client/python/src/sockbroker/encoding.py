"""Between Python's values and their spelling on the wire: integers, addresses, ancillary data.

What cannot be spelt raises `TypeError`, `ValueError` or `OverflowError`; `arguments.py` finds CPython's
own words for it.
"""

from __future__ import annotations

import array
import binascii
import errno
import operator
import os
from pickle import PickleBuffer
from typing import Any, Iterable

from . import frame, native
from .jsonrpc import Answer

_RIGHTS = (int(native.module.SOL_SOCKET), int(native.module.SCM_RIGHTS))
_INT = array.array("i").itemsize
_HOSTS = tuple(int(getattr(native.module, name, -1)) for name in ("AF_INET", "AF_INET6", "AF_RDS"))
_UNIX = int(native.module.AF_UNIX)
_PACKET = int(getattr(native.module, "AF_PACKET", -1))
_CAN = int(getattr(native.module, "AF_CAN", -1))
_WORD = (1 << 64) - 1
_MASKED = tuple(int(getattr(native.module, name, -1)) for name in ("AF_NETLINK", "AF_VSOCK", "AF_QIPCRTR"))
_UNSIGNED_MAX = (1 << 32) - 1
_INT_MAX = (1 << 31) - 1


def integer(value: Any) -> int:
    """An integer, of anything that is one; enumerations and booleans become plain numbers."""
    return operator.index(value) + 0


def c_int(value: Any) -> int:
    """An integer that CPython takes as a C `int`."""
    number = operator.index(value) + 0
    if not -_INT_MAX - 1 <= number <= _INT_MAX:
        raise OverflowError("Python int too large to convert to C int")
    return number


def octets(buffer: Any) -> memoryview:
    """The bytes of anything that has the buffer protocol, which has to be released."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise BufferError("underlying buffer is not C-contiguous")
    try:
        return view.cast("B")
    except (TypeError, NotImplementedError):
        return PickleBuffer(view).raw()  # of a structure


def host(value: Any) -> str | None:
    """The name of a host: international ones are encoded here, as in CPython."""
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("idna").decode("ascii")
    if isinstance(value, (bytes, bytearray)):
        return value.decode("ascii")
    raise TypeError(f"host must be str, bytes or bytearray, not {type(value).__name__}")


def write_address(family: int, address: Any) -> Any:
    """An address as a parameter. The broker checks numbers and ranges."""
    if isinstance(address, str):
        return text_or_raw(os.fsencode(address))
    if isinstance(address, tuple):
        if family in _HOSTS and address:
            if address[0] is None:
                raise TypeError("a host must be given")
            return [host(address[0]), *map(_item, address[1:3]), *map(_low_bits, address[3:])]
        if family == _CAN and address:
            return _write_can(address)
        return [(_low_bits if family in _MASKED else _item)(item) for item in address]
    if not isinstance(address, int):
        return _raw(address)
    raise TypeError(f"not an address: {type(address).__name__}")


def _write_can(address: tuple[Any, ...]) -> list[Any]:
    """The interface in any spelling of a file's name; the name of 64 bits of J1939 as decimal text."""
    numbers: list[Any] = [integer(item) for item in address[1:]]
    if len(address) == 4:
        numbers[0] = str(numbers[0] & _WORD)
    return [os.fsdecode(address[0]), *numbers]


def _item(item: Any) -> Any:
    if isinstance(item, str):
        return item
    try:
        return integer(item)
    except TypeError:
        return _raw(item)


def _low_bits(item: Any) -> int:
    """A number of which CPython takes the low 32 bits, also if it has more than JSON can carry."""
    return integer(item) & _UNSIGNED_MAX


def text_or_raw(name: bytes) -> Any:
    """A name of a file: text if it is UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return _raw(name)


def _raw(buffer: Any) -> dict[str, str]:
    with octets(buffer) as data:
        return {"base64": binascii.b2a_base64(data, newline=False).decode("ascii")}


def read_address(value: Any, family: int) -> Any:
    """An address of a result, as `socket` gives it."""
    if type(value) is list:
        if family == _PACKET and len(value) == 5:
            value[4] = binascii.a2b_base64(value[4])
        elif family == _CAN and len(value) == 4:
            value[1] = int(value[1])
        return tuple(value)
    if type(value) is dict:
        raw = binascii.a2b_base64(value["base64"])
        if "family" in value:
            return (value["family"], raw)
        return raw if raw[:1] == b"\0" else os.fsdecode(raw)
    return value


class Outgoing:
    """What rides beside a request: attachments and descriptors."""

    __slots__ = ("attachments", "descriptors", "_opened")

    def __init__(self) -> None:
        self.attachments: list[Any] = []
        self.descriptors: list[int] = []
        self._opened: list[int] = []

    def __enter__(self) -> Outgoing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what was opened for the call."""
        frame.close_all(self._opened)

    def open(self, path: bytes, flags: int) -> int:
        """Opens a file that is closed when the call has ended; its index among the descriptors."""
        self._opened.append(os.open(path, flags))
        self.descriptors.append(self._opened[-1])
        return len(self.descriptors) - 1

    def data(self, value: Any) -> Any:
        """Bytes as a parameter: an attachment, or base64 where there are too many of them."""
        if len(self.attachments) >= frame.MAX_ATTACHMENTS:
            return binascii.b2a_base64(value, newline=False).decode("ascii")
        self.attachments.append(value)
        return {"attachment": len(self.attachments) - 1}

    def ancillary(self, items: Iterable[Any]) -> list[Any]:
        """Ancillary data as a parameter; its descriptors go beside the frame."""
        return [self._item(item) for item in items]

    def _item(self, item: Any) -> Any:
        level, kind, data = item
        level, kind = integer(level), integer(kind)
        with octets(data) as view:
            raw = bytes(view)
        if (level, kind) != _RIGHTS:
            return [level, kind, self.data(raw)]
        whole = len(raw) - len(raw) % _INT
        numbers = array.array("i", raw[:whole])
        for number in numbers:
            os.fstat(number)  # a wrong number fails with EBADF before the broker sees anything
        if len(self.descriptors) + len(numbers) > frame.MAX_DESCRIPTORS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as the kernel's limit SCM_MAX_FD
        self.descriptors += numbers
        value: dict[str, Any] = {"descriptors": len(numbers)}
        if raw[whole:]:
            value["rest"] = binascii.b2a_base64(raw[whole:], newline=False).decode("ascii")
        return [level, kind, value]


def read_ancillary(items: Iterable[Any], answer: Answer) -> tuple[list[tuple[int, int, bytes]], list[int]]:
    """Ancillary data of a result, and the descriptors in it, which are the caller's from now on."""
    read, taken = [], []
    for level, kind, value in items:
        if type(value) is dict and "descriptors" in value:
            numbers = answer.descriptors[: value["descriptors"]]
            if not numbers and value["descriptors"]:
                continue  # this process had no room for any, so that the kernel leaves the item out
            taken += numbers
            data = array.array("i", numbers).tobytes() + binascii.a2b_base64(value.get("rest", ""))
            del answer.descriptors[: len(numbers)]
        else:
            data = answer.data(value)
        read.append((level, kind, data))
    return read, taken
