"""AF_QIPCRTR on one node."""

from oracle.scenario import scenario


def router(s, t):
    """Returns a socket and the address that the kernel chose."""
    made = t.socket(s.AF_QIPCRTR, s.SOCK_DGRAM)
    made.settimeout(120)
    made.bind((made.getsockname()[0], 0))
    return made, made.getsockname()


def shape(address):
    """Returns the node, and whether the port is public."""
    return (address[0], 0x4000 <= address[1] < 0x8000, "address")


@scenario
def names(s, t):
    """The kernel sets the node; the port is chosen or given."""
    for kind in (s.SOCK_DGRAM, s.SOCK_STREAM, s.SOCK_SEQPACKET):
        t.call(f"type {int(kind)}", t.socket, s.AF_QIPCRTR, kind)
    sock = t.socket(s.AF_QIPCRTR, s.SOCK_DGRAM)
    node, port = sock.getsockname()
    t.note("before", (node, port))
    t.call("peer", sock.getpeername)
    t.call("bind", sock.bind, (node, 0x4123))
    t.call("after", sock.getsockname)
    t.call("taken", t.socket(s.AF_QIPCRTR, s.SOCK_DGRAM).bind, (node, 0x4123))
    t.call("again", sock.bind, (node, 0x4124))
    t.note("chosen", shape(router(s, t)[1]))
    for address in ((123, 123), (node,), (node, 1, 2), ("1", 1), (node, "1"), (-1, 0), (node, 1 << 32), "1", None):
        t.call(f"bind {address!r}", t.socket(s.AF_QIPCRTR, s.SOCK_DGRAM).bind, address)


@scenario
def datagrams(s, t):
    """A datagram from one port to another reports its sender."""
    (here, mine), (there, yours) = router(s, t), router(s, t)
    t.call("sendto", here.sendto, b"question", yours)
    data, sender = there.recvfrom(100)
    t.note("recvfrom", (data, sender == mine, "message"))
    t.call("answer", there.sendto, b"", sender)
    t.call("empty", here.recv, 100)
    t.call("connect", here.connect, yours)
    t.note("peer", here.getpeername() == yours)
    t.call("sendmsg", here.sendmsg, [b"in ", b"parts"])
    data, control, flags, sender = there.recvmsg(4, 100)
    t.note("recvmsg", (data, control, flags, sender == mine, "message"))
    t.call("no receiver", there.sendto, b"lost", (yours[0], 0x7FF0))
    there.settimeout(0.05)
    t.call("nothing", there.recv, 10)
    t.call("without address", there.send, b"x")
