"""AF_RDS on the loopback device: reliable datagrams with AF_INET addresses."""

import struct

from oracle.scenario import scenario
from steps import nothing_yet

HOST = "127.0.0.1"


def bound(s, t):
    """Returns a socket with a port that the kernel chose."""
    made = t.socket(s.AF_RDS, s.SOCK_SEQPACKET)
    made.settimeout(120)
    made.bind((HOST, 0))
    return made


@scenario
def names(s, t):
    """An address is a host and a port, as in AF_INET."""
    for kind in (s.SOCK_SEQPACKET, s.SOCK_DGRAM, s.SOCK_STREAM):
        t.call(f"type {int(kind)}", t.socket, s.AF_RDS, kind)
    sock = t.socket(s.AF_RDS, s.SOCK_SEQPACKET)
    t.call("before", sock.getsockname)
    t.call("peer", sock.getpeername)
    t.call("by name", sock.bind, ("localhost", 0))
    t.note("after", (sock.getsockname()[0], sock.getsockname()[1] > 0, "chosen"))
    t.call("taken", t.socket(s.AF_RDS, s.SOCK_SEQPACKET).bind, sock.getsockname())
    for address in (("192.0.2.1", 0), ("", 0), (HOST,), (HOST, "1"), (HOST, 70000), (HOST, -1), (None, 1), HOST, (b"127.0.0.1", 0)):
        t.call(f"bind {address!r}", t.socket(s.AF_RDS, s.SOCK_SEQPACKET).bind, address)


@scenario
def datagrams(s, t):
    """Datagrams from port to port, with and without a connection."""
    here, there = bound(s, t), bound(s, t)
    t.call("sendto", here.sendto, b"question", there.getsockname())
    data, sender = there.recvfrom(100)
    t.note("recvfrom", (data, sender == here.getsockname(), "message"))
    t.call("answer", there.sendto, b"answer", sender)
    data, control, flags, sender = here.recvmsg(3, 100)
    t.note("recvmsg", (data, control, flags, sender == there.getsockname(), "message"))
    t.call("connect", here.connect, there.getsockname())
    t.note("peer", here.getpeername() == there.getsockname())
    t.call("sendmsg", here.sendmsg, [b"in ", b"parts"])
    t.call("peek", there.recv, 2, s.MSG_PEEK)
    t.call("recv", there.recv, 100)
    nothing_yet(t, "nothing", there)
    t.call("unbound", t.socket(s.AF_RDS, s.SOCK_SEQPACKET).sendto, b"x", there.getsockname())


@scenario
def options(s, t):
    """Options for queued errors and for cancelling messages."""
    sock = bound(s, t)
    level, cancel, errors, transport = 276, 1, 5, 8
    t.call("errors", sock.getsockopt, level, errors)
    t.call("set", sock.setsockopt, level, errors, 1)
    t.call("read", sock.getsockopt, level, errors)
    t.call("transport", sock.getsockopt, level, transport)
    t.call("cancel", sock.setsockopt, level, cancel, struct.pack("=HH4s8x", s.AF_INET, 0, b"\x7f\0\0\1"))
    t.call("timestamps", sock.setsockopt, s.SOL_SOCKET, 29, 1)
