"""Unix sockets: which operations stay native, and the paths of the others.

This process opens the file of a path and passes the descriptor. The broker would look a path up in its own working
directory, root and mounts. See PROTOCOL.md, "Addresses".
"""

from __future__ import annotations

import errno
import os

from . import native
from .encoding import RequestParts, encode_address, octets, text_or_raw
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BrokeredSocket

_UNIX = int(native.module.AF_UNIX)

_UNIX_PATH_MAX = 108  # sizeof(sun_path)
_O_PATH = os.O_PATH | os.O_CLOEXEC


def is_native(sock: BrokeredSocket) -> bool:
    """Whether this process does the operation itself, so that its own credentials and rights count."""
    return native.family_of(sock) == _UNIX and native.Socket.fileno(sock) >= 0  # type: ignore[no-any-return]


def needs_descriptors(sock: BrokeredSocket) -> bool:
    """Whether this process must open the paths in an address and pass the descriptors to the broker."""
    return native.family_of(sock) == _UNIX and sock._open().session.passes_descriptors


def encode_existing(address: Any, parts: RequestParts) -> Any:
    """The JSON form of the address of an existing socket: the descriptor of its file."""
    path = _path(address)
    if path is None:
        return encode_address(_UNIX, address)
    return {"descriptor": _open(path, _O_PATH, parts)}


def encode_new(address: Any, parts: RequestParts) -> Any:
    """The JSON form of an address to bind to: the descriptor of the folder, and the name in it."""
    path = _path(address)
    if path is None:
        return encode_address(_UNIX, address)
    bare = path.rstrip(b"/")
    name = os.path.basename(bare)
    if name in (b"", b".", b"..") or (bare != path and os.path.lexists(bare)):
        raise _error(errno.EADDRINUSE)
    if bare != path:
        raise _error(errno.ENOENT)  # only the name of a folder can end in a slash
    folder = _open(os.path.dirname(path) or b".", _O_PATH | os.O_DIRECTORY, parts)
    return {"descriptor": folder, "name": text_or_raw(name), "path": text_or_raw(path)}


def _path(address: Any) -> bytes | None:
    """The path in an address; `None` for an abstract or empty name. Raises CPython's `OSError` if it is too long."""
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


def _open(path: bytes, flags: int, parts: RequestParts) -> int:
    """Opens a file for one call. Returns its index among the descriptors of the request."""
    try:
        return parts.open(path, flags)
    except OSError as error:
        number = error.errno or errno.EINVAL
    raise _error(number)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
