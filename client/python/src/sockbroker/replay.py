"""Replays: the packets of a capture file on an interface of the broker's machine."""

from __future__ import annotations

import errno
import math
import os
import time
from collections import namedtuple
from typing import BinaryIO

from . import creation
from .capture_parts import Divider
from .errors import ArgumentError
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Union

    from .client import Client
    from .session import Session

    CaptureFile = Union[str, os.PathLike[str], BinaryIO]

__all__ = ["ReplayFailure", "ReplayResult", "replay"]

_FAILURES_MAX = 16
_LEAD = 0.02
"""How long before it is due a part is passed to the broker, which waits for the rest exactly."""
_PACKET, _RAW = 17, 3
"""`AF_PACKET` and `SOCK_RAW` on Linux."""


class ReplayFailure(namedtuple("ReplayFailure", ("packet", "reason", "errno"))):
    """A packet that the interface cannot send."""

    __slots__ = ()
    packet: int
    """Its number in the file, from 1; it goes on with the next loop."""
    reason: str
    errno: int | None
    """The error of the kernel, if that refused it."""


class ReplayResult(namedtuple("ReplayResult", ("packets", "bytes", "failed", "failures", "seconds"))):
    """What a replay has sent."""

    __slots__ = ()
    packets: int
    """Packets that were sent."""
    bytes: int
    failed: int
    """Packets that cannot be sent."""
    failures: list[ReplayFailure]
    """The first 16 of them."""
    seconds: float


def replay(
    client: Client,
    file: CaptureFile,
    interface: str,
    *,
    speed: float = 1.0,
    pps: float | None = None,
    loop: int = 1,
    limit: int | None = None,
    truncated: bool = False,
    netns: str | int | None = None,
) -> ReplayResult:
    """Sends the packets of a file, pcapng or pcap, and returns when all are sent.

    `file` is a path or a binary file object. `speed` is the factor of the file's own timing; 0 sends without waiting.
    `pps` is a number of packets a second, in place of it. `loop` sends the file again, `limit` ends after as many
    packets. Packets that the file has only in part fail, unless `truncated` sends them as they are. `netns` is the
    network namespace of the interface, as for captures.

    Raises `Denied` if the policy does not grant `inject`, `OSError` if the interface does not exist or goes down, and
    `ValueError` for wrong arguments and for a malformed file, after the packets before. An exception of a signal
    handler, such as `KeyboardInterrupt`, ends it at once.
    """
    if loop < 1 or (limit is not None and limit < 1):
        raise ValueError("loop and limit must be positive")
    options: dict[str, Any] = {"truncated": truncated}
    options.update({"speed": speed} if pps is None else {"packets_per_second": pps})
    if pps is not None and not 0 < pps < math.inf:
        raise ValueError("pps must be positive and finite")
    if not 0 <= speed < math.inf:
        raise ValueError("speed must be finite and not negative")
    is_path = isinstance(file, (str, os.PathLike))
    opened: BinaryIO = open(file, "rb") if is_path else file  # type: ignore[arg-type,assignment]
    try:
        session, handle = _socket(client, interface, netns)
        try:
            divider = Divider(None if pps else speed, pps, limit)
            run = _Run(session, handle, options, paced=bool(pps or speed))
            for number in range(loop):
                if number:
                    opened.seek(0)
                for part in divider.parts(opened):
                    run.send(part)
                if divider.is_done:
                    break
            return run.result()
        finally:
            if not session.ended:
                session.call("socket.close", [handle])
    finally:
        if is_path:
            opened.close()


class _Run:
    """A running replay."""

    def __init__(self, session: Session, handle: int, options: dict[str, Any], paced: bool) -> None:
        self._session, self._handle, self._options, self._paced = session, handle, options, paced
        self._start: float | None = None
        self._packets = self._bytes = self._failed = 0
        self._failures: list[ReplayFailure] = []

    def send(self, part: Any) -> None:
        """Sends a part when it is due."""
        if self._start is None:
            self._start = time.monotonic()
        left = part.due - (time.monotonic() - self._start) - _LEAD
        if left > 0:
            time.sleep(left)
        delay = part.due - (time.monotonic() - self._start) if self._paced else 0.0
        options = {**self._options, "delay": delay, "first": part.first}
        params = {"handle": self._handle, "bytes": {"attachment": 0}, "options": options}
        value = _checked(self._session, "capture.replay", params, attachments=[part.data]).value
        self._packets += value["packets"]
        self._bytes += value["bytes"]
        self._failed += value["failed"]
        for failure in value["failures"][: _FAILURES_MAX - len(self._failures)]:
            self._failures.append(_failure(failure))
        if (stopped := value["stopped"]) is not None:
            number, reason, code = _failure(stopped)
            raise OSError(code or errno.EIO, f"packet {number}: {reason}")

    def result(self) -> ReplayResult:
        seconds = 0.0 if self._start is None else time.monotonic() - self._start
        return ReplayResult(self._packets, self._bytes, self._failed, self._failures, seconds)


def _failure(value: dict[str, Any]) -> ReplayFailure:
    return ReplayFailure(value["packet"], value["reason"], value["error"].get("errno"))


def _socket(client: Client, interface: str, netns: str | int | None) -> tuple[Session, int]:
    """A packet socket that sends on the interface and receives nothing: its session and its handle."""
    params: dict[str, Any] = {"family": _PACKET, "type": _RAW, "proto": 0, "timeout": None}
    netns = client.settings.netns if netns is None else netns
    if netns is not None:
        params["netns"] = creation.PASSED if isinstance(netns, int) else netns
    passed = [netns] if isinstance(netns, int) else []
    session, response = client.call("socket.socket", params, creation.discard, descriptors=passed)
    handle: int = response.value["handle"]
    try:
        _checked(session, "socket.bind", [handle, [interface, 0]])
    except BaseException:
        session.call("socket.close", [handle])
        raise
    return session, handle


def _checked(session: Session, method: str, params: Any, **parts: Any) -> Any:
    """The result of a call. A refused argument is the exception that the broker names."""
    try:
        return session.call(method, params, **parts)
    except ArgumentError as error:
        raise error.exception from None
