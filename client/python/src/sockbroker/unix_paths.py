"""Paths of Unix sockets on the wire: the process opens them itself, so that they mean to the broker what they mean here.

A path alone would be looked up by the broker, in its own folder, root and mounts. PROTOCOL.md, "Addresses".
"""

from __future__ import annotations

import errno
import os
from typing import Any

from .encoding import Outgoing, octets, text_or_raw, write_address

_UNIX_PATH_MAX = 108  # sizeof(sun_path)
_O_PATH = os.O_PATH | os.O_CLOEXEC


def write_socket(family: int, address: Any, beside: Outgoing) -> Any:
    """The address of a socket that is there: its file beside the frame."""
    path = _path(address)
    if path is None:
        return write_address(family, address)
    return {"descriptor": _open(path, _O_PATH, beside)}


def write_new_socket(family: int, address: Any, beside: Outgoing) -> Any:
    """The address that a socket is given: the folder beside the frame, and the name in it."""
    path = _path(address)
    if path is None:
        return write_address(family, address)
    bare = path.rstrip(b"/")
    name = os.path.basename(bare)
    if name in (b"", b".", b"..") or (bare != path and os.path.lexists(bare)):
        raise _error(errno.EADDRINUSE)
    if bare != path:
        raise _error(errno.ENOENT)  # only a folder may have a slash behind its name
    folder = _open(os.path.dirname(path) or b".", _O_PATH | os.O_DIRECTORY, beside)
    return {"descriptor": folder, "name": text_or_raw(name), "path": text_or_raw(path)}


def _path(address: Any) -> bytes | None:
    """The path in an address; `None` for an abstract name, and for the empty one. `OSError` as CPython's if too long."""
    if isinstance(address, str):
        raw = os.fsencode(address)
    else:
        with octets(address) as view:
            raw = bytes(view)
    if raw[:1] in (b"", b"\0"):
        return None
    if len(raw) >= _UNIX_PATH_MAX:
        raise OSError("AF_UNIX path too long")
    return raw.partition(b"\0")[0]


def _open(path: bytes, flags: int, beside: Outgoing) -> int:
    """Opens a file for this one call; its index beside the frame."""
    try:
        return beside.open(path, flags)
    except OSError as error:
        number = error.errno or errno.EINVAL
    raise _error(number)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
