"""The sockets of scapy for interfaces of a broker: they receive by a capture, and send by a packet socket of the broker.

`sockbroker.scapy` makes scapy use them.
"""

from __future__ import annotations

import contextlib
import errno
import select as _select
import threading
import time
from collections import deque

from scapy.config import conf
from scapy.data import DLT_RAW, DLT_RAW_ALT, ETH_P_ALL, MTU
from scapy.error import Scapy_Exception, log_runtime
from scapy.interfaces import network_name, resolve_iface
from scapy.supersocket import SuperSocket
from scapy.utils import EDecimal

from . import native, pcapng
from .capture_stream import PART, CaptureStats, CaptureStream
from .errors import Denied, FilterError
from .hints import Any

_LOOPBACK = 8
"""`IFF_LOOPBACK`."""
_RECEIVER_BYTES, _LISTENER_BYTES = 1 << 20, 8 << 20
"""The rings in the kernel of sockets for answers, and of sockets that only listen: below the default of captures, so that
a program can have several within the limit of its user."""
_LONGEST_WAIT = 0.1
"""How many seconds sockets of layer 3 wait before they look for interfaces by which they have sent meanwhile."""
_WITHOUT_LINK_LAYER = (DLT_RAW, DLT_RAW_ALT)
_AT_ONCE = int(native.module.MSG_DONTWAIT)


