"""A handle of the broker, which one socket object owns, and the numbers that stand for it.

`socket.py` passes a socket on as an integer: `accept`, `dup` and `detach` return one, and `socket(fileno=...)` takes
it. It is the descriptor if the socket has one. Otherwise it is a *pseudo descriptor*: a number from 2^30 on, which no
kernel assigns.
"""

from __future__ import annotations

import _thread
import errno
import itertools
import os
import weakref
from collections import namedtuple

from . import native
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .jsonrpc import Response
    from .session import Session
    from .undelivered import UndeliveredResults

FIRST_PSEUDO = 1 << 30
_numbers = itertools.count(FIRST_PSEUDO)
_by_pseudo: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()
_by_descriptor: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()
_detached: dict[int, Handle] = {}
_channels: dict[tuple[int, int], tuple[Session, int]] = {}
"""The sockets of descriptors that are channels, by the files of the descriptors."""
_settling = _thread.RLock()
"""Orders the timeouts of all handles among threads."""


class Handle:
    """Closes the socket in the broker when it is garbage-collected."""

    __slots__ = (
        "session", "number", "undelivered", "channel", "connecting", "watch", "listens", "skips_answers", "_pseudo",
        "_timeout", "__weakref__",
    )  # fmt: skip

    def __init__(self, session: Session, number: int) -> None:
        session.handles += 1
        self.session = session
        self.number: int | None = number
        self.undelivered: UndeliveredResults | None = None
        """The results of interrupted calls."""
        self.channel: tuple[int, int] | None = None
        """The file of the descriptor that has the data of the socket, by device and inode."""
        self.connecting = False
        """Whether the channel is that of a connection whose end this package has not seen."""
        self.watch: int | None = None
        """The process with a descriptor that is readable when the socket is; see `watches`."""
        self.listens = False
        self.skips_answers = False
        """Whether calls that cannot fail are not waited for: `close` of a connected stream, and options that were set before."""
        self._pseudo = -1
        self._timeout: list[Any] | None = None
        """Parameters of a `settimeout` that the next call carries."""

    def call(self, name: str, params: list[Any], **parts: Any) -> Response:
        """Calls a method of this socket. Its first parameter is the handle."""
        number = self.number
        if number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._timeout is None:
            return self.session.call("socket." + name, [number, *params], **parts)
        return self._call_with_timeout("socket." + name, [number, *params], parts)

    def call_by_name(self, name: str, params: dict[str, Any], attachments: list[Any]) -> Response:
        """The same with named parameters."""
        number = self.number
        if number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._timeout is None:
            return self.session.call("socket." + name, {"handle": number, **params}, attachments)
        return self._call_with_timeout("socket." + name, {"handle": number, **params}, {"attachments": attachments})

    def notify(self, name: str, params: list[Any]) -> None:
        """The same without waiting for the end, for a call that cannot fail."""
        if self.number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.session.notify("socket." + name, [self.number, *params])

    def set_timeout(self, timeout: float | None) -> None:
        """`settimeout`. In remote mode without a round trip: it cannot fail, and only later calls depend on it.

        The next call carries it on the same connection, where it comes first. Calls of several threads can use several
        connections. Then a process with threads waits for the response.
        """
        number = self.number
        if number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if not self.session.client.wants_descriptors and not _thread._count():
            self._timeout = [number, timeout]
            return
        with _settling:
            self._timeout = None
            if self.session.has_single_connection:
                self.session.notify("socket.settimeout", [number, timeout])
            else:
                self.session.call("socket.settimeout", [number, timeout])

    def _call_with_timeout(self, method: str, params: Any, parts: dict[str, Any]) -> Response:
        waiting = self._timeout
        if _thread._count():
            with _settling:
                if self._timeout is not None:
                    self.session.call("socket.settimeout", self._timeout)
                    self._timeout = None
            return self.session.call(method, params, **parts)
        response = self.session.call(method, params, before=("socket.settimeout", waiting), **parts)
        if self._timeout is waiting:  # an interrupted call may not have sent it
            self._timeout = None
        return response

    def note_channel(self, descriptor: int) -> None:
        """Records that a descriptor has the data of the socket, also for other objects of this descriptor."""
        status = os.fstat(descriptor)
        self.channel = (status.st_dev, status.st_ino)
        if self.number is not None:
            _channels[self.channel] = (self.session, self.number)

    def forget_channel(self) -> None:
        """Records that no descriptor has the data of the socket any more."""
        if self.channel is not None:
            _channels.pop(self.channel, None)
        self.channel, self.connecting = None, False

    def leave_to(self, descriptor: int) -> None:
        """Leaves the socket to its descriptor, from which another object can be made."""
        self.note_channel(descriptor)
        self.release()

    def pseudo_descriptor(self) -> int:
        """The number that stands for it in place of a descriptor; -1 once it is closed."""
        if self.number is None:
            return -1
        if self._pseudo < 0:
            self._pseudo = next(_numbers)
            _by_pseudo[self._pseudo] = self
        return self._pseudo

    def release(self) -> int | None:
        """Returns the broker's number, which this object no longer closes."""
        number, self.number = self.number, None
        if number is not None:
            self.session.handles -= 1
        undelivered, self.undelivered = self.undelivered, None
        if undelivered is not None:
            undelivered.close()
        return number

    def close(self) -> bool:
        """Closes the socket in the broker. Returns whether it was open. If the broker has gone, the socket has too."""
        number = self.release()
        if number is None:
            return False
        if self.channel is not None:
            # The broker closes it when the last copy of the descriptor is closed, and has sent everything.
            _channels.pop(self.channel, None)
            return True
        if self.session.ended:
            return True
        try:
            if self.skips_answers:
                self.session.notify("socket.close", [number])
            else:
                self.session.call("socket.close", [number])
        except (BrokerError, OSError):
            pass
        except BaseException:
            close_number(self.session, number)  # interrupted, perhaps before the request was sent
            raise
        return True

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter may have deleted what this needs
            pass


