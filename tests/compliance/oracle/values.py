"""Converts between Python values and their JSON form: addresses, ancillary data, errors."""

import array
import base64
import builtins
import enum
import errno
import os
import socket

_RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))


def plain(value):
    """A parameter that is not bytes: enums and booleans are numbers."""
    if isinstance(value, (enum.IntEnum, bool)):
        return int(value)
    return value


def text(value):
    """A host name: the client applies IDNA."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("idna").decode("ascii")
    return value


def write_address(address):
    """An address as a parameter."""
    if isinstance(address, str):
        try:
            address.encode()
        except UnicodeEncodeError:
            return _raw(os.fsencode(address))
        return address
    if isinstance(address, (bytes, bytearray, memoryview)):
        return _raw(bytes(address))
    if isinstance(address, tuple):
        host = [_host(item) for item in address[:1]]
        return host + [_item(item) for item in address[1:]]
    return plain(address)


def _host(item):
    return item.decode("ascii") if isinstance(item, (bytes, bytearray)) else text(plain(item))


def _item(item):
    if isinstance(item, (bytes, bytearray)):
        return _raw(bytes(item))
    return plain(item)


def _raw(data):
    return {"base64": base64.b64encode(data).decode()}


def read_address(value, family):
    """An address of a result, as `socket` gives it."""
    if isinstance(value, dict) and "family" in value:
        return (value["family"], base64.b64decode(value["base64"]))
    if isinstance(value, dict):
        raw = base64.b64decode(value["base64"])
        return raw if raw[:1] == b"\0" else os.fsdecode(raw)
    if isinstance(value, list):
        items = tuple(value)
        if family == socket.AF_PACKET and len(items) == 5:
            items = (*items[:4], base64.b64decode(items[4]))
        if family == socket.AF_CAN and len(items) == 4:
            items = (items[0], int(items[1]), *items[2:])
        return items
    return value


def write_control(items, parts):
    """Ancillary data as a parameter; its descriptors are attached to the frame."""
    written = []
    for level, kind, data in items:
        raw = bytes(data)
        if (level, kind) == _RIGHTS:
            whole = len(raw) - len(raw) % 4
            numbers = array.array("i")
            numbers.frombytes(raw[:whole])
            for number in numbers:
                os.fstat(number)  # a bad number fails here with EBADF, before the broker sees anything
                parts.descriptor(number)
            value = {"descriptors": len(numbers)}
            if raw[whole:]:
                value["rest"] = base64.b64encode(raw[whole:]).decode()
        else:
            value = parts.data(raw)
        written.append([plain(level), plain(kind), value])
    return written


def read_control(items, answer, descriptors):
    """Ancillary data of a result; takes its descriptors from the iterator, in order."""
    read = []
    for level, kind, value in items:
        if isinstance(value, dict) and "descriptors" in value:
            numbers = [next(descriptors) for _ in range(value["descriptors"])]
            rest = base64.b64decode(value.get("rest", ""))
            data = array.array("i", numbers).tobytes() + rest
        else:
            data = answer.data(value)
        read.append((level, kind, data))
    return read


def exception(error):
    """The Python exception of an error object."""
    return _exception(error.data, error.message)


def _exception(data, message):
    kind, number = data.get("kind"), data.get("errno")
    if data.get("errors"):
        return ExceptionGroup(message, [_exception(inner, message) for inner in data["errors"]])
    if kind == "OSError":
        return OSError(message) if number is None else OSError(number, os.strerror(number))
    if kind == "timeout":
        return TimeoutError("timed out")
    if kind in ("gaierror", "herror"):
        return getattr(socket, kind)(number, message)
    if kind == "denied":
        return PermissionError(number, message)
    if kind in ("handle", "descriptor"):
        return OSError(errno.EBADF, message)
    if kind == "limit":
        return OSError(errno.ENOBUFS, message)
    if kind == "argument":
        made = getattr(builtins, data.get("exception") or "", None)
        if isinstance(made, type) and issubclass(made, Exception):
            return made(message)
    return RuntimeError(f"{message} {data}")
