"""AF_PACKET on loopback and on a virtual Ethernet: cooked and raw, addresses, auxiliary data, filters."""

import struct

from oracle import world
from oracle.common import arrived, udp
from oracle.scenario import scenario

ALL, IP, OURS = 3, 0x0800, 0x88B5  # the last one is for local experiments
SOL_PACKET, ADD_MEMBERSHIP, DROP_MEMBERSHIP, STATISTICS, AUXDATA, VERSION = 263, 1, 2, 6, 8, 10
PROMISCUOUS, MULTICAST = 1, 0
LEFT, RIGHT = world.VETH


def network(number):
    """A protocol number in network order, as `socket()` wants it."""
    return struct.unpack("=H", struct.pack("!H", number))[0]


def packets(s, t, interface, proto=OURS, kind=None):
    """A packet socket bound to an interface."""
    made = t.socket(s.AF_PACKET, s.SOCK_RAW if kind is None else kind, 0)
    made.bind((interface, proto))
    return made


def hardware(sock):
    """The hardware address of the interface a socket is bound to."""
    return sock.getsockname()[4]


@scenario(needs=["packet"])
def unbound(s, t):
    """Without an interface the name has none, and the protocol is the one of `socket()`."""
    for kind in (s.SOCK_RAW, s.SOCK_DGRAM):
        for proto in (0, network(ALL), network(IP)):
            sock = t.socket(s.AF_PACKET, kind, proto)
            t.note("name", sock.getsockname())
            t.note("kind", sock)
    t.call("stream", t.socket, s.AF_PACKET, s.SOCK_STREAM, 0)
    t.call("peer", t.socket(s.AF_PACKET, s.SOCK_RAW).getpeername)


@scenario(needs=["packet"])
def bound_to_loopback(s, t):
    """The address has interface, protocol, hardware type and hardware address."""
    sock = packets(s, t, "lo")
    t.note("name", sock.getsockname())
    t.call("other protocol", sock.bind, ("lo", IP))
    t.note("name", sock.getsockname())


@scenario(needs=["packet"])
def forms_of_the_address(s, t):
    """Two to five items; the interface must exist and its name be short enough."""
    for address in (("lo", OURS), ("lo", OURS, 0), ("lo", OURS, 0, 1), ("lo", OURS, 0, 1, b"\1\2\3\4\5\6"),
                    ("lo", OURS, 4, 65535, b"12345678")):
        t.call(f"bind {len(address)}", t.socket(s.AF_PACKET, s.SOCK_RAW).bind, address)
    for address in (("nowhere", OURS), ("", OURS), ("a-very-long-name-of-an-interface", OURS)):
        t.call(f"bind {address}", t.socket(s.AF_PACKET, s.SOCK_RAW).bind, address)


@scenario(needs=["packet"])
def wrong_addresses(s, t):
    """Items of the wrong kind or out of range are refused before the kernel."""
    for address in (("lo",), ("lo", OURS, 0, 0, b"", 0), ("lo", 65536), ("lo", -1), ("lo", "x"), (5, OURS),
                    ("lo", OURS, "x"), ("lo", OURS, 0, 0, b"123456789"), ("lo", OURS, 0, 0, 5), "lo"):
        t.call(f"bind {address}", t.socket(s.AF_PACKET, s.SOCK_RAW).bind, address)


@scenario(needs=["packet"])
def cooked_capture(s, t):
    """A cooked socket sees a UDP datagram on loopback without its Ethernet head."""
    receiver = packets(s, t, "lo", IP, s.SOCK_DGRAM)
    here, there = udp(s, t), udp(s, t)
    here.sendto(b"captured", there.getsockname())
    data, sender = receiver.recvfrom(2000)
    t.note("version", data[0] >> 4)
    t.note("payload", data[28:])
    t.note("sender", sender)


@scenario(needs=["packet"])
def raw_capture(s, t):
    """A raw socket sees the whole frame."""
    receiver = packets(s, t, "lo", IP)
    here, there = udp(s, t), udp(s, t)
    here.sendto(b"captured", there.getsockname())
    data, sender = receiver.recvfrom(2000)
    t.note("head", data[:14])
    t.note("payload", data[42:])
    t.note("sender", sender)


