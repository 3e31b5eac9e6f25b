"""Captures: packets of the broker's machine, in a file of this process."""

from __future__ import annotations

import binascii
import contextlib
import os
import threading
import time
import warnings
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterator

from . import creation, native, packet_filter
from .capture_file import CaptureFile, PacketReader
from .errors import ArgumentError, BrokerError
from .hints import TYPE_CHECKING, Any
from .pcapng import Packet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    from .client import Client
    from .jsonrpc import Response
    from .session import Session

    Interfaces = Union[str, Sequence[str], None]
    Match = Union[str, Callable[[Packet], Any], None]

__all__ = ["Capture", "CaptureInterface", "CaptureStats", "Packet"]

DEFAULT_SECONDS = 5.0
"""How long `expect` waits."""
TEMPORARY_FILE_BYTES = 1 << 30
"""The captured bytes after which a capture ends that has neither `max_bytes` nor a `file`."""
_PART = 1 << 18
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
    """Why the capture has ended: `stopped`, `limit`, `interface`, `policy`, `unread` or `failed`; `None` while it runs."""
    complete: bool | None
    """Whether the file of a capture that has ended has all its packets."""


class Capture:
    """A capture, which is live from its creation until `stop()` or the end of its context.

    A thread writes the packets to a file, so that none is lost while the program does something else. Packets and file
    are there until this object is garbage-collected. The methods can be called from any thread.
    """

    def __init__(
        self,
        client: Client,
        interface: Interfaces = None,
        filter: str | bytes = "",
        *,
        netns: str | int | None = None,
        snaplen: int | None = None,
        promiscuous: bool = False,
        direction: str | None = None,
        duplicates: bool = False,
        mode: str | None = None,
        buffer_bytes: int | None = None,
        max_packets: int | None = None,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        """`None` or `any` captures packets of all interfaces, also of those that appear later.

        `netns` is the network namespace of the interfaces, by default that of new sockets: a name, or the descriptor of
        one that this user has made. `direction` is `in`, `out` or
        `both`. `mode` is `live`, or `bulk`, which costs less and delays packets by up to 10 ms. The capture ends by
        itself after `max_packets`, `max_bytes` or `max_seconds`. `file` is the path of the file, which then stays; by
        default, it is temporary, and `max_bytes` is 1 GiB.
        """
        self.filter = filter
        if file is None and max_bytes is None:
            max_bytes = TEMPORARY_FILE_BYTES
        options = {
            "snaplen": snaplen, "promiscuous": promiscuous or None, "direction": direction, "duplicates": duplicates or None,
            "mode": mode, "buffer_bytes": buffer_bytes, "packets": max_packets, "bytes": max_bytes, "seconds": max_seconds,
            "filter_text": filter if isinstance(filter, str) and filter else None,
        }  # fmt: skip
        compiled, program = _compiled(filter)
        params: dict[str, Any] = {
            "interfaces": _names(interface),
            "filter": program,
            "options": {name: value for name, value in options.items() if value is not None},
            "want_fd": client.wants_descriptors,
        }
        netns = client.settings.netns if netns is None else netns
        passed = [netns] if isinstance(netns, int) else []
        if netns is not None:
            params["netns"] = creation.PASSED if isinstance(netns, int) else netns
        self._process = os.getpid()
        self._final: CaptureStats | None = None
        self._stopping, self._expecting = threading.RLock(), threading.RLock()
        session, response = _checked(
            lambda: client.call("capture.open", params, _discard, takes_descriptors=True, descriptors=passed)
        )
        opened = response.value
        self._session, self._handle = session, opened["handle"]
        session.captures += 1
        self._stream: Any = None
        try:
            self.interfaces = [
                CaptureInterface(one["index"], one["name"], one["link_type"]) for one in opened["interfaces"]
            ]
            """The interfaces that were named."""
            self.started_ns: int = _nanoseconds(opened["started"])
            """When the capture was live, by the clock of the packets."""
            if compiled is not None:
                for one in self.interfaces:
                    compiled.check(one.link_type)
            if opened["fd"]:
                self._stream = _stream(response)
            self._file = CaptureFile(_temporary() if file is None else os.fspath(file))
            if file is None:
                weakref.finalize(self, _remove, self._file.path, self._process)
            self._reader = PacketReader(self._file)
            self._start()
        except BaseException:
            self._release()
            raise

    def _start(self) -> None:
        stream, session, handle = self._stream, self._session, self._handle
        if stream is not None:
            arguments = (self._file, lambda: stream.recv(_PART), stream.close)
        else:
            arguments = (self._file, lambda: _read(session, handle), lambda: None)
        threading.Thread(target=_write, args=arguments, daemon=True, name="sockbroker-capture").start()

    @property
    def file(self) -> str:
        """The path of the file, which is pcapng and has whole packets at any time."""
        return self._file.path

    def packets(self, timeout: float | None = None) -> Iterator[Packet]:
        """Every packet from the first one on, until the capture has ended.

        With a timeout, the iterator ends also when no packet has come for as many seconds: 0 for those that are there.
        """
        self._check_process()
        reader = PacketReader(self._file)
        while (packet := reader.next(_deadline(timeout))) is not None:
            yield packet

    def expect(self, match: Match = None, timeout: float | None = DEFAULT_SECONDS) -> Packet:
        """Waits for the next packet that matches an expression of tcpdump, or for which a callable returns true.

        It continues behind the packet that the call before has returned. Raises `TimeoutError`, or `EOFError` if the
        capture ends.
        """
        self._check_process()
        matches = _matcher(match)
        deadline = _deadline(timeout)
        others = 0
        with self._expecting:
            while (packet := self._reader.next(deadline)) is not None:
                if matches(packet):
                    return packet
                others += 1
            what = f"no packet {'came' if match is None else f'matched {match!r}'}"
            if self._file.ended:
                raise EOFError(f"{what} before the end of the capture, and {others} others came")
            raise TimeoutError(f"{what} within {timeout} s, and {others} others came")

    def stats(self) -> CaptureStats:
        """The counters so far; those of the end after `stop()`."""
        self._check_process()
        return self._final or self._counters("capture.stats", [self._handle])

    def set_filter(self, filter: str | bytes) -> int:
        """Replaces the filter. Returns a time, in nanoseconds since 1970, after which no packet is of the earlier one."""
        self._check_process()
        compiled, program = _compiled(filter)
        if compiled is not None:
            for one in self.interfaces:
                compiled.check(one.link_type)
        response = _checked(lambda: self._session.call("capture.set_filter", [self._handle, program]))
        self.filter = filter
        return _nanoseconds(response.value["after"])

    def stop(self, linger: float = 0) -> CaptureStats:
        """Ends the capture after as many seconds, and waits until the file has every packet. Returns the counters."""
        self._check_process()
        with self._stopping:
            if self._final is None:
                try:
                    final = self._counters("capture.stop", [self._handle, linger])
                    self._file.wait_for_end()
                    self._final = final
                finally:
                    self._release()
            return self._final

    def _counters(self, method: str, params: list[Any]) -> CaptureStats:
        value = _checked(lambda: self._session.call(method, params)).value
        return CaptureStats(*(value[name] for name in CaptureStats._fields))

    def _release(self) -> None:
        """Ends the capture and closes the handle. Does nothing the second time."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        self._session.captures -= 1
        if self._stream is not None and not hasattr(self, "_file"):
            self._stream.close()
        if not self._session.ended:
            with contextlib.suppress(OSError):
                if self._final is None:  # the limits count it until it has stopped
                    self._session.call("capture.stop", [handle])
                self._session.call("capture.close", [handle])

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise BrokerError("cannot use this capture: it belongs to the process that opened it")

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if os.getpid() != self._process:
            return
        try:
            self.stop()
        except OSError:
            if kind is None:
                raise

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is None or os.getpid() != self._process:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self._release()

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.interfaces) or "all interfaces"
        return f"<sockbroker.Capture of {names}, filter={self.filter!r}>"


def _names(interface: Interfaces) -> list[str] | None:
    if interface is None or interface == "any":
        return None
    names = [interface] if isinstance(interface, str) else [*interface]
    if not names:
        raise ValueError("no interface is named: use None for all interfaces")
    return names


def _compiled(filter: str | bytes) -> tuple[packet_filter.CaptureFilter | None, str | None]:
    """The filter, unless it is a program already, and the program in base64."""
    if not filter:
        return None, None
    compiled = packet_filter.CaptureFilter(filter) if isinstance(filter, str) else None
    program = filter if isinstance(filter, bytes) else compiled.program if compiled is not None else b""
    return compiled, binascii.b2a_base64(program, newline=False).decode()


def _matcher(match: Match) -> Callable[[Packet], Any]:
    if match is None:
        return lambda packet: True
    if not isinstance(match, str):
        return match
    expression = packet_filter.PacketFilter(match)
    return lambda packet: expression.matches(packet.link_type, packet.data, packet.length)


def _checked(call: Callable[[], Any]) -> Any:
    """The result of a call. A refused argument is the exception that the broker names."""
    try:
        return call()
    except ArgumentError as error:
        raise error.exception from None


def _discard(session: Session, response: Response) -> None:
    """Closes the capture that an interrupted call has opened."""
    session.call("capture.close", [response.value["handle"]])


def _stream(response: Response) -> Any:
    """The client's end of the stream, which its thread reads."""
    if response.missing:
        import errno  # for this failure alone

        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    stream = native.Socket(fileno=response.take_descriptor())
    stream.settimeout(None)
    return stream


def _read(session: Session, handle: int) -> bytes:
    response = session.call("capture.read", [handle, _PART], expected_bytes=_PART)
    return bytes(response.data(response.value["bytes"]))


def _write(file: CaptureFile, read: Callable[[], bytes], close: Callable[[], None]) -> None:
    """Writes the stream to the file. The thread of a capture, which must not keep the capture alive."""
    try:
        file.write_all(read)
    finally:
        close()


def _temporary() -> str:
    import tempfile  # for captures without a path alone

    descriptor, path = tempfile.mkstemp(prefix="sockbroker-", suffix=".pcapng")
    os.close(descriptor)
    return path


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _nanoseconds(time: dict[str, int]) -> int:
    return time["seconds"] * _NANOSECONDS + time["nanoseconds"]


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
