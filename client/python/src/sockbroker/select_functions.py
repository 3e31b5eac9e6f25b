"""`select.select`, `select.poll` and `select.epoll` for pseudo descriptors and descriptors together.

Calls without pseudo descriptors go to the interpreter's own functions. Sockets that listen have pseudo descriptors or
are watched (`watches.py`): the broker is asked for both, whose answer is up to date. Code in C waits for the descriptor.
"""

from __future__ import annotations

import errno
import os
import select as _select
import sys
import time
from collections.abc import Mapping

from . import handle
from .errors import BrokerError
from .handle import FIRST_PSEUDO
from .hints import TYPE_CHECKING, Any
from .replacement import Replacement

if TYPE_CHECKING:
    from .handle import Handle
    from .session import Session

_native_select = _select.select
_native_poll = _select.poll
_native_epoll = _select.epoll
_READ = _select.POLLIN | _select.POLLHUP | _select.POLLERR
_WRITE = _select.POLLOUT | _select.POLLERR
_GONE = _select.POLLERR | _select.POLLHUP
_POLL_MASK = 0xFFFF  # without the flags of epoll
_EPOLL_DEFAULT = _select.EPOLLIN | _select.EPOLLPRI | _select.EPOLLOUT
_LAST_PSEUDO = (1 << 31) - 1

Events = list[tuple[int, int]]
Handles = dict[int, tuple[int, int]]
"""Pseudo descriptors and the events to wait for, by the numbers of their handles in one session."""


def wait(watched: Mapping[int, int], seconds: float | None) -> Events:
    """Waits until a number has one of its `POLL*` events. Returns the numbers with events; none after the timeout."""
    native = {number: events for number, events in watched.items() if _asked(number) is None and number < FIRST_PSEUDO}
    ready: Events = []
    sessions: dict[Session, Handles] = {}
    for number, events in watched.items():
        if number in native:
            continue
        found = _asked(number)
        if found is None or found.number is None:
            ready.append((number, _select.POLLNVAL))
        elif found.session.ended:
            ready.append((number, _GONE))  # the next call on it raises the reason
        else:
            sessions.setdefault(found.session, {})[found.number] = (number, events)
    if ready:
        seconds = 0.0
    if len(sessions) == 1 and not native:
        ((session, handles),) = sessions.items()
        try:
            return ready + _named(session.call("socket.poll", [_request(handles), seconds]).value, handles)
        except BrokerError:
            return ready + _gone(handles)
    return ready + _wait_for_all(list(sessions.items()), native, seconds)


def _asked(number: int) -> Handle | None:
    """The handle for which the broker is asked."""
    if number >= FIRST_PSEUDO:
        return handle.by_pseudo(number)
    found = handle.by_watch(number)
    return found if found is not None and found.listens else None


def _request(handles: Handles) -> list[list[int]]:
    return [[number, events] for number, (_, events) in handles.items()]


def _named(found: Any, handles: Handles) -> Events:
    return [(handles[number][0], events) for number, events in found or ()]


def _gone(handles: Handles) -> Events:
    return [(number, _GONE) for number, _ in handles.values()]


