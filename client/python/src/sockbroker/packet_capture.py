"""Captures: packets of the broker's machine, in a file of this process."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator

from . import packet_filter
from .capture_file import CaptureFile, PacketReader
from .capture_stream import CaptureInterface, CaptureStats, CaptureStream, deadline
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any
from .pcapng import Packet

if TYPE_CHECKING:
    from typing import Union

    from .capture_stream import Interfaces
    from .client import Client

    Match = Union[str, Callable[[Packet], Any], None]

__all__ = ["Capture", "CaptureInterface", "CaptureStats", "Packet"]

DEFAULT_SECONDS = 5.0
"""How long `expect` waits."""
TEMPORARY_FILE_BYTES = 1 << 30
"""The captured bytes after which a capture ends that has neither `max_bytes` nor a `file`."""


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
        }  # fmt: skip
        self._final: CaptureStats | None = None
        self._stopping, self._expecting = threading.RLock(), threading.RLock()
        self._stream = CaptureStream(client, interface, filter, netns, options)
        self.interfaces = self._stream.interfaces
        """The interfaces that were named."""
        self.started_ns: int = self._stream.started_ns
        """When the capture was live, by the clock of the packets."""
        try:
            path = _temporary() if file is None else os.fspath(file)
            if file is None:
                weakref.finalize(self, _remove, path, os.getpid())
            self._file = CaptureFile(path)
            self._reader = PacketReader(self._file)
            arguments = (self._file, self._stream.reader(), self._stream.socket)
            threading.Thread(target=_write, args=arguments, daemon=True, name="sockbroker-capture").start()
        except BaseException as failure:
            # A signal handler can interrupt the start of the thread, which then closes the stream.
            if self._stream.socket is not None and isinstance(failure, Exception):
                self._stream.socket.close()
            self._stream.release()
            raise

    @property
    def file(self) -> str:
        """The path of the file, which is pcapng and has whole packets at any time."""
        return self._file.path

    def packets(self, timeout: float | None = None) -> Iterator[Packet]:
        """Every packet from the first one on, until the capture has ended.

        With a timeout, the iterator ends also when no packet has come for as many seconds: 0 for those that are there.
        Raises `BrokerError` if the broker ends before the capture.
        """
        self._check_process()
        reader = PacketReader(self._file)
        while (packet := reader.next(deadline(timeout))) is not None:
            yield packet

    def expect(self, match: Match = None, timeout: float | None = DEFAULT_SECONDS) -> Packet:
        """Waits for the next packet that matches an expression of tcpdump, or for which a callable returns true.

        It continues behind the packet that the call before has returned. Raises `TimeoutError`, or `EOFError` if the
        capture ends.
        """
        self._check_process()
        matches = _matcher(match)
        until = deadline(timeout)
        what = f"no packet {'came' if match is None else f'matched {match!r}'}"
        if not self._expecting.acquire(timeout=-1 if timeout is None else max(0, timeout)):
            raise TimeoutError(f"{what} within {timeout} s: another thread expects packets of this capture")
        others, end = 0, None
        try:
            while (packet := self._reader.next(until, end)) is not None:
                if matches(packet):
                    return packet
                others += 1
                if end is None and until is not None and time.monotonic() >= until:
                    end = self._file.size()  # packets can come faster than they are read
            if self._file.ended and end is None:
                raise EOFError(f"{what} before the end of the capture, and {others} others came")
            raise TimeoutError(f"{what} within {timeout} s, and {others} others came")
        finally:
            self._expecting.release()

    def stats(self) -> CaptureStats:
        """The counters so far; those of the end after `stop()`."""
        self._check_process()
        return self._final or self._stream.stats()

    def set_filter(self, filter: str | bytes) -> int:
        """Replaces the filter. Returns a time, in nanoseconds since 1970, after which no packet is of the earlier one."""
        self._check_process()
        after = self._stream.set_filter(filter)
        self.filter = filter
        return after

    def stop(self, linger: float = 0) -> CaptureStats:
        """Ends the capture after as many seconds, and waits until the file has every packet. Returns the counters."""
        self._check_process()
        with self._stopping:
            if self._final is None:
                try:
                    final = self._stream.stop(linger)
                    self._file.wait_for_end()
                    self._final = final
                except OSError:
                    self._stream.release()
                    raise
                # After a signal, or a wrong argument, the capture can be stopped again.
                self._stream.release()
            return self._final

    def _check_process(self) -> None:
        if not self._stream.is_ours():
            raise BrokerError("cannot use this capture: it belongs to the process that opened it")

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self._stream.is_ours():
            return
        try:
            self.stop()
        except OSError:
            if kind is None:
                raise

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is None or not stream.is_open() or not stream.is_ours():
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        stream.release()

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.interfaces) or "all interfaces"
        return f"<sockbroker.Capture of {names}, filter={self.filter!r}>"


def _matcher(match: Match) -> Callable[[Packet], Any]:
    if match is None:
        return lambda packet: True
    if not isinstance(match, str):
        return match
    expression = packet_filter.PacketFilter(match)
    return lambda packet: expression.matches(packet.link_type, packet.data, packet.length)


def _write(file: CaptureFile, read: Callable[[], bytes], stream: Any) -> None:
    """Writes the stream to the file. The thread of a capture, which must not keep the capture alive."""
    try:
        file.write_all(read)
    finally:
        if stream is not None:
            stream.close()


def _temporary() -> str:
    import tempfile  # for captures without a path alone

    descriptor, path = tempfile.mkstemp(prefix="sockbroker-", suffix=".pcapng")
    os.close(descriptor)
    return path


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            os.unlink(path)