@scenario(needs=["packet"])
def every_protocol(s, t):
    """ETH_P_ALL sees leaving and arriving packets."""
    receiver = packets(s, t, "lo", ALL, s.SOCK_DGRAM)
    udp(s, t).sendto(b"x", udp(s, t).getsockname())
    t.note("types", [receiver.recvfrom(2000)[1][2] for _ in range(2)])
    t.call("no more", receiver.recvfrom, 2000, s.MSG_DONTWAIT)


@scenario(needs=["packet"])
def outgoing_ignored(s, t):
    """PACKET_IGNORE_OUTGOING leaves the arriving ones."""
    receiver = packets(s, t, "lo", ALL, s.SOCK_DGRAM)
    t.call("ignore", receiver.setsockopt, SOL_PACKET, 23, 1)
    udp(s, t).sendto(b"x", udp(s, t).getsockname())
    t.note("type", receiver.recvfrom(2000)[1][2])
    t.call("no more", receiver.recvfrom, 2000, s.MSG_DONTWAIT)


@scenario(needs=["packet"])
def truncated_packets(s, t):
    """A packet that does not fit is cut; MSG_TRUNC gives its length."""
    receiver = packets(s, t, "lo", IP, s.SOCK_DGRAM)
    udp(s, t).sendto(b"0123456789", udp(s, t).getsockname())
    t.note("length", len(receiver.recv(4, s.MSG_PEEK | s.MSG_TRUNC)))
    data, control, flags, _ = receiver.recvmsg(4)
    t.note("cut", (len(data), control, flags))


@scenario(needs=["packet"])
def auxiliary_data(s, t):
    """PACKET_AUXDATA reports the length on the wire in ancillary data."""
    receiver = packets(s, t, "lo", IP, s.SOCK_DGRAM)
    t.call("on", receiver.setsockopt, SOL_PACKET, AUXDATA, 1)
    udp(s, t).sendto(b"0123456789", udp(s, t).getsockname())
    data, control, flags, _ = receiver.recvmsg(2000, 100)
    t.note("items", [(level, kind, len(item)) for level, kind, item in control])
    t.note("lengths", struct.unpack_from("III", control[0][2])[1:])
    t.note("flags", (len(data), flags))


@scenario(needs=["packet"])
def statistics(s, t):
    """PACKET_STATISTICS counts and starts again."""
    receiver = packets(s, t, "lo", ALL)
    udp(s, t).sendto(b"x", udp(s, t).getsockname())
    t.note("counts", struct.unpack("II", receiver.getsockopt(SOL_PACKET, STATISTICS, 8)))
    t.note("again", struct.unpack("II", receiver.getsockopt(SOL_PACKET, STATISTICS, 8)))