def _wait_natively(watched: Mapping[int, int], seconds: float | None) -> Events:
    poll = _native_poll()
    for number, events in watched.items():
        poll.register(number, events)
    return poll.poll(None if seconds is None else max(0, -int(-seconds * 1000 // 1)))


def is_readable(descriptor: int) -> bool:
    """Whether the kernel has data of a descriptor."""
    return bool(_wait_natively({descriptor: _select.POLLIN}, 0.0))


def is_writable(descriptor: int) -> bool:
    """Whether the kernel takes data for a descriptor."""
    return bool(_wait_natively({descriptor: _select.POLLOUT}, 0.0))


def _wait_for_all(
    sessions: list[tuple[Session, Handles]], native: Mapping[int, int], seconds: float | None
) -> Events:
    """Each broker waits for its handles. The kernel waits for the descriptors and for the responses of the brokers."""
    if not sessions:
        return _wait_natively(native, seconds)
    (session, handles), *others = sessions
    ready: Events = []
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        with session.pending("socket.poll", [_request(handles), seconds]) as pending:
            response = pending.fileno()
            ready = _wait_for_all(others, {**native, response: _select.POLLIN}, seconds)
            found = pending.finish() if any(number == response for number, _ in ready) else pending.cancel()
            ready = [(number, events) for number, events in ready if number != response]
    except BrokerError:
        if session.recovers():
            return _wait_for_all(sessions, native, None if deadline is None else max(0.0, deadline - time.monotonic()))
        return [item for item in ready if item[0] in native or _asked(item[0]) is not None] + _gone(handles)
    return ready + _named(found, handles)


def select(rlist: Any, wlist: Any, xlist: Any, timeout: Any = None, /) -> Any:
    """`select.select`."""
    lists = [[(item, _number(item)) for item in items] for items in (rlist, wlist, xlist)]
    if not any(_pseudo(number) is not None for items in lists for _, number in items):
        readers, writers, others = ([item for item, _ in items] for items in lists)
        return _native_select(readers, writers, others, timeout)
    if timeout is not None and timeout < 0:
        raise ValueError("timeout must be non-negative")
    watched: dict[int, int] = {}
    for items, events in zip(lists, (_select.POLLIN, _select.POLLOUT, _select.POLLPRI)):
        for _, number in items:
            watched[number] = watched.get(number, 0) | events
    found = dict(wait(watched, timeout))
    if any(events & _select.POLLNVAL for events in found.values()):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    masks = (_READ, _WRITE, _select.POLLPRI)
    return tuple(
        [item for item, number in items if found.get(number, 0) & mask] for items, mask in zip(lists, masks)
    )


def _number(item: Any) -> int:
    """The number of an object, as `select` determines it."""
    if isinstance(item, int):
        number = item + 0
    else:
        fileno = getattr(item, "fileno", None)
        if fileno is None:
            raise TypeError("argument must be an int, or have a fileno() method.")
        number = fileno()
        if not isinstance(number, int):
            raise TypeError("fileno() returned a non-integer")
    if number < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({number})")
    return number


def _pseudo(fd: Any) -> int | None:
    """The number of an argument for which the broker is asked; `None` for any other."""
    number = fd if isinstance(fd, int) else _number(fd)
    if FIRST_PSEUDO <= number <= _LAST_PSEUDO:
        return number
    return number if _asked(number) is not None else None


class Poll:
    """`select.poll()`."""

    def __init__(self) -> None:
        self._native = _native_poll()
        self._watched: dict[int, int] = {}
        self._handles: set[int] = set()

    def register(
        self, fd: Any, eventmask: int = _select.POLLIN | _select.POLLPRI | _select.POLLOUT, /
    ) -> None:
        number = _number(fd)
        if _pseudo(number) is None:
            self._native.register(number, eventmask)
            self._handles.discard(number)
        else:
            self._handles.add(number)
        self._watched[number] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        number = _number(fd)
        if number not in self._watched:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if number not in self._handles:
            self._native.modify(number, eventmask)
        self._watched[number] = eventmask

    def unregister(self, fd: Any, /) -> None:
        number = _number(fd)
        del self._watched[number]
        if number in self._handles:
            self._handles.remove(number)
        else:
            self._native.unregister(number)

    def poll(self, timeout: Any = None, /) -> Events:
        """Waits for this many milliseconds, without limit if `None` or negative."""
        if not self._handles:
            return self._native.poll(timeout)
        return wait(self._watched, None if timeout is None or timeout < 0 else timeout / 1000)


class Epoll:
    """`select.epoll()`. It ignores `EPOLLET` for pseudo descriptors."""

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._native = _native_epoll(sizehint, flags)
        self._handles: dict[int, int] = {}

    @classmethod
    def fromfd(cls, fd: int, /) -> Epoll:
        made = cls.__new__(cls)
        made._native = _native_epoll.fromfd(fd)
        made._handles = {}
        return made

    def __enter__(self) -> Epoll:
        self._native.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._native.closed

    def close(self) -> None:
        self._handles.clear()
        self._native.close()

    def fileno(self) -> int:
        return self._native.fileno()

    def register(self, fd: Any, eventmask: int = _EPOLL_DEFAULT) -> None:
        number = _pseudo(fd)
        if number is None:
            self._handles.pop(_number(fd), None)
            return self._native.register(fd, eventmask)
        self._check(number, errno.EEXIST, number not in self._handles)
        self._handles[number] = eventmask

    def modify(self, fd: Any, eventmask: int) -> None:
        number = _pseudo(fd)
        if number is None:
            return self._native.modify(fd, eventmask)
        self._check(number, errno.ENOENT, number in self._handles)
        self._handles[number] = eventmask

    def unregister(self, fd: Any) -> None:
        number = _pseudo(fd)
        if number is None:
            return self._native.unregister(fd)
        known = self._handles.pop(number, None) is not None
        self._check(number, errno.ENOENT, known)

    def _check(self, number: int, otherwise: int, is_right: bool) -> None:
        self._native.fileno()  # raises if this object is closed
        error = errno.EBADF if _asked(number) is None else otherwise
        if error == errno.EBADF or not is_right:
            raise OSError(error, os.strerror(error))

    def poll(self, timeout: Any = None, maxevents: int = -1) -> Events:
        for number in [number for number in self._handles if _asked(number) is None]:
            del self._handles[number]  # closed: the kernel removes a closed descriptor too
        if not self._handles:
            return self._native.poll(timeout, maxevents)
        inner = self._native.fileno()
        watched = {number: mask & _POLL_MASK for number, mask in self._handles.items() if mask}
        found = wait({**watched, inner: _select.POLLIN}, None if timeout is None or timeout < 0 else timeout)
        ready = [(number, events) for number, events in found if number != inner]
        if len(ready) < len(found):
            ready += self._native.poll(0, maxevents)
        del ready[maxevents if maxevents > 0 else len(ready) :]
        for number, _ in ready:
            if self._handles.get(number, 0) & _select.EPOLLONESHOT:
                self._handles[number] = 0
        return ready


def install() -> None:
    """Replaces the interpreter's functions, also in `selectors`, which has taken them if it is loaded."""
    _select.select = Replacement(select)
    _select.poll = Poll  # type: ignore[assignment,misc]
    _select.epoll = Epoll  # type: ignore[assignment,misc]
    selectors = sys.modules.get("selectors")
    if selectors is not None:
        selectors.SelectSelector._select = staticmethod(select)
        selectors.PollSelector._selector_cls = Poll
        selectors.EpollSelector._selector_cls = Epoll
