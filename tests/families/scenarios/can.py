"""AF_CAN: raw frames, filters and the broadcast manager, on a virtual bus."""

import struct

from oracle.scenario import scenario
from steps import nothing_yet

BUS = ("vcan0",)
SFF_MASK = 0x7FF


def frame(number, data):
    """Encodes a `struct can_frame`."""
    return struct.pack("=IB3x8s", number, len(data), data.ljust(8, b"\0"))


def raw(s, t, address=BUS):
    """Returns a bound raw socket with a timeout of five seconds."""
    made = t.socket(s.AF_CAN, s.SOCK_RAW, s.CAN_RAW)
    made.bind(address)
    made.settimeout(120)
    return made


@scenario
def kinds(s, t):
    """Types and protocols of the family, and the attributes of their sockets."""
    for kind, proto in ((s.SOCK_RAW, s.CAN_RAW), (s.SOCK_DGRAM, s.CAN_BCM), (s.SOCK_DGRAM, s.CAN_ISOTP),
                        (s.SOCK_DGRAM, s.CAN_J1939)):
        sock = t.socket(s.AF_CAN, kind, proto)
        t.note(f"made {proto}", sock)
        t.call(f"domain {proto}", sock.getsockopt, s.SOL_SOCKET, s.SO_DOMAIN)
        t.call(f"protocol {proto}", sock.getsockopt, s.SOL_SOCKET, s.SO_PROTOCOL)
    for kind, proto in ((s.SOCK_STREAM, s.CAN_RAW), (s.SOCK_DGRAM, s.CAN_RAW), (s.SOCK_RAW, 99)):
        t.call(f"no {int(kind)} {proto}", t.socket, s.AF_CAN, kind, proto)


@scenario
def names(s, t):
    """An address is an interface name; the empty name means all interfaces."""
    sock = t.socket(s.AF_CAN, s.SOCK_RAW, s.CAN_RAW)
    t.call("before", sock.getsockname)
    t.call("bind", sock.bind, BUS)
    t.call("after", sock.getsockname)
    t.call("peer", sock.getpeername)
    t.call("again", sock.bind, ("",))
    t.call("every", sock.getsockname)
    t.call("not CAN", sock.bind, ("lo",))
    t.call("connect", sock.connect, BUS)
    t.call("listen", sock.listen)
    t.call("shutdown", sock.shutdown, s.SHUT_RDWR)


@scenario
def wrong_names(s, t):
    """Invalid interface names are refused."""
    for address in (("vcan77",), ("v" * 16,), (b"vcan0",), (5,), (None,), (), ("vcan0", 1), "vcan0", 5, ("a\0b",)):
        t.call(f"bind {address!r}", t.socket(s.AF_CAN, s.SOCK_RAW, s.CAN_RAW).bind, address)


@scenario
def frames(s, t):
    """Every other socket of the bus receives a frame; its address is the sender's interface."""
    here, there, everywhere = raw(s, t), raw(s, t), raw(s, t, ("",))
    t.call("send", here.send, frame(0x123, b"abc"))
    t.call("recvfrom", there.recvfrom, 64)
    t.call("everywhere", everywhere.recvfrom, 64)
    t.call("sendto", everywhere.sendto, frame(0x80000456, b""), BUS)
    t.call("recv", there.recv, 64)
    t.call("short", here.send, b"abc")
    t.call("nowhere", everywhere.send, frame(1, b""))
    t.call("sendmsg", here.sendmsg, [frame(7, b"x")[:5], frame(7, b"x")[5:]])
    buffer = bytearray(16)
    t.call("recvfrom_into", there.recvfrom_into, buffer)
    t.note("buffer", buffer)
    nothing_yet(t, "not my own", here)
    nothing_yet(t, "empty", there)


@scenario
def messages(s, t):
    """`recvmsg` reports whether a frame is from this host and this socket."""
    here, there = raw(s, t), raw(s, t)
    here.setsockopt(s.SOL_CAN_RAW, s.CAN_RAW_RECV_OWN_MSGS, 1)
    there.setsockopt(s.SOL_SOCKET, s.SO_TIMESTAMP if hasattr(s, "SO_TIMESTAMP") else 29, 1)
    here.send(frame(5, b"12345678"))
    t.call("own", here.recvmsg, 64, 128)
    data, control, flags, address = there.recvmsg(64, 128)
    t.note("other", (data, [item[:2] for item in control], flags, address, "message"))
    here.send(frame(6, b""))
    t.call("truncated", there.recvmsg, 4)


