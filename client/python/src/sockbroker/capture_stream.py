"""A capture that the broker has opened: its handle, its interfaces, and the stream of its packets."""

from __future__ import annotations

import binascii
import contextlib
import errno
import os
import time
from collections import namedtuple
from collections.abc import Callable, Iterable

from . import creation, native, packet_filter
from .errors import ArgumentError, BrokerError
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    from .client import Client
    from .jsonrpc import Response
    from .session import Session

    Interfaces = Union[str, Sequence[str], None]

PART = 1 << 18
"""The bytes of the stream that one call returns."""
_NANOSECONDS = 1_000_000_000


class CaptureInterface(namedtuple("CaptureInterface", ("index", "name", "link_type"))):
    """An interface of a capture."""

    __slots__ = ()
    index: int
    name: str
    link_type: int
    """What its packets begin with: `LINKTYPE_` of tcpdump.org."""


class CaptureStats(namedtuple("CaptureStats", ("seen", "captured", "dropped", "unread", "bytes", "ended", "complete"))):
    """The packets of a capture: `captured + dropped + unread == seen`."""

    __slots__ = ()
    seen: int
    """Packets that the filter accepted."""
    captured: int
    """Packets in the stream."""
    dropped: int
    """Packets for which the ring of the kernel had no room."""
    unread: int
    """Packets in the ring."""
    bytes: int
    """The captured bytes."""
    ended: str | None
    """Why the capture has ended: `stopped`, `limit`, `interface`, `policy`, `unread`, `failed` or
    `interrupted`; `None` while it runs."""
    complete: bool | None
    """Whether the file of a capture that has ended has all its packets."""


class CaptureStream:
    """A live capture. One thread reads its stream."""

    def __init__(
        self, client: Client, interface: Interfaces, filter: str | bytes, netns: str | int | None, options: dict[str, Any]
    ) -> None:
        """`options` are those of `capture.open`; those that are `None` have their defaults."""
        compiled, program = _compiled(filter)
        params: dict[str, Any] = {
            "interfaces": _names(interface),
            "filter": program,
            "options": {name: value for name, value in {**options, "filter_text": _text(filter)}.items() if value is not None},
            "want_fd": client.wants_descriptors,
        }
        netns = client.settings.netns if netns is None else netns
        passed = [netns] if isinstance(netns, int) else []
        if netns is not None:
            params["netns"] = creation.PASSED if isinstance(netns, int) else netns
        self._process = os.getpid()
        self._stopped = False
        session, response = _checked(
            lambda: client.call("capture.open", params, _discard, takes_descriptors=True, descriptors=passed)
        )
        opened = response.value
        self._session, self._handle = session, opened["handle"]
        session.captures += 1
        self.socket: Any = None
        """The descriptor of the stream, if one was passed. The reader closes it."""
        try:
            self.interfaces = [
                CaptureInterface(one["index"], one["name"], one["link_type"]) for one in opened["interfaces"]
            ]
            self.started_ns = _nanoseconds(opened["started"])
            self._check(compiled)
            if opened["fd"]:
                self.socket = _socket(response)
        except BaseException:
            self.release()
            raise

    def reader(self) -> Callable[[], bytes]:
        """A function that waits for the next part of the stream, and returns no bytes at its end.

        It does not keep this object alive.
        """
        stream, session, handle = self.socket, self._session, self._handle
        if stream is not None:
            return lambda: stream.recv(PART)
        return lambda: _read(session, handle)

    def is_ours(self) -> bool:
        """Whether this is the process that opened the capture."""
        return os.getpid() == self._process

    def is_open(self) -> bool:
        """Whether the handle is open."""
        return self._handle is not None

    def stats(self) -> CaptureStats:
        """The counters so far."""
        return self._counters("capture.stats", [self._handle])

    def stop(self, linger: float = 0) -> CaptureStats:
        """Ends the capture after as many seconds. The stream then has what it captured."""
        final = self._counters("capture.stop", [self._handle, linger])
        self._stopped = True
        return final

    def set_filter(self, filter: str | bytes) -> int:
        """Replaces the filter. Returns a time in nanoseconds, after which no packet is of the earlier one."""
        compiled, program = _compiled(filter)
        self._check(compiled)
        response = _checked(lambda: self._session.call("capture.set_filter", [self._handle, program, _text(filter)]))
        return _nanoseconds(response.value["after"])

    def release(self) -> None:
        """Ends the capture and closes the handle. Does nothing the second time, and in a child process."""
        handle, self._handle = self._handle, None
        if handle is None or not self.is_ours():
            return
        self._session.captures -= 1
        if not self._session.ended:
            with contextlib.suppress(OSError):
                if not self._stopped:  # the limits count it until it has stopped
                    self._session.call("capture.stop", [handle])
                self._session.call("capture.close", [handle])

    def _check(self, compiled: packet_filter.CaptureFilter | None) -> None:
        """Refuses a filter that has no meaning for the packets of an interface."""
        if compiled is not None:
            for one in self.interfaces:
                compiled.check(one.link_type)

    def _counters(self, method: str, params: list[Any]) -> CaptureStats:
        if self._handle is None:
            raise BrokerError("the counters of this capture are lost: it was closed before it had ended without errors")
        value = _checked(lambda: self._session.call(method, params)).value
        return CaptureStats(*(value[name] for name in CaptureStats._fields))


def _names(interface: Interfaces) -> list[str] | None:
    if interface is None or interface == "any":
        return None
    if not isinstance(interface, (str, Iterable)):
        raise TypeError(f"an interface is a name, several names or None, not {type(interface).__name__}")
    names = [interface] if isinstance(interface, str) else [*interface]
    if not names:
        raise ValueError("no interface is named: use None for all interfaces")
    return names


def _text(filter: str | bytes) -> str | None:
    """The expression of a filter, for the audit."""
    return filter if isinstance(filter, str) and filter else None


def _compiled(filter: str | bytes) -> tuple[packet_filter.CaptureFilter | None, str | None]:
    """The filter, unless it is a program already, and the program in base64."""
    if not filter:
        return None, None
    compiled = packet_filter.CaptureFilter(filter) if isinstance(filter, str) else None
    program = filter if isinstance(filter, bytes) else compiled.program if compiled is not None else b""
    return compiled, binascii.b2a_base64(program, newline=False).decode()


def _checked(call: Callable[[], Any]) -> Any:
    """The result of a call. A refused argument is the exception that the broker names."""
    try:
        return call()
    except ArgumentError as error:
        raise error.exception from None


def _discard(session: Session, response: Response) -> None:
    """Closes the capture that an interrupted call has opened."""
    session.call("capture.close", [response.value["handle"]])


def _socket(response: Response) -> Any:
    """The client's end of the stream."""
    if response.missing:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    stream = native.Socket(fileno=response.take_descriptor())
    stream.settimeout(None)
    return stream


def _read(session: Session, handle: int) -> bytes:
    response = session.call("capture.read", [handle, PART], expected_bytes=PART)
    return bytes(response.data(response.value["bytes"]))


def _nanoseconds(time: dict[str, int]) -> int:
    return time["seconds"] * _NANOSECONDS + time["nanoseconds"]


def deadline(timeout: float | None) -> float | None:
    """The end of a timeout that begins now, by the monotonic clock."""
    return None if timeout is None else time.monotonic() + timeout
