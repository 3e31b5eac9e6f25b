"""`select.select` and `select.poll` over handles and descriptors together.

A handle without a descriptor is shown by a number that the kernel does not know. Calls without such
numbers go to the interpreter's own functions.
"""

from __future__ import annotations

import errno
import os
import select as _select
import sys
from typing import Any, Mapping

from . import handle
from .broker_session import Session
from .errors import BrokerError
from .handle import FIRST_SHOWN

_native_select = _select.select
_native_poll = _select.poll
_READ = _select.POLLIN | _select.POLLHUP | _select.POLLERR
_WRITE = _select.POLLOUT | _select.POLLERR
_GONE = _select.POLLERR | _select.POLLHUP

Events = list[tuple[int, int]]


def wait(watched: Mapping[int, int], seconds: float | None) -> Events:
    """Waits until a number has one of its `POLL*` events; those that have, or none after so many seconds."""
    native = {number: events for number, events in watched.items() if number < FIRST_SHOWN}
    ready: Events = []
    asked: dict[int, tuple[int, int]] = {}
    session: Session | None = None
    for number, events in watched.items():
        if number in native:
            continue
        found = handle.by_number(number)
        if found is None or found.number is None:
            ready.append((number, _select.POLLNVAL))
        elif found.session.ended or session not in (None, found.session):
            ready.append((number, _GONE))  # the next call on it tells why
        else:
            session = found.session
            asked[found.number] = (number, events)
    if ready:
        seconds = 0.0
    if session is None:
        return ready + _wait_natively(native, seconds)
    request = [[number, events] for number, (_, events) in asked.items()]
    try:
        if native:
            mine, theirs = _wait_for_both(session, request, native, seconds)
        else:
            mine, theirs = session.call("socket.poll", [request, seconds]).value, []
    except BrokerError:
        return ready + [(number, _GONE) for number, _ in asked.values()]
    return ready + [(asked[number][0], events) for number, events in mine] + theirs


def _wait_natively(watched: Mapping[int, int], seconds: float | None) -> Events:
    poll = _native_poll()
    for number, events in watched.items():
        poll.register(number, events)
    return poll.poll(None if seconds is None else max(0, -int(-seconds * 1000 // 1)))


def _wait_for_both(
    session: Session, request: list[list[int]], native: Mapping[int, int], seconds: float | None
) -> tuple[Any, Events]:
    """The broker waits for its handles, the kernel for the rest and for the broker's answer."""
    with session.pending("socket.poll", [request, seconds]) as pending:
        ready = _wait_natively({**native, pending.fileno(): _select.POLLIN}, seconds)
        answered = any(number == pending.fileno() for number, _ in ready)
        theirs = [(number, events) for number, events in ready if number != pending.fileno()]
        mine = pending.finish() if answered else pending.cancel()
    return mine or [], theirs


def select(rlist: Any, wlist: Any, xlist: Any, timeout: Any = None, /) -> Any:
    """`select.select`."""
    lists = [[(item, _number(item)) for item in items] for items in (rlist, wlist, xlist)]
    if not any(number >= FIRST_SHOWN for items in lists for _, number in items):
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
    """The number behind an object, as `select` finds it."""
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


class Poll:
    """`select.poll()`."""

    def __init__(self) -> None:
        self._watched: dict[int, int] = {}

    def register(
        self, fd: Any, eventmask: int = _select.POLLIN | _select.POLLPRI | _select.POLLOUT, /
    ) -> None:
        self._watched[_number(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        number = _number(fd)
        if number not in self._watched:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._watched[number] = eventmask

    def unregister(self, fd: Any, /) -> None:
        del self._watched[_number(fd)]

    def poll(self, timeout: Any = None, /) -> Events:
        """Milliseconds; waits for ever if `None` or negative."""
        return wait(self._watched, None if timeout is None or timeout < 0 else timeout / 1000)


def install(hide_epoll: bool) -> None:
    """Puts these functions in place of the interpreter's, also where they were taken already."""
    _select.select = select
    _select.poll = Poll  # type: ignore[assignment,misc]
    if hide_epoll and hasattr(_select, "epoll"):
        del _select.epoll
    selectors = sys.modules.get("selectors")
    if selectors is not None:
        selectors.SelectSelector._select = staticmethod(select)
        selectors.PollSelector._selector_cls = Poll
        if hide_epoll:
            selectors.DefaultSelector = selectors.PollSelector  # type: ignore[attr-defined]