@scenario
def filters(s, t):
    """Filters select frames; they are read as they were set."""
    here, there = raw(s, t), raw(s, t)
    wanted = struct.pack("=IIII", 0x200, SFF_MASK, 0x300, SFF_MASK)
    t.call("default", there.getsockopt, s.SOL_CAN_RAW, s.CAN_RAW_FILTER, 64)
    t.call("set", there.setsockopt, s.SOL_CAN_RAW, s.CAN_RAW_FILTER, wanted)
    t.call("get", there.getsockopt, s.SOL_CAN_RAW, s.CAN_RAW_FILTER, 64)
    t.call("odd", there.setsockopt, s.SOL_CAN_RAW, s.CAN_RAW_FILTER, wanted[:7])
    for number in (0x100, 0x200, 0x300):
        here.send(frame(number, b"x"))
    t.call("first", there.recv, 16)
    t.call("second", there.recv, 16)
    nothing_yet(t, "no third", there)
    t.call("none", there.setsockopt, s.SOL_CAN_RAW, s.CAN_RAW_FILTER, b"")
    here.send(frame(0x200, b""))
    nothing_yet(t, "nothing", there)


@scenario
def options(s, t):
    """Every option of the level, as a number and as bytes."""
    sock = raw(s, t)
    for option in (s.CAN_RAW_LOOPBACK, s.CAN_RAW_RECV_OWN_MSGS, s.CAN_RAW_FD_FRAMES, s.CAN_RAW_JOIN_FILTERS):
        t.call(f"get {option}", sock.getsockopt, s.SOL_CAN_RAW, option)
        t.call(f"set {option}", sock.setsockopt, s.SOL_CAN_RAW, option, 1)
        t.call(f"set {option} to 0", sock.setsockopt, s.SOL_CAN_RAW, option, struct.pack("i", 0))
        t.call(f"get bytes {option}", sock.getsockopt, s.SOL_CAN_RAW, option, 4)
    t.call("error filter", sock.setsockopt, s.SOL_CAN_RAW, 2, struct.pack("I", 0x1FFFFFFF))
    t.call("read", sock.getsockopt, s.SOL_CAN_RAW, 2, 4)


@scenario
def long_frames(s, t):
    """CAN FD frames, if the socket accepts them."""
    here, there = raw(s, t), raw(s, t)
    long = struct.pack("=IBB2x64s", 0x321, 64, 1, bytes(range(64)))
    t.call("not yet", here.send, long)
    for sock in (here, there):
        t.call("take", sock.setsockopt, s.SOL_CAN_RAW, s.CAN_RAW_FD_FRAMES, 1)
    t.call("send", here.send, long)
    t.call("recvfrom", there.recvfrom, 128)


@scenario
def timeouts(s, t):
    """A receive without a frame times out."""
    sock = raw(s, t)
    sock.settimeout(0.05)
    t.call("recv", sock.recv, 16)
    sock.settimeout(0)
    t.call("recv at once", sock.recvfrom, 16)


def head(opcode, flags, count, number, frames=1, ival=0):
    """Encodes a `struct bcm_msg_head`, with intervals in microseconds."""
    return struct.pack("@3I4l2I0q", opcode, flags, count, 0, 0, 0, ival, number, frames)


@scenario
def broadcast_manager_sends(s, t):
    """The broadcast manager sends once, and a number of times in a cycle."""
    there = raw(s, t)
    manager = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_BCM)
    t.call("before", manager.getsockname)
    t.call("not connected", manager.send, head(s.CAN_BCM_TX_SEND, 0, 0, 0) + frame(0x111, b"one"))
    t.call("connect", manager.connect, BUS)
    t.call("name", manager.getsockname)
    t.call("peer", manager.getpeername)
    t.call("send", manager.send, head(s.CAN_BCM_TX_SEND, 0, 0, 0) + frame(0x111, b"one"))
    t.call("one", there.recvfrom, 16)
    flags = s.CAN_BCM_SETTIMER | s.CAN_BCM_STARTTIMER
    t.call("cycle", manager.send, head(s.CAN_BCM_TX_SETUP, flags, 0, 0x222, 1, 20000) + frame(0x222, b"two"))
    t.note("cycle", [there.recv(16) for _ in range(3)])
    t.call("stop", manager.send, head(s.CAN_BCM_TX_DELETE, 0, 0, 0x222, 0))
    t.call("stop again", manager.send, head(s.CAN_BCM_TX_DELETE, 0, 0, 0x222, 0))


@scenario
def broadcast_manager_receives(s, t):
    """The broadcast manager reports only changed contents, with the interface as the address."""
    here = raw(s, t)
    manager = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_BCM)
    manager.settimeout(120)
    manager.connect(BUS)
    mask = frame(0x333, b"\xff")
    t.call("subscribe", manager.send, head(s.CAN_BCM_RX_SETUP, 0, 0, 0x333) + mask)
    for data in (b"a", b"a", b"b"):
        here.send(frame(0x333, data))
    for _ in range(2):
        data, address = manager.recvfrom(256)
        t.note("changed", (struct.unpack_from("@I", data)[0], data[-16:], address))
    nothing_yet(t, "no more", manager)
