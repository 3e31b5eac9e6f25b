"""Functions of `os` that accept pseudo descriptors. They pass all other numbers to the interpreter's own functions."""

from __future__ import annotations

import errno
import os
import stat

from . import handle
from .handle import FIRST_PSEUDO, Handle
from .hints import Any
from .replacement import Replacement

_native_close = os.close
_native_get_inheritable = os.get_inheritable
_native_set_inheritable = os.set_inheritable
_native_sendfile = os.sendfile


def _handle(number: Any) -> Handle | None:
    return handle.by_pseudo(number) if isinstance(number, int) and number >= FIRST_PSEUDO else None


def close(fd: Any) -> None:
    """`os.close`."""
    if not handle.close_pseudo(fd):
        _native_close(fd)


def get_inheritable(fd: Any, /) -> bool:
    """`os.get_inheritable`. No program inherits a socket without a descriptor: this returns the value that was set."""
    found = _handle(fd)
    return _native_get_inheritable(fd) if found is None else bool(found.call("get_inheritable", []).value)


def set_inheritable(fd: Any, inheritable: Any, /) -> None:
    """`os.set_inheritable`. Stores the value."""
    found = _handle(fd)
    if found is None:
        _native_set_inheritable(fd, inheritable)
    else:
        found.call("set_inheritable", [bool(inheritable)])


def sendfile(out_fd: Any, in_fd: Any, offset: Any, count: Any) -> int:
    """`os.sendfile`. Reads the file in this process. As natively, its position moves only if there is no offset."""
    found = _handle(out_fd)
    if found is None:
        return _native_sendfile(out_fd, in_fd, offset, count)
    if not stat.S_ISREG(os.fstat(in_fd).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    start = os.lseek(in_fd, 0, os.SEEK_CUR) if offset is None else offset
    data = os.pread(in_fd, min(count, found.session.max_part), start)
    if not data:
        return 0
    sent: int = found.call("send", [{"attachment": 0}, 0], attachments=[data]).value
    if offset is None:
        os.lseek(in_fd, start + sent, os.SEEK_SET)
    return sent


def install() -> None:
    """Replaces the interpreter's functions."""
    os.close = Replacement(close)
    os.get_inheritable = Replacement(get_inheritable)
    os.set_inheritable = Replacement(set_inheritable)
    os.sendfile = Replacement(sendfile)
