"""How many bytes of each TCP connection the program has received, so that none is lost with a process of the broker, and none
comes twice (`socket.resume`)."""

from __future__ import annotations

import threading

from .errors import CallInterrupted


class _Reader:
    """A connection that nobody else receives from."""

    __slots__ = ("received", "settled", "attempts", "error")

    def __init__(self) -> None:
        self.received: int | None = 0
        """`None` if it is not known."""
        self.settled: int | None = None
        """The process that knows the position; `None` before the first receive."""
        self.attempts = 0
        """The receives in progress."""
        self.error: CallInterrupted | None = None
        """Why the position was lost, until a receive has raised it."""


class Readers:
    """The connections of a session."""

    def __init__(self) -> None:
        self._known: dict[int, _Reader] = {}
        # A signal handler can receive while its own thread has the lock.
        self._lock = threading.RLock()

    def begin(self, handle: int) -> None:
        """Records a connection from its beginning."""
        self._known.setdefault(handle, _Reader())

    def remove(self, handle: int) -> None:
        """Records that a connection is closed, or that others receive from it."""
        self._known.pop(handle, None)

    def clear(self) -> None:
        """Records that others receive from every connection."""
        self._known.clear()

    def knows(self, handle: int | None) -> bool:
        """Whether it is a connection that nobody else receives from."""
        return handle in self._known

    def add(self, handle: int, received: int) -> None:
        """Adds received bytes."""
        reader = self._known.get(handle)
        if reader is not None:
            with self._lock:
                if reader.received is not None:
                    reader.received += received

    def forget(self, handle: int | None) -> None:
        """Records that the outcome of a receive is not known."""
        reader = self._known.get(handle) if handle is not None else None
        if reader is not None:
            with self._lock:
                reader.received = None

    def begin_attempt(self, handle: int, epoch: int) -> bool:
        """Records that a receive is sent to the process `epoch`, unless the position has to be reported to it first.
        `end_attempt` must follow."""
        reader = self._known.get(handle)
        if reader is None:
            return True
        with self._lock:
            if reader.settled is not None and (reader.settled != epoch or (reader.received is None and not reader.attempts)):
                return False
            reader.settled = epoch
            reader.attempts += 1
            return True

    def end_attempt(self, handle: int) -> None:
        """Records that the response to a receive was read, or that there is none."""
        reader = self._known.get(handle)
        if reader is not None:
            with self._lock:
                reader.attempts = max(reader.attempts - 1, 0)

    def unsettled(self, epoch: int) -> list[int]:
        """The connections whose position the process `epoch` does not know."""
        return [handle for handle, reader in list(self._known.items()) if reader.settled not in (None, epoch)]

    def question(self, handle: int) -> tuple[bool, int | None]:
        """Whether the position can be reported, because no response of an earlier process can have data any more, and how many
        bytes the program has received."""
        reader = self._known.get(handle)
        if reader is None:
            return True, None
        with self._lock:
            return reader.attempts == 0, reader.received

    def settle(self, handle: int, epoch: int, taken: int) -> None:
        """Records that the process `epoch` knows the position."""
        reader = self._known.get(handle)
        if reader is not None:
            with self._lock:
                reader.settled = epoch
                if reader.received is None:
                    reader.received = taken

    def lose(self, handle: int, epoch: int, error: CallInterrupted | None) -> None:
        """Records that bytes are lost or may come twice, and the error that the next receive raises."""
        reader = self._known.get(handle)
        if reader is not None:
            with self._lock:
                reader.settled, reader.received, reader.error = epoch, None, error

    def take_error(self, handle: int) -> CallInterrupted | None:
        """The error that this receive raises."""
        reader = self._known.get(handle)
        if reader is None:
            return None
        with self._lock:
            error, reader.error = reader.error, None
        return error