def _unmediated() -> Handle:
    made = Handle.__new__(Handle)
    made.number, made.undelivered, made._pseudo, made._timeout, made.channel = None, None, -1, None, None
    made.watch, made.listens, made.connecting, made.skips_answers = None, False, False, False
    return made


UNMEDIATED = _unmediated()
"""Takes the place of the handle of a Unix socket that only this process holds: in remote mode, or by the policy."""


def close_number(session: Session, number: int) -> None:
    """Closes a handle that has no object, or that may be closed already."""
    try:
        session.call("socket.close", [number])
    except Exception:
        pass


class SocketSpec(namedtuple("SocketSpec", ("family", "type", "proto", "timeout"))):
    """The values of a socket's attributes of these names."""

    __slots__ = ()
    family: int
    type: int
    proto: int
    timeout: float | None


def spec_of(sock: Any) -> SocketSpec:
    """The values that the interpreter's part of a socket object has."""
    timeout = native.Socket.gettimeout(sock)
    return SocketSpec(native.family_of(sock), native.type_of(sock), native.protocol_of(sock), timeout)


class Transit(int):
    """The integer by which `socket.py` passes a handle on: a descriptor or a pseudo descriptor."""

    handle: Handle
    spec: SocketSpec

    def __new__(cls, number: int, handle: Handle, spec: SocketSpec) -> Transit:
        made = super().__new__(cls, number)
        made.handle = handle
        made.spec = spec
        return made


def in_transit(number: Any, given: tuple[Any, Any, Any]) -> Transit | None:
    """The handle that an integer passes on; `None` for any other number.

    The caller may give family, type and protocol, as for a descriptor. Two objects can share one pseudo descriptor,
    like a descriptor: closing one object closes the socket for both.
    """
    if isinstance(number, Transit):
        return number
    if not isinstance(number, int) or number < FIRST_PSEUDO:
        return None
    handle = _detached.pop(number, None) or by_pseudo(number)
    if handle is None:
        return None
    known = attributes(handle)
    family, type_, proto = (own if asked == -1 else asked for asked, own in zip(given, known[:3]))
    return Transit(number, handle, SocketSpec(family, type_, proto, known.timeout))


def detach(handle: Handle) -> int:
    """Returns a pseudo descriptor, which keeps the handle open until it is adopted or closed."""
    number = handle.pseudo_descriptor()
    _detached[number] = handle
    return number


def by_pseudo(number: Any) -> Handle | None:
    """The open handle with this pseudo descriptor."""
    if not isinstance(number, int) or number < FIRST_PSEUDO:
        return None
    handle = _by_pseudo.get(number)
    return handle if handle is not None and handle.number is not None else None


def close_pseudo(number: Any) -> bool:
    """Closes the handle with this pseudo descriptor. Returns whether there is one."""
    handle = by_pseudo(number)
    if handle is None:
        return False
    _detached.pop(number, None)
    handle.close()
    return True


def attributes(handle: Handle) -> SocketSpec:
    """The attributes that the broker knows of a handle."""
    value = handle.call("attributes", []).value
    return SocketSpec(value["family"], value["type"], value["proto"], value["timeout"])


def note_descriptor(descriptor: int, handle: Handle) -> None:
    """Records the handle of a descriptor, for `socket.close()` of the number."""
    _by_descriptor[descriptor] = handle


def by_channel(descriptor: int) -> Handle:
    """Another object of the socket whose data a descriptor has. Raises `EOPNOTSUPP` if it is none of this process."""
    status = os.fstat(descriptor)
    found = _channels.get((status.st_dev, status.st_ino))
    if found is None:
        text = "a descriptor of this machine cannot become a socket of a broker of another machine"
        raise OSError(errno.EOPNOTSUPP, f"{os.strerror(errno.EOPNOTSUPP)}: {text}")
    made = Handle(*found)
    made.note_channel(descriptor)
    return made


def by_watch(descriptor: Any) -> Handle | None:
    """The open handle whose socket this process watches by a descriptor."""
    found = _by_descriptor.get(descriptor) if isinstance(descriptor, int) else None
    return found if found is not None and found.number is not None and found.watch == os.getpid() else None


def close_of_descriptor(descriptor: Any) -> None:
    """Closes the handle of a descriptor that has been closed."""
    if isinstance(descriptor, int):
        handle = _by_descriptor.pop(descriptor, None)
        if handle is not None:
            handle.close()
