"""Options of mediated sockets: `getsockopt`, `setsockopt` and `ioctl`."""

from __future__ import annotations

import errno
import os
import struct

from . import native
from .encoding import RequestParts, c_int, integer, octets
from .handle import Handle
from .hints import Any

_SOCKET_LEVEL = int(native.module.SOL_SOCKET)
_ATTACH_FILTER, _DETACH_FILTER = 26, 27  # SO_ATTACH_FILTER, SO_DETACH_FILTER; not in every module
_FILTER = struct.Struct("@HP")  # struct sock_fprog
_LINGER = (_SOCKET_LEVEL, int(native.module.SO_LINGER))
_UNAWAITED = (
    (_SOCKET_LEVEL, int(native.module.SO_KEEPALIVE)),
    (int(native.module.IPPROTO_TCP), int(native.module.TCP_NODELAY)),
)
"""Options whose next setting is not waited for once one was allowed: nothing that a program sees depends on them."""
_INSTRUCTION_BYTES = 8  # struct sock_filter


def get_option(handle: Handle, level: Any, option: Any, *length: Any) -> Any:
    """`getsockopt`."""
    numbers = [c_int(level), c_int(option)]
    if length:
        numbers += map(c_int, length)
    response = handle.call("getsockopt", numbers)
    value = response.value
    return value if type(value) is int else response.data(value)


def set_option(handle: Handle, level: Any, option: Any, value: Any, *length: Any) -> None:
    """`setsockopt`."""
    place = (c_int(level), c_int(option))
    parts = RequestParts()
    if place == _LINGER:
        handle.skips_answers = False  # its close can wait for the peer
    if place == (_SOCKET_LEVEL, _ATTACH_FILTER) and not isinstance(value, int):
        with octets(value) as pointer:
            program = parts.data(_filter_program(bytes(pointer)))
        handle.call("attach_filter", [program], attachments=parts.attachments)
    elif place == (_SOCKET_LEVEL, _DETACH_FILTER):
        handle.call("detach_filter", [])
    elif value is None:
        handle.call("setsockopt", [*place, None, integer(*length)])
    elif hasattr(value, "__index__"):
        number = integer(value)
        if not (handle.skips_answers and place in _UNAWAITED and not length):
            handle.call("setsockopt", [*place, number, *length])
        elif place in handle.session.known_options and handle.session.keeps_order:
            handle.notify("setsockopt", [*place, number])
        else:
            handle.call("setsockopt", [*place, number])
            handle.session.known_options.add(place)
    else:
        with octets(value) as data:
            params = [*place, parts.data(bytes(data)), *length]
        handle.call("setsockopt", params, attachments=parts.attachments)


def ioctl(handle: Handle, request: Any, argument: Any) -> Any:
    """The requests of PROTOCOL.md, "Options", and `SIO_RCVALL` with `RCVALL_ON` or `RCVALL_OFF`."""
    encoded = argument if isinstance(argument, str) or argument is None else integer(argument)
    response = handle.call("ioctl", [integer(request), encoded])
    value = response.value
    return value if value is None or isinstance(value, int) else response.data(value)


def _filter_program(pointer: bytes) -> bytes:
    """The program in this process's memory that a `struct sock_fprog` points to.

    This reads it through the memory file of the process, which reports a wrong pointer as an error.
    """
    if len(pointer) != _FILTER.size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    length, address = _FILTER.unpack(pointer)
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(length * _INSTRUCTION_BYTES)
    except (OSError, ValueError, OverflowError):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from None
