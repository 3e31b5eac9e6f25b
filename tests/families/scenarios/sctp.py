"""SCTP: stream sockets with one association, and sockets with many associations."""

import struct

from oracle.scenario import scenario

HOST = "127.0.0.1"
LEVEL = 132
RTOINFO, ASSOCINFO, INITMSG, NODELAY, EVENTS = 0, 1, 2, 3, 11


def listening(s, t, kind, family, host):
    """Returns a listening socket and its address."""
    made = t.socket(family, kind, s.IPPROTO_SCTP)
    made.settimeout(120)
    made.bind((host, 0))
    made.listen(4)
    return made, made.getsockname()


@scenario
def streams(s, t):
    """A stream socket behaves like TCP, except for message boundaries."""
    for family, host in ((s.AF_INET, HOST), (s.AF_INET6, "::1")):
        server, address = listening(s, t, s.SOCK_STREAM, family, host)
        client = t.socket(family, s.SOCK_STREAM, s.IPPROTO_SCTP)
        client.settimeout(120)
        t.note("made", client)
        t.call("connect", client.connect, address)
        session, peer = server.accept()
        t.keep(session)
        session.settimeout(120)
        t.note("accepted", (session, peer == client.getsockname(), "session"))
        t.note("peer", client.getpeername() == session.getsockname())
        t.call("send", client.send, b"first")
        t.call("second", client.send, b"second")
        t.call("recvmsg", session.recvmsg, 100, 100)
        t.call("part", session.recvmsg, 3)
        t.call("rest", session.recv, 100)
        t.call("sendmsg", session.sendmsg, [b"ans", b"wer"])
        t.call("recvfrom", client.recv, 100)
        t.call("shutdown", client.shutdown, s.SHUT_WR)
        t.call("end", session.recv, 10)


@scenario
def many_associations(s, t):
    """A SOCK_SEQPACKET socket has many associations and no peer."""
    server, address = listening(s, t, s.SOCK_SEQPACKET, s.AF_INET, HOST)
    client = t.socket(s.AF_INET, s.SOCK_SEQPACKET, s.IPPROTO_SCTP)
    client.settimeout(120)
    t.call("sendto", client.sendto, b"question", address)
    data, sender = server.recvfrom(100)
    t.note("recvfrom", (data, sender == ("127.0.0.1", client.getsockname()[1]), "message"))
    t.call("answer", server.sendto, b"answer", sender)
    data, control, flags, sender = client.recvmsg(100, 100)
    t.note("recvmsg", (data, control, flags, sender == address, "message"))
    t.call("peer", client.getpeername)
    server.settimeout(None)  # with a timeout CPython waits before it asks the kernel
    t.call("accept", server.accept)


@scenario
def ancillary_data(s, t):
    """A message has a stream number and a protocol identifier."""
    server, address = listening(s, t, s.SOCK_SEQPACKET, s.AF_INET, HOST)
    t.call("events", server.setsockopt, LEVEL, EVENTS, b"\1")
    client = t.socket(s.AF_INET, s.SOCK_SEQPACKET, s.IPPROTO_SCTP)
    info = struct.pack("=HHH2xIIIIIi", 3, 0, 0, 0xABCD, 0, 0, 0, 0, 0)
    t.call("sendmsg", client.sendmsg, [b"data"], [(LEVEL, 1, info)], 0, address)
    data, control, flags, sender = server.recvmsg(100, 200)
    level, kind, found = control[0]
    t.note("recvmsg", (data, flags, level, kind, len(found), struct.unpack_from("=H4x2xI", found)))


@scenario
def options(s, t):
    """Options that are numbers and structures."""
    sock = t.socket(s.AF_INET, s.SOCK_STREAM, s.IPPROTO_SCTP)
    t.call("no delay", sock.setsockopt, LEVEL, NODELAY, 1)
    t.call("read", sock.getsockopt, LEVEL, NODELAY)
    # They begin with an association number from the caller.
    t.note("timers", sock.getsockopt(LEVEL, RTOINFO, 16)[4:])
    t.note("association", sock.getsockopt(LEVEL, ASSOCINFO, 20)[4:])
    t.call("streams", sock.getsockopt, LEVEL, INITMSG, 8)
    t.call("set streams", sock.setsockopt, LEVEL, INITMSG, struct.pack("HHHH", 5, 6, 3, 0))
    t.call("read streams", sock.getsockopt, LEVEL, INITMSG, 8)


@scenario
def refusals(s, t):
    """Connecting to an unserved port fails."""
    server, address = listening(s, t, s.SOCK_STREAM, s.AF_INET, HOST)
    server.close()
    client = t.socket(s.AF_INET, s.SOCK_STREAM, s.IPPROTO_SCTP)
    client.settimeout(120)
    t.call("connect", client.connect, address)
    client.settimeout(None)
    t.call("send", client.send, b"x")
    t.call("datagrams", t.socket, s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_SCTP)
