"""Converts Python's values to their JSON form and back: integers, addresses, ancillary data.

A value without a JSON form raises `TypeError`, `ValueError` or `OverflowError`. `arguments.py` replaces that by
CPython's own exception.
"""

from __future__ import annotations

import array
import binascii
import errno
import operator
import os
from collections.abc import Iterable

from . import frame, native
from .hints import Any
from .jsonrpc import Response

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
    """A plain integer, also for a member of an enumeration and for a boolean."""
    return operator.index(value) + 0


def c_int(value: Any) -> int:
    """An integer that CPython takes as a C `int`."""
    number = operator.index(value) + 0
    if not -_INT_MAX - 1 <= number <= _INT_MAX:
        raise OverflowError("Python int too large to convert to C int")
    return number


def octets(buffer: Any) -> memoryview:
    """The bytes of any object with the buffer protocol. The caller must release the view."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise BufferError("underlying buffer is not C-contiguous")
    try:
        return view.cast("B")
    except (TypeError, NotImplementedError):
        from pickle import PickleBuffer  # slow to import, and for structures of ctypes alone

        return PickleBuffer(view).raw()


def host(value: Any) -> str | None:
    """The name of a host. This encodes an international name, as CPython does."""
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("idna").decode("ascii")
    if isinstance(value, (bytes, bytearray)):
        return value.decode("ascii")
    raise TypeError(f"host must be str, bytes or bytearray, not {type(value).__name__}")


def encode_address(family: int, address: Any) -> Any:
    """The JSON form of an address. The broker checks numbers and ranges."""
    if isinstance(address, str):
        return text_or_raw(os.fsencode(address))
    if isinstance(address, tuple):
        if family in _HOSTS and address:
            if address[0] is None:
                raise TypeError("the host of an address must not be None")
            return [host(address[0]), *map(_item, address[1:3]), *map(_low_bits, address[3:])]
        if family == _CAN and address:
            return _encode_can(address)
        return [(_low_bits if family in _MASKED else _item)(item) for item in address]
    if not isinstance(address, int):
        return _raw(address)
    raise TypeError(f"an address must be a tuple, text or bytes, not {type(address).__name__}")


def _encode_can(address: tuple[Any, ...]) -> list[Any]:
    """The interface can be any form of a file name. The 64-bit name of J1939 becomes decimal text."""
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
    """The low 32 bits of a number, as CPython takes them. JSON cannot carry all bits of a longer number."""
    return integer(item) & _UNSIGNED_MAX


def text_or_raw(name: bytes) -> Any:
    """The JSON form of a file name: text if the name is UTF-8, else base64."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return _raw(name)


def _raw(buffer: Any) -> dict[str, str]:
    with octets(buffer) as data:
        return {"base64": binascii.b2a_base64(data, newline=False).decode("ascii")}


def decode_address(value: Any, family: int) -> Any:
    """Converts an address of a result to the form that `socket` returns."""
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


class RequestParts:
    """The attachments and descriptors of a request."""

    __slots__ = ("attachments", "descriptors", "_opened")

    def __init__(self) -> None:
        self.attachments: list[Any] = []
        self.descriptors: list[int] = []
        self._opened: list[int] = []

    def __enter__(self) -> RequestParts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files that were opened for the call."""
        frame.close_all(self._opened)

    def open(self, path: bytes, flags: int) -> int:
        """Opens a file until the call has ended. Returns its index among the descriptors."""
        self._opened.append(os.open(path, flags))
        self.descriptors.append(self._opened[-1])
        return len(self.descriptors) - 1

    def data(self, value: Any) -> Any:
        """The JSON form of bytes: an attachment, or base64 if there are too many attachments."""
        if len(self.attachments) >= frame.MAX_ATTACHMENTS:
            return binascii.b2a_base64(value, newline=False).decode("ascii")
        self.attachments.append(value)
        return {"attachment": len(self.attachments) - 1}

    def ancillary(self, items: Iterable[Any]) -> list[Any]:
        """The JSON form of ancillary data. The request carries its descriptors."""
        return [self._ancillary_item(item) for item in items]

    def _ancillary_item(self, item: Any) -> Any:
        level, kind, data = item
        level, kind = integer(level), integer(kind)
        with octets(data) as view:
            raw = bytes(view)
        if (level, kind) != _RIGHTS:
            return [level, kind, self.data(raw)]
        whole = len(raw) - len(raw) % _INT
        numbers = array.array("i", raw[:whole])
        for number in numbers:
            os.fstat(number)  # a wrong number raises EBADF before anything is sent
        if len(self.descriptors) + len(numbers) > frame.MAX_DESCRIPTORS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as the kernel does beyond SCM_MAX_FD
        self.descriptors += numbers
        value: dict[str, Any] = {"descriptors": len(numbers)}
        if raw[whole:]:
            value["rest"] = binascii.b2a_base64(raw[whole:], newline=False).decode("ascii")
        return [level, kind, value]


def decode_ancillary(items: Iterable[Any], response: Response) -> tuple[list[tuple[int, int, bytes]], list[int]]:
    """Converts ancillary data of a result. Returns it with its descriptors, which the caller owns from now on."""
    decoded, taken = [], []
    for level, kind, value in items:
        if type(value) is dict and "descriptors" in value:
            numbers = response.descriptors[: value["descriptors"]]
            if not numbers and value["descriptors"]:
                continue  # the kernel dropped all of them: natively the item is missing too
            taken += numbers
            data = array.array("i", numbers).tobytes() + binascii.a2b_base64(value.get("rest", ""))
            del response.descriptors[: len(numbers)]
        else:
            data = response.data(value)
        decoded.append((level, kind, data))
    return decoded, taken
