"""AF_VSOCK: addresses and errors. Data needs a host that answers, so none is sent."""

from oracle.scenario import scenario

ANY = 0xFFFFFFFF


@scenario(needs=["vsock"])
def kinds(s, t):
    """The kernel decides which types exist."""
    for kind in (s.SOCK_STREAM, s.SOCK_DGRAM, s.SOCK_SEQPACKET, s.SOCK_RAW):
        t.call(f"socket {int(kind)}", t.socket, s.AF_VSOCK, kind)
    t.call("proto", t.socket, s.AF_VSOCK, s.SOCK_STREAM, 5)


@scenario(needs=["vsock"])
def binding(s, t):
    """A port is chosen or given, and the name is a pair of integers."""
    sock = t.socket(s.AF_VSOCK, s.SOCK_STREAM)
    t.note("before", sock.getsockname())
    t.call("bind", sock.bind, (ANY, 123456))
    t.note("after", sock.getsockname())
    t.call("taken", t.socket(s.AF_VSOCK, s.SOCK_STREAM).bind, (ANY, 123456))
    t.call("again", sock.bind, (ANY, 123457))
    other = t.socket(s.AF_VSOCK, s.SOCK_STREAM)
    other.bind((ANY, ANY))
    t.note("chosen", (other.getsockname()[0], other.getsockname()[1] > 1023))


@scenario(needs=["vsock"])
def foreign_addresses(s, t):
    """An address of another machine cannot be bound."""
    t.call("bind", t.socket(s.AF_VSOCK, s.SOCK_STREAM).bind, (77777, 5000))


@scenario(needs=["vsock"])
def listening(s, t):
    """A listener without visitors."""
    sock = t.socket(s.AF_VSOCK, s.SOCK_STREAM)
    t.call("unbound", sock.listen)
    sock.bind((ANY, ANY))
    t.call("listen", sock.listen)
    sock.settimeout(0)
    t.call("accept", sock.accept)
    sock.settimeout(0.05)
    t.call("accept", sock.accept)


@scenario(needs=["vsock"])
def unconnected(s, t):
    """Transfer needs a connection."""
    sock = t.socket(s.AF_VSOCK, s.SOCK_STREAM)
    t.call("send", sock.send, b"x")
    t.call("recv", sock.recv, 1)
    t.call("peer", sock.getpeername)
    t.call("shutdown", sock.shutdown, s.SHUT_RDWR)
    t.call("accept", sock.accept)


@scenario(needs=["vsock"])
def wide_options(s, t):
    """Options of AF_VSOCK are 64-bit integers, which Python reads and writes."""
    sock = t.socket(s.AF_VSOCK, s.SOCK_STREAM)
    for name in (s.SO_VM_SOCKETS_BUFFER_SIZE, s.SO_VM_SOCKETS_BUFFER_MIN_SIZE, s.SO_VM_SOCKETS_BUFFER_MAX_SIZE):
        t.call(f"get {name}", sock.getsockopt, s.AF_VSOCK, name)
    t.call("set", sock.setsockopt, s.AF_VSOCK, s.SO_VM_SOCKETS_BUFFER_MAX_SIZE, 1 << 33)
    t.call("get", sock.getsockopt, s.AF_VSOCK, s.SO_VM_SOCKETS_BUFFER_MAX_SIZE)
    t.call("bytes", sock.getsockopt, s.AF_VSOCK, s.SO_VM_SOCKETS_BUFFER_MAX_SIZE, 8)
    t.call("unknown", sock.getsockopt, s.AF_VSOCK, 99)
    t.call("level", sock.getsockopt, s.SOL_SOCKET, s.SO_TYPE)


@scenario(needs=["vsock"])
def wrong_addresses(s, t):
    """An address is a pair of integers."""
    for address in ((1,), (1, 2, 3), ("x", 5), (1, "x"), "text", 5, (1, None)):
        t.call(f"bind {address}", t.socket(s.AF_VSOCK, s.SOCK_STREAM).bind, address)


@scenario(needs=["vsock"])
def connecting_to_a_missing_machine(s, t):
    """A non-blocking connect to a machine that does not exist."""
    sock = t.socket(s.AF_VSOCK, s.SOCK_STREAM | s.SOCK_NONBLOCK)
    t.call("connect", sock.connect, (77777, 5000))
    t.call("reserved", t.socket(s.AF_VSOCK, s.SOCK_STREAM | s.SOCK_NONBLOCK).connect, (ANY, 5000))