class _CaptureSocket(SuperSocket):
    """Receives by a capture, which is live when the socket exists."""

    direction: str | None = None
    ring_bytes = _LISTENER_BYTES
    ins: Any = None
    outs: Any = None
    _stream: CaptureStream | None = None

    def __init__(
        self,
        iface: Any = None,
        type: int = ETH_P_ALL,
        promisc: Any = None,
        filter: str | None = None,
        nofilter: Any = 0,
        monitor: Any = None,
    ) -> None:
        device = resolve_iface(iface or conf.iface)
        source = getattr(device.provider, "source", None)
        if source is None:
            raise Scapy_Exception(f"{device.name} is not an interface of a broker; call sockbroker.scapy.install() first")
        self.iface, self.type, self.filter, self.promisc = device.network_name, type, filter, promisc
        self._device, self._source = device, source
        self._packets: deque[pcapng.Packet] = deque()
        self._decoder, self._rest, self._reason = pcapng.Decoder(), b"", ""
        self._failure: Exception | None = None
        self._last: pcapng.Packet | None = None
        try:
            self._stream = self._open(_expression(type, filter, nofilter), promisc)
        except FilterError as error:
            raise Scapy_Exception(f"Cannot set filter: {error}") from None
        self.ins = self._stream.socket or _fed(self._stream, self._fail)
        self.LL = _layer(self._stream.interfaces[0].link_type)
        self.lvl = 3 if self._stream.interfaces[0].link_type in _WITHOUT_LINK_LAYER else 2

    def _open(self, filter: str, promisc: Any) -> CaptureStream:
        options = {
            "promiscuous": bool(conf.sniff_promisc if promisc is None else promisc), "direction": self.direction,
            "buffer_bytes": max(self.ring_bytes, conf.bufsize),
        }  # fmt: skip
        try:
            return self._source.capture(self._device, filter, options)  # type: ignore[no-any-return]
        except Denied as denied:
            if promisc is not None or not options["promiscuous"]:
                raise
            try:
                stream = self._source.capture(self._device, filter, {**options, "promiscuous": False})
            except Denied:
                raise denied from None
            log_runtime.warning("%s is not in promiscuous mode: %s", self.iface, denied.strerror or denied)
            return stream  # type: ignore[no-any-return]

    def recv_raw(self, x: int = MTU) -> tuple[Any, bytes | None, Any]:
        """The layer, the bytes and the time of the next packet."""
        if self._stream is None or not self._stream.is_ours():
            raise Scapy_Exception("cannot use this socket: it belongs to the process that opened it")
        while not self._packets:
            if self._failure is not None:
                raise self._failure
            self._fill()
        packet = self._last = self._packets.popleft()
        return _layer(packet.link_type), packet.data[:x], EDecimal(packet.time_ns) / 10**9

    def recv(self, x: int = MTU, **kwargs: Any) -> Any:
        """The next packet. Waits for it."""
        made = super().recv(x, **kwargs)
        if made is not None and self._last is not None and self._last.length > len(self._last.data):
            made.wirelen = self._last.length
        return made

    def _fill(self, flags: int = 0) -> None:
        """Decodes what has arrived. Waits for it, unless the flags say otherwise."""
        try:
            data = self.ins.recv(PART, flags)
            blocks = self._rest + data
            at = 0
            while size := pcapng.block_size(blocks, at):
                found: Any = self._decoder.decode(memoryview(blocks)[at : at + size])
                if isinstance(found, pcapng.Packet):
                    self._packets.append(found)
                elif isinstance(found, pcapng.Statistics):
                    self._reason = found.comment
                at += size
            self._rest = blocks[at:]
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._fail(error)
            return
        if not data:
            reason = self._reason or "the broker has closed the stream"
            self._fail(OSError(errno.ENETDOWN, f"the capture of {self.iface} has ended: {reason}"))

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure

    def has_packet(self) -> bool:
        """Whether `recv` returns at once, with a packet or an exception."""
        return bool(self._packets) or self._failure is not None

    def receivers(self) -> list[_CaptureSocket]:
        """The sockets that receive for this one."""
        return [self]

    def stats(self) -> CaptureStats:
        """The packets that were captured and dropped so far."""
        if self._stream is None:
            raise Scapy_Exception("the socket has no capture")
        return self._stream.stats()

    def close(self) -> None:
        """Ends the capture. Packets that were dropped are reported in the log of scapy."""
        if self.closed:
            return
        self.closed = True
        stream = self._stream
        if self.outs is not None:
            self.outs.close()
        if stream is None:
            return
        if self.ins is not None:
            self.ins.close()  # a capture without a reader ends at once
        if stream.is_ours():
            with contextlib.suppress(OSError):
                final = stream.stop()
                if final.dropped:
                    log_runtime.warning("%d packets of %s were dropped", final.dropped, self.iface)
        stream.release()

    @staticmethod
    def select(sockets: list[Any], remain: float | None = None) -> list[Any]:
        """The sockets that have a packet. Waits for one, at most as many seconds."""
        until = None if remain is None else time.monotonic() + remain
        ours = [one for socket in sockets if isinstance(socket, _CaptureSocket) for one in socket.receivers()]
        others = [socket for socket in sockets if not isinstance(socket, _CaptureSocket)]
        while True:
            # A closed one is ready for the exception that `recv` raises.
            ready: list[Any] = [socket for socket in ours if socket.closed or socket.has_packet()]
            left = 0 if ready else None if until is None else max(0, until - time.monotonic())
            if any(isinstance(socket, L3Socket) for socket in sockets):
                # Another thread can send by a further interface, whose answers the next wait is for.
                left = _LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT)
                ours = [one for socket in sockets if isinstance(socket, _CaptureSocket) for one in socket.receivers()]
            arrived = _readable([*ours, *others], left)
            ready += [socket for socket in others if socket in arrived]
            for socket in ours:
                if socket in arrived and socket not in ready:
                    socket._fill(_AT_ONCE)
                    if socket.has_packet():
                        ready.append(socket)
            if ready or (until is not None and time.monotonic() >= until):
                return ready


class L2ListenSocket(_CaptureSocket):
    """Receives what the interface receives and sends."""

    desc = "read packets at layer 2 by a capture of sockbroker"

    def send(self, x: Any) -> int:
        raise Scapy_Exception("Can't send anything with L2ListenSocket")


class L2Socket(_CaptureSocket):
    """Receives what the interface receives, and sends."""

    desc = "read/write packets at layer 2 by sockbroker"
    direction = "in"
    ring_bytes = _RECEIVER_BYTES

    def _sender(self) -> Any:
        """The packet socket, which the first packet needs."""
        if self.outs is None:
            self.outs = self._source.sender(self._device)
        return self.outs

    def _send(self, data: bytes) -> int:
        sender = self._sender()
        try:
            return int(sender.send(data))
        except OSError as error:
            if error.errno != errno.EINVAL or len(data) >= conf.min_pkt_size:
                raise
            return int(sender.send(data.ljust(conf.min_pkt_size, b"\0")))

    def send(self, x: Any) -> int:
        """Sends a packet."""
        data = bytes(x)
        _mark_as_sent(x)
        return self._send(data)


