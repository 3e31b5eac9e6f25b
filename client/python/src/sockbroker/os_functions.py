"""Functions of `os` that accept pseudo descriptors. They pass all other numbers to the interpreter's own functions."""

from __future__ import annotations

import errno
import os
import select
import stat

from . import handle
from .handle import FIRST_PSEUDO, Handle, Transit
from .hints import Any
from .replacement import Replacement

_native_close = os.close
_native_read = os.read
_native_readv = os.readv
_native_write = os.write
_native_writev = os.writev
_native_get_inheritable = os.get_inheritable
_native_set_inheritable = os.set_inheritable
_native_sendfile = os.sendfile


def _handle(number: Any) -> Handle | None:
    return handle.by_pseudo(number) if isinstance(number, int) and number >= FIRST_PSEUDO else None


def close(fd: Any) -> None:
    """`os.close`."""
    if not handle.close_pseudo(fd):
        _native_close(fd)


def read(fd: Any, length: Any, /) -> bytes:
    """`os.read`: as `recv`. It waits only if the socket is blocking: a timeout makes the descriptor non-blocking."""
    found = _handle(fd)
    if found is None:
        return _native_read(fd, length)
    if length < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if length == 0:
        return b""
    return _transfer(found, select.POLLIN, "recv", length)  # type: ignore[no-any-return]


def readv(fd: Any, buffers: Any, /) -> int:
    """`os.readv`: the same into buffers."""
    found = _handle(fd)
    if found is None:
        return _native_readv(fd, buffers)
    return _transfer(found, select.POLLIN, "recvmsg_into", buffers)[0]  # type: ignore[no-any-return]


def write(fd: Any, data: Any, /) -> int:
    """`os.write`: as `send`. It waits only if the socket is blocking."""
    found = _handle(fd)
    if found is None:
        return _native_write(fd, data)
    return _transfer(found, select.POLLOUT, "send", data)  # type: ignore[no-any-return]


def writev(fd: Any, buffers: Any, /) -> int:
    """`os.writev`: as `sendmsg`."""
    found = _handle(fd)
    if found is None:
        return _native_writev(fd, buffers)
    return _transfer(found, select.POLLOUT, "sendmsg", buffers)  # type: ignore[no-any-return]


def _transfer(found: Handle, event: int, name: str, argument: Any) -> Any:
    """Calls a method of a socket object that borrows the handle.

    Raises `EAGAIN` if the socket has a timeout and lacks this event.
    """
    from .mediated import MediatedSocket

    spec = handle.attributes(found)
    if spec.timeout is not None and not found.session.call("socket.poll", [[[found.number, event]], 0]).value:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    borrowed = MediatedSocket.__new__(MediatedSocket)
    borrowed._become(Transit(found.pseudo_descriptor(), found, spec))
    try:
        return getattr(borrowed, name)(argument)
    finally:
        borrowed._handle = None


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
    os.read = Replacement(read)
    os.readv = Replacement(readv)
    os.write = Replacement(write)
    os.writev = Replacement(writev)
    os.get_inheritable = Replacement(get_inheritable)
    os.set_inheritable = Replacement(set_inheritable)
    os.sendfile = Replacement(sendfile)
