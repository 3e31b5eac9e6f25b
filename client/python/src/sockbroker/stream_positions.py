"""How many bytes each TCP stream has sent: as the program knows it, and as the kernel counts it."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .call_kinds import ACCEPT, CLOSE, CONNECT, CREATE, RECEIVE, SEND, CallFacts
from .hints import Any
from .readers import Readers

_INFO_BYTES = 136
_COUNTS = struct.Struct("=B119xQQ")  # tcpi_state, tcpi_bytes_acked and tcpi_bytes_received of linux/tcp.h
_FIN_SENT = (4, 5, 6, 9, 11)  # states of net/tcp_states.h
_CLOSE = 7
_READINGS = 100
_INET = (2, 10)
_STREAM, _TCP = 1, 6


def is_tcp(made: Any) -> bool:
    """Whether a socket, as the broker describes it, is of TCP."""
    return made["family"] in _INET and made["type"] == _STREAM and made["proto"] in (0, _TCP)


def position(ask: Callable[[str, list[Any]], Any], handle: int) -> tuple[int, bool] | None:
    """What the kernel counts as sent, and whether the socket is closed, so that it can be one more. `ask` calls the broker.
    `None` if it moves all the time."""

    def info() -> tuple[int, int, int]:
        data = ask("socket.getsockopt", [handle, "IPPROTO_TCP", "TCP_INFO", _INFO_BYTES])
        return _COUNTS.unpack_from(data)

    before = info()
    for _ in range(_READINGS):
        unsent = ask("socket.ioctl", [handle, "SIOCOUTQ"])
        state, acked, _ = after = info()
        if after == before:
            return acked + unsent - (state in _FIN_SENT), state == _CLOSE
        before = after
    return None


class _Stream:
    """A stream whose position was known when it was made."""

    __slots__ = ("base", "sent", "sends", "sending", "found", "epoch")

    def __init__(self, base: int) -> None:
        self.base = base
        """What the kernel counted as sent before the first byte: the SYN of a connecting socket."""
        self.sent = self.sends = self.sending = 0
        self.epoch = -1
        self.found = (0, False)


class StreamPositions:
    """The streams of a session that outlives processes of the broker, and the timeouts of its sockets."""

    def __init__(self) -> None:
        self._known: dict[int, _Stream] = {}
        self.readers = Readers()
        self.timeouts: dict[int, float | None] = {}

    def begin(self, facts: CallFacts) -> None:
        """Records that a call begins. `end` or `abandon` must follow."""
        if facts.method == "session.clone":
            self._known.clear()  # another process has the same streams
            self.readers.clear()
        handle = facts.handle
        if handle is None:
            return
        if facts.is_special or facts.method in ("socket.fileno", "socket.dup", "socket.detach"):
            self._known.pop(handle, None)
            self.readers.remove(handle)
        if facts.kind == CONNECT:
            self.readers.begin(handle)
            if handle not in self._known:
                self._known[handle] = _Stream(1)
        stream = self._known.get(handle)
        if facts.kind == SEND and stream is not None:
            stream.sends += 1
            stream.sending += facts.length

    def end(self, facts: CallFacts, value: Any, sent: int | None = None) -> None:
        """Records the end of a call with its result, or with an error after `sent` bytes."""
        if sent is None and facts.kind in (CREATE, ACCEPT):
            for made in value if isinstance(value, list) else [value]:
                self.timeouts[made["handle"]] = made["timeout"]
                base = {"socket.create_connection": 1, "socket.accept": 0}.get(facts.method)
                if base is not None and is_tcp(made):
                    self._known[made["handle"]] = _Stream(base)
                    self.readers.remove(made["handle"])
                    self.readers.begin(made["handle"])
        if facts.handle is None:
            return
        if facts.kind == CLOSE:
            self._known.pop(facts.handle, None)
            self.timeouts.pop(facts.handle, None)
            self.readers.remove(facts.handle)
        if facts.kind == RECEIVE and sent is None and not facts.peeks:
            self.readers.add(facts.handle, value["n"] - facts.counted)
        stream = self._known.get(facts.handle)
        if stream is None:
            return
        if facts.kind == SEND:
            rest = facts.length - facts.skipped
            stream.sends -= 1
            stream.sending -= max(rest - facts.counted, 0)
            if sent is None:
                sent = (rest if value is None else value) - facts.counted
            stream.sent += max(sent, 0)

    def abandon(self, facts: CallFacts, error: BaseException) -> None:
        """Records that the outcome of a call remains unknown. After an error of a receive, the next process finds it out."""
        if facts.kind == SEND:
            self.forget(facts.handle)
        elif facts.kind == RECEIVE and not isinstance(error, OSError):
            self.readers.forget(facts.handle)  # data may be delivered without a call

    def forget(self, handle: int | None) -> None:
        """Forgets the position of a stream, which others can use from now on."""
        if handle is not None:
            self._known.pop(handle, None)

    def share(self, handle: int | None) -> None:
        """Forgets a stream that others receive from."""
        self.forget(handle)
        if handle is not None:
            self.readers.remove(handle)

    def find(self, ask: Callable[[str, list[Any]], Any], handle: int, epoch: int) -> bool | None:
        """Finds out the position after a change to the process `epoch`. Returns whether it was not known before; `None` if
        the stream is not one of known position."""
        stream = self._known.get(handle)
        if stream is None or stream.epoch == epoch:
            return None if stream is None else False
        found = position(ask, handle)
        if found is None:
            self.forget(handle)
            return None
        stream.found, stream.epoch = found, epoch
        return True

    def sent(self, handle: int, length: int) -> int | None:
        """How many of the last `length` bytes of the send in progress were sent; `None` if others send too."""
        stream = self._known[handle]
        more = stream.found[0] - stream.base - stream.sent
        if stream.found[1]:
            more = min(more, stream.sending)
        if not 0 <= more <= stream.sending or stream.sends != 1:
            self.forget(handle)
            return None
        share = min(more, length)
        self.add_sent(handle, share)
        return share

    def add_sent(self, handle: int | None, sent: int) -> None:
        """Records bytes that a repeated call does not send again."""
        stream = self._known.get(handle) if handle is not None else None
        if stream is not None:
            stream.sent += sent
            stream.sending -= sent