@scenario(needs=["packet"])
def memberships(s, t):
    """Promiscuous mode is switched by a membership; what was not joined cannot be left."""
    sock = packets(s, t, "lo")
    request = struct.pack("iHH8s", 1, PROMISCUOUS, 0, b"")
    t.call("join", sock.setsockopt, SOL_PACKET, ADD_MEMBERSHIP, request)
    t.call("leave", sock.setsockopt, SOL_PACKET, DROP_MEMBERSHIP, request)
    t.call("leave again", sock.setsockopt, SOL_PACKET, DROP_MEMBERSHIP, request)
    t.call("no interface", sock.setsockopt, SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8s", 999, 1, 0, b""))
    t.call("short", sock.setsockopt, SOL_PACKET, ADD_MEMBERSHIP, b"1234")


@scenario(needs=["packet", "veth"])
def promiscuity(s, t):
    """The interface is promiscuous as long as the membership lasts."""
    sock, index = packets(s, t, LEFT), s.if_nametoindex(LEFT)
    t.note("before", times_promiscuous(s, t, index))
    sock.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8s", index, PROMISCUOUS, 0, b""))
    t.note("joined", times_promiscuous(s, t, index))
    sock.close()
    t.note("after", times_promiscuous(s, t, index))


def times_promiscuous(s, t, index):
    """IFLA_PROMISCUITY of an interface, by rtnetlink."""
    sock = t.socket(s.AF_NETLINK, s.SOCK_RAW, 0)
    sock.send(struct.pack("IHHII", 32, 18, 1, 1, 0) + struct.pack("BxHiII", 0, 0, index, 0, 0))
    data, offset = sock.recv(1 << 16), 32
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("HH", data, offset)
        if kind == 30:
            return struct.unpack_from("I", data, offset + 4)[0]
        offset += (length + 3) & ~3
    return None


@scenario(needs=["packet", "veth"])
def frames_over_a_link(s, t):
    """A raw frame arrives at the other end, with the sender's address."""
    left, right = packets(s, t, LEFT), packets(s, t, RIGHT)
    frame = hardware(right) + hardware(left) + struct.pack("!H", OURS) + b"payload"
    t.note("sent", left.send(frame))
    data, sender = right.recvfrom(2000)
    t.note("frame", data == frame)
    t.note("sender", (sender[0], sender[2:4], sender[4] == hardware(left)))


@scenario(needs=["packet", "veth"])
def cooked_over_a_link(s, t):
    """A cooked socket gets its Ethernet head from the address."""
    left, right = (packets(s, t, name, OURS, s.SOCK_DGRAM) for name in (LEFT, RIGHT))
    t.note("sent", left.sendto(b"cooked", (LEFT, OURS, 0, 0, hardware(right))))
    data, sender = right.recvfrom(2000)
    t.note("data", data)
    t.note("sender", (sender[0], sender[2:4], sender[4] == hardware(left)))
    t.note("broadcast", left.sendto(b"to all", (LEFT, OURS, 0, 0, b"\xff" * 6)))
    t.note("type", right.recvfrom(2000)[1][2])
    t.note("other host", left.sendto(b"elsewhere", (LEFT, OURS, 0, 0, b"\2\0\0\0\0\1")))
    t.note("type", right.recvfrom(2000)[1][2])


@scenario(needs=["packet", "veth"])
def send_errors(s, t):
    """Too short frames, too long frames and missing interfaces return the kernel's errors."""
    left = packets(s, t, LEFT)
    t.call("too short", left.send, b"x")
    t.call("too long", left.send, bytes(3000))
    unbound_socket = t.socket(s.AF_PACKET, s.SOCK_RAW, 0)
    t.call("no interface", unbound_socket.send, bytes(64))
    t.call("nowhere", unbound_socket.sendto, bytes(64), ("nowhere", OURS))
    t.call("connect", left.connect, (LEFT, OURS))
    t.call("listen", left.listen)


@scenario(needs=["packet", "veth"])
def a_filter_chooses(s, t):
    """A classic filter passes accepted packets, truncated to the length that it returns."""
    left, right = packets(s, t, LEFT), packets(s, t, RIGHT)
    head = hardware(right) + hardware(left) + struct.pack("!H", OURS)
    load = struct.pack("HBBI", 0x30, 0, 0, 14)
    program = load + struct.pack("HBBI", 0x15, 0, 1, ord("a")) + struct.pack("HBBI", 6, 0, 0, 16) + bytes([6]) + bytes(7)
    t.call("attach", s.attach_filter, right, program)
    for payload in (b"bcd" + bytes(50), b"abc" + bytes(50)):
        left.send(head + payload)
    arrived(s, right)
    t.note("frame", right.recv(2000)[14:])
    t.call("no more", right.recv, 2000, s.MSG_DONTWAIT)
    t.call("detach", s.detach_filter, right)
    left.send(head + b"bcd" + bytes(50))
    t.note("length", len(right.recv(2000)))


@scenario(needs=["packet"])
def packet_options(s, t):
    """Options of packet sockets keep what is set, or fail."""
    sock = packets(s, t, "lo")
    for name in (VERSION, AUXDATA, 9, 15, 17, 20, 99):
        t.call(f"before {name}", sock.getsockopt, SOL_PACKET, name)
        t.call(f"set {name}", sock.setsockopt, SOL_PACKET, name, 1)
        t.call(f"after {name}", sock.getsockopt, SOL_PACKET, name)
