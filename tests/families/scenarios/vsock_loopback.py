"""AF_VSOCK on the loopback transport, without a host."""

from oracle.scenario import scenario
from steps import nothing_yet

ANY, LOCAL = 0xFFFFFFFF, 1


def listening(s, t, kind):
    """Returns a listener and the port that the kernel chose."""
    made = t.socket(s.AF_VSOCK, kind)
    made.bind((LOCAL, ANY))
    made.listen(4)
    made.settimeout(120)
    return made, made.getsockname()[1]


def connected(s, t, kind):
    """Returns both ends of a connection."""
    server, port = listening(s, t, kind)
    client = t.socket(s.AF_VSOCK, kind)
    client.settimeout(120)
    client.connect((LOCAL, port))
    session, _ = server.accept()
    session.settimeout(120)
    return client, t.keep(session)


@scenario
def kinds(s, t):
    """SOCK_STREAM and SOCK_SEQPACKET; datagrams need another transport."""
    for kind in (s.SOCK_STREAM, s.SOCK_SEQPACKET, s.SOCK_DGRAM, s.SOCK_RAW):
        t.call(f"type {int(kind)}", t.socket, s.AF_VSOCK, kind)


@scenario
def names(s, t):
    """Both ends report both addresses, which are pairs of integers."""
    for kind in (s.SOCK_STREAM, s.SOCK_SEQPACKET):
        server, port = listening(s, t, kind)
        t.note("chosen", (server.getsockname()[0], port > 1023))
        client = t.socket(s.AF_VSOCK, kind)
        t.call("before", client.getsockname)
        t.call("connect", client.connect, (LOCAL, port))
        session, address = server.accept()
        t.keep(session)
        t.note("accepted", (session, address[0], address == client.getsockname()))
        t.note("client", (client.getpeername()[0], client.getpeername() == session.getsockname()))
        t.note("session", session.getpeername() == client.getsockname())
        t.call("again", client.connect, (LOCAL, port))


@scenario
def streams(s, t):
    """Data in both directions, and the end of each direction."""
    client, session = connected(s, t, s.SOCK_STREAM)
    t.call("sendall", client.sendall, b"x" * 100_000)
    received = b""
    while len(received) < 100_000:
        received += session.recv(65536)
    t.note("whole", len(received))
    t.call("sendmsg", session.sendmsg, [b"some ", b"parts"])
    t.call("peek", client.recv, 4, s.MSG_PEEK)
    t.call("recvmsg", client.recvmsg, 100, 100)
    nothing_yet(t, "nothing yet", client)
    t.call("no more of mine", client.shutdown, s.SHUT_WR)
    t.call("end", session.recv, 10)
    t.call("still yours", session.send, b"last")
    t.call("last", client.recvfrom, 10)
    client.settimeout(None)  # with a timeout CPython waits before it asks the kernel
    t.call("too late", client.send, b"x")
    session.close()
    t.call("closed", client.recv, 10)


@scenario
def records(s, t):
    """Records keep their boundaries; a truncated record is reported as truncated."""
    client, session = connected(s, t, s.SOCK_SEQPACKET)
    t.call("first", client.send, b"first record")
    t.call("second", client.send, b"second", s.MSG_EOR)
    t.call("recvmsg", session.recvmsg, 5)
    t.call("with end", session.recvmsg, 100)
    t.call("third", client.send, b"third")
    t.note("whole length", len(session.recv(2, s.MSG_TRUNC)))
    session.settimeout(0.05)
    t.call("nothing", session.recv, 10)


@scenario
def refusals(s, t):
    """Connecting to an unserved port or a missing machine fails, and so does binding a port in use."""
    server, port = listening(s, t, s.SOCK_STREAM)
    t.call("taken", t.socket(s.AF_VSOCK, s.SOCK_STREAM).bind, (LOCAL, port))
    server.close()
    for address in ((LOCAL, port), (77777, port)):
        client = t.socket(s.AF_VSOCK, s.SOCK_STREAM)
        client.settimeout(120)
        t.call(f"no listener at {address[0]}", client.connect, address)
        t.call("error", client.getsockopt, s.SOL_SOCKET, s.SO_ERROR)
        t.call("connect_ex", client.connect_ex, address)
    t.call("foreign", t.socket(s.AF_VSOCK, s.SOCK_STREAM).bind, (77777, 5000))
    t.call("privileged", t.socket(s.AF_VSOCK, s.SOCK_STREAM).bind, (LOCAL, 80))


@scenario
def waiting(s, t):
    """Timeouts and non-blocking sockets."""
    client, session = connected(s, t, s.SOCK_STREAM)
    session.settimeout(0.05)
    t.call("recv", session.recv, 10)
    session.settimeout(0)
    t.call("at once", session.recv, 10)
    session.settimeout(120)
    receiving = t.start(session.recv, 10)
    t.call("send", client.send, b"wake up")
    t.finish("woken", receiving)


@scenario
def options(s, t):
    """Buffer sizes are 64-bit integers, the connect timeout is a structure."""
    client, _ = connected(s, t, s.SOCK_STREAM)
    for option in (s.SO_VM_SOCKETS_BUFFER_SIZE, s.SO_VM_SOCKETS_BUFFER_MIN_SIZE, s.SO_VM_SOCKETS_BUFFER_MAX_SIZE):
        t.call(f"get {option}", client.getsockopt, s.AF_VSOCK, option)
    t.call("set", client.setsockopt, s.AF_VSOCK, s.SO_VM_SOCKETS_BUFFER_SIZE, 65536)
    t.call("read", client.getsockopt, s.AF_VSOCK, s.SO_VM_SOCKETS_BUFFER_SIZE)
    t.call("connect timeout", client.getsockopt, s.AF_VSOCK, 6, 16)
    t.call("peer", client.getsockopt, s.AF_VSOCK, 3, 4)