class L3Socket(L2Socket):
    """The same without the header of the link layer. Routes select the interface for each packet."""

    desc = "read/write packets at layer 3 by sockbroker"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._others: dict[str, L3Socket] = {}
        super().__init__(*args, **kwargs)

    def recv(self, x: int = MTU, **kwargs: Any) -> Any:
        """The next packet, without the header of the link layer."""
        made = super().recv(x, **kwargs)
        if made is None or self._last is None or self._last.link_type in _WITHOUT_LINK_LAYER:
            return made
        made.payload.time = made.time
        return made.payload

    def send(self, x: Any) -> int:
        """Sends a packet by the interface of its route."""
        name = network_name(x.route()[0] or conf.iface)
        if name == self.iface:
            return self._send_here(x)
        if name not in self._others:
            self._others[name] = L3Socket(iface=name, type=self.type, filter=self.filter, promisc=self.promisc)
        return self._others[name]._send_here(x)

    def _send_here(self, x: Any) -> int:
        # The kernel has no other way for what is not IP.
        if self._device.flags & _LOOPBACK and getattr(x, "version", None) in (4, 6):
            return self._send_by_kernel(x)
        data = bytes(x) if self.lvl == 3 else bytes(self.LL() / x)
        _mark_as_sent(x)
        try:
            return self._send(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE or not conf.auto_fragment or not hasattr(x, "fragment"):
                raise
            return sum(self._send(bytes(part) if self.lvl == 3 else bytes(self.LL() / part)) for part in x.fragment())

    def _send_by_kernel(self, x: Any) -> int:
        """Sends by a raw IP socket: the kernel does not answer frames that appear on the loopback."""
        if self.outs is None:
            self.outs = self._source.raw_ip(6 if x.version == 6 else 4)
        data = bytes(x)
        _mark_as_sent(x)
        return int(self.outs.sendto(data, (x.dst, 0)))

    def receivers(self) -> list[_CaptureSocket]:
        return [self, *self._others.values()]

    def close(self) -> None:
        for other in self.__dict__.get("_others", {}).values():
            other.close()
        super().close()


def _expression(type: int, filter: str | None, nofilter: Any) -> str:
    """The filter of a socket: that of the program, without what `conf.except_filter` excludes."""
    parts = [f"({filter})"] if filter else []
    if not nofilter and conf.except_filter:
        parts.append(f"not ({conf.except_filter})")
    if type != ETH_P_ALL:
        parts.insert(0, f"ether proto {type}")
    return filter if filter and len(parts) == 1 else " and ".join(parts)


def _layer(link_type: int) -> Any:
    return conf.l2types[link_type] if link_type in conf.l2types else conf.raw_layer


def _mark_as_sent(x: Any) -> None:
    with contextlib.suppress(AttributeError):
        x.sent_time = time.time()


def _readable(sockets: list[Any], seconds: float | None) -> list[Any]:
    poll = _select.poll()
    numbers = {}
    for socket in sockets:
        number = socket.fileno()
        if number >= 0:
            numbers[number] = socket
            poll.register(number, _select.POLLIN)
    return [numbers[number] for number, _ in poll.poll(None if seconds is None else seconds * 1000)]


def _fed(stream: CaptureStream, fail: Any) -> Any:
    """A socket with the stream, which calls return because no descriptor of it can be passed. A thread makes the calls."""
    ours, theirs = native.module.socketpair()
    read = stream.reader()

    def feed() -> None:
        try:
            while part := read():
                theirs.sendall(part)
        except BrokenPipeError:
            pass  # this program has closed the socket
        except Exception as error:
            fail(error)
        finally:
            theirs.close()

    threading.Thread(target=feed, daemon=True, name="sockbroker-scapy").start()
    return ours
