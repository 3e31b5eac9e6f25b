"""The file of a capture, which a thread writes, and from which packets are read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

from . import pcapng
from .errors import BrokerError
from .hints import Any
from .pcapng import Packet, Statistics

_PART = 1 << 18


class CaptureFile:
    """A pcapng file that grows by whole blocks until the capture has ended."""

    def __init__(self, path: str) -> None:
        """Creates the file, or empties it."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._grown = threading.Condition()
        self.ended = False
        self.failure: Exception | None = None
        """Why the stream ended, if this is not the end of the capture."""

    def write_all(self, read: Callable[[], bytes]) -> None:
        """Writes the parts that `read` returns, until it returns none."""
        rest = b""
        try:
            while part := read():
                part = rest + part
                whole = pcapng.whole_blocks(part)
                rest = part[whole:]
                self._write(memoryview(part)[:whole])
        except Exception as failure:
            self.failure = failure
        finally:
            with self._grown:
                self.ended = True
                self._grown.notify_all()

    def _write(self, blocks: memoryview) -> None:
        written = 0
        while written < len(blocks):
            written += os.pwrite(self._descriptor, blocks[written:], self._size + written)
        with self._grown:
            self._size += written
            self._grown.notify_all()

    def size(self) -> int:
        """The bytes that are written."""
        return self._size

    def wait_for_end(self) -> None:
        """Waits until everything is written. Raises what has prevented it."""
        with self._grown:
            while not self.ended:
                self._grown.wait()
        if self.failure is not None:
            raise self.failure

    def wait_beyond(self, size: int, deadline: float | None) -> bool:
        """Waits until the file is longer. Returns `False` at the end of the capture or the deadline."""
        with self._grown:
            while self._size <= size and not self.ended:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._grown.wait(left)
            return self._size > size

    def read(self, at: int) -> bytes:
        """Reads whole blocks from this place; nothing if there are none yet."""
        size = min(_PART, self._size - at)
        data = os.pread(self._descriptor, size, at)
        whole = pcapng.whole_blocks(data)
        if not whole and data:
            data = os.pread(self._descriptor, min(pcapng.MAX_BLOCK_BYTES, self._size - at), at)
            whole = pcapng.whole_blocks(data)
        return data[:whole]

    def __del__(self) -> None:
        """Closes the file, which the thread that writes uses until the capture has ended."""
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class PacketReader:
    """Reads the packets of a file in their order. One thread uses it at a time."""

    def __init__(self, file: CaptureFile) -> None:
        self._file = file
        self._decoder = pcapng.Decoder()
        self._place = 0
        self._found: Iterator[Packet] = iter(())
        self.statistics: Statistics | None = None
        """The latest counters."""

    def next(self, deadline: float | None, end: int | None = None) -> Packet | None:
        """The next packet; `None` at the end of the capture, at this place of the file, or at the deadline.

        Raises what has ended the stream if this was not the end of the capture.
        """
        while True:
            for packet in self._found:
                return packet
            if end is not None and self._place >= end:
                return None
            if not self._file.wait_beyond(self._place, deadline):
                if self._file.failure is not None:
                    raise self._file.failure
                if self._file.ended and self._place >= self._file.size() and not self._decoder.is_whole():
                    raise BrokerError(
                        "the capture has ended without its last block: the broker or the process that reads captures has "
                        "ended, or the stream was cut"
                    )
                return None
            blocks = self._file.read(self._place)
            if not blocks:
                raise ValueError(f"the capture file {self._file.path} was changed while the capture used it")
            self._found, self._place = self._packets(blocks), self._place + len(blocks)

    def _packets(self, blocks: bytes) -> Iterator[Packet]:
        at = 0
        view = memoryview(blocks)
        while size := pcapng.block_size(view, at):
            found: Any = self._decoder.decode(view[at : at + size])
            at += size
            if isinstance(found, Packet):
                yield found
            elif isinstance(found, Statistics):
                self.statistics = found
