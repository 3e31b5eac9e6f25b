"""AF_TIPC on one node: services, ports, streams and the topology server."""

import itertools
import os
import struct

from oracle.scenario import scenario
from steps import nothing_yet

_TYPES = itertools.count(100_000 + (os.getpid() % 1000) * 1000)
"""Service types. A name belongs to the node, so none is used twice."""


def service(s):
    """Returns a type, and the range of its instances as an address."""
    kind = 4711 + next(_TYPES)
    return kind, (s.TIPC_ADDR_NAMESEQ, kind, 10, 19, s.TIPC_NODE_SCOPE)


def shape(s, address):
    """Returns an address without the numbers that the kernel chose."""
    if isinstance(address, tuple) and len(address) == 5 and address[0] == s.TIPC_ADDR_ID:
        return ("id", address[1], address[2] > 0, *address[3:])
    return address


def known(control):
    """Returns ancillary data without the service type: level, type, instances."""
    return [(level, kind, data[4:]) for level, kind, data in control]


def serving(s, t, kind):
    """Returns a socket that is bound to a service, and the address of one instance."""
    made = t.socket(s.AF_TIPC, kind)
    number, whole = service(s)
    made.bind(whole)
    made.settimeout(120)
    return made, (s.TIPC_ADDR_NAME, number, 12, 0)


@scenario
def kinds(s, t):
    """Every type of the family."""
    for kind in (s.SOCK_RDM, s.SOCK_DGRAM, s.SOCK_SEQPACKET, s.SOCK_STREAM):
        sock = t.socket(s.AF_TIPC, kind)
        t.note(f"type {int(kind)}", sock)
        t.call(f"domain {int(kind)}", sock.getsockopt, s.SOL_SOCKET, s.SO_DOMAIN)
    t.call("raw", t.socket, s.AF_TIPC, s.SOCK_RAW)
    t.call("protocol", t.socket, s.AF_TIPC, s.SOCK_STREAM, 5)


@scenario
def names(s, t):
    """A new socket has an identity; binding adds services."""
    sock = t.socket(s.AF_TIPC, s.SOCK_RDM)
    t.note("name", shape(s, sock.getsockname()))
    t.call("peer", sock.getpeername)
    number, whole = service(s)
    t.call("range", sock.bind, whole)
    t.call("one more", sock.bind, (s.TIPC_ADDR_NAME, number, 99, 0))
    t.call("without scope", sock.bind, (s.TIPC_ADDR_NAMESEQ, number, 200, 201))
    t.call("withdraw", sock.bind, (s.TIPC_ADDR_NAMESEQ, number, 10, 19, -s.TIPC_NODE_SCOPE))
    t.call("upside down", sock.bind, (s.TIPC_ADDR_NAMESEQ, number, 9, 8))
    t.call("reserved", sock.bind, (s.TIPC_ADDR_NAMESEQ, 1, 0, 0))
    t.call("identity", sock.bind, (s.TIPC_ADDR_ID, 1, 2, 0))
    t.note("name again", shape(s, sock.getsockname()))


@scenario
def wrong_names(s, t):
    """Invalid addresses are refused."""
    for address in ((1, 2, 3), (1, 2, 3, 4, 5, 6), (9, 1, 2, 3), ("1", 1, 2, 3), (1, "x", 2, 3), "name", 5, (1, 2, 3, 4, 500),
                    (1, 70000, 1 << 33, -1), (1, 70000, 5, 5, -500), (None, 1, 2, 3)):
        t.call(f"bind {address!r}", t.socket(s.AF_TIPC, s.SOCK_RDM).bind, address)


@scenario
def datagrams(s, t):
    """A datagram to a service name is answered to the sender's identity."""
    for kind in (s.SOCK_RDM, s.SOCK_DGRAM):
        server, name = serving(s, t, kind)
        client = t.socket(s.AF_TIPC, kind)
        client.settimeout(120)
        t.call("sendto", client.sendto, b"question", name)
        data, sender = server.recvfrom(100)
        t.note("question", (data, shape(s, sender), sender[:4] == client.getsockname()[:4]))
        t.call("answer", server.sendto, b"answer", sender)
        t.call("recv", client.recv, 100)
        t.call("sendmsg", client.sendmsg, [b"in ", b"parts"], [], 0, name)
        data, control, flags, sender = server.recvmsg(100, 100)
        t.note("recvmsg", (data, known(control), flags, shape(s, sender), "message"))
        t.call("connect", client.connect, name)
        t.call("peer", client.getpeername)
        t.call("send", client.send, b"connected")
        t.call("recv", server.recv, 100)
        t.call("too long", client.send, bytes(70000))


@scenario
def rejected_messages(s, t):
    """An undelivered message is returned on request."""
    client = t.socket(s.AF_TIPC, s.SOCK_RDM)
    client.settimeout(120)
    number, _ = service(s)
    t.call("get", client.getsockopt, s.SOL_TIPC, s.TIPC_DEST_DROPPABLE)
    t.call("set", client.setsockopt, s.SOL_TIPC, s.TIPC_DEST_DROPPABLE, 0)
    t.call("no receiver", client.sendto, b"lost", (s.TIPC_ADDR_NAME, number, 1, 0))
    gone = t.socket(s.AF_TIPC, s.SOCK_RDM)
    address = gone.getsockname()
    gone.close()
    t.call("to the dead", client.sendto, b"returned", address)
    data, control, flags, sender = client.recvmsg(100, 200)
    t.note("back", (data, control, flags, shape(s, sender), "message"))


@scenario
def streams(s, t):
    """Connect, accept, both addresses, data and end."""
    for kind in (s.SOCK_STREAM, s.SOCK_SEQPACKET):
        server, name = serving(s, t, kind)
        t.call("listen", server.listen, 5)
        client = t.socket(s.AF_TIPC, kind)
        client.settimeout(120)
        connecting = t.start(client.connect, name)
        session, address = server.accept()
        t.keep(session)
        session.settimeout(120)
        t.finish("connect", connecting)
        t.note("accepted", (session, shape(s, address), address[:4] == client.getsockname()[:4], "session"))
        t.note("names", [shape(s, end()) for end in (client.getsockname, client.getpeername, session.getpeername)])
        t.note("peers", client.getpeername()[:4] == session.getsockname()[:4])
        t.call("send", client.send, b"first")
        t.call("send more", client.sendall, b"second")
        t.note("received", session.recv(5) + session.recv(100))
        t.call("back", session.sendmsg, [b"an", b"swer"])
        data, control, flags, sender = client.recvmsg(100, 100)
        t.note("recvmsg", (data, known(control), flags, shape(s, sender), "message"))
        nothing_yet(t, "nothing yet", client)
        t.call("shutdown", session.shutdown, s.SHUT_RDWR)
        t.call("end", client.recv, 10)
        t.call("no more", client.send, b"late")


@scenario
def connections_that_fail(s, t):
    """Connecting fails without a service, and without a listener."""
    number, _ = service(s)
    for kind in (s.SOCK_STREAM, s.SOCK_SEQPACKET):
        client = t.socket(s.AF_TIPC, kind)
        client.settimeout(120)
        t.call("no receiver", client.connect, (s.TIPC_ADDR_NAME, number, 1, 0))
        t.call("send", client.send, b"x")
        t.call("peer", client.getpeername)
    server, name = serving(s, t, s.SOCK_STREAM)
    server.settimeout(None)  # with a timeout CPython waits before it asks the kernel
    t.call("accept before listen", server.accept)
    server.listen(1)
    server.settimeout(0.05)
    t.call("accept", server.accept)
    waiting = t.socket(s.AF_TIPC, s.SOCK_STREAM)
    waiting.settimeout(0)
    t.call("in progress", waiting.connect_ex, name)


@scenario
def pairs(s, t):
    """A connected pair on the node."""
    for kind in (s.SOCK_STREAM, s.SOCK_SEQPACKET):
        here, there = s.socketpair(s.AF_TIPC, kind)
        t.keep(here), t.keep(there)
        there.settimeout(120)
        t.note("made", (here, there))
        t.call("send", here.send, b"pair")
        t.call("recv", there.recv, 10)
        t.note("peer", shape(s, here.getpeername()))


@scenario
def options(s, t):
    """Every option with a constant in Python."""
    sock = t.socket(s.AF_TIPC, s.SOCK_STREAM)
    for name, value in (("TIPC_IMPORTANCE", s.TIPC_HIGH_IMPORTANCE), ("TIPC_SRC_DROPPABLE", 1),
                        ("TIPC_DEST_DROPPABLE", 1), ("TIPC_CONN_TIMEOUT", 1500)):
        option = getattr(s, name)
        t.call(f"get {name}", sock.getsockopt, s.SOL_TIPC, option)
        t.call(f"set {name}", sock.setsockopt, s.SOL_TIPC, option, value)
        t.call(f"read {name}", sock.getsockopt, s.SOL_TIPC, option)
        t.call(f"bytes {name}", sock.getsockopt, s.SOL_TIPC, option, 4)
    t.call("too important", sock.setsockopt, s.SOL_TIPC, s.TIPC_IMPORTANCE, 9)
    t.call("queue", sock.getsockopt, s.SOL_TIPC, 131)
    t.call("no delay", sock.setsockopt, s.SOL_TIPC, 138, 1)


@scenario
def groups(s, t):
    """Members of a group receive each other's messages and membership events."""
    number, _ = service(s)
    members = [t.socket(s.AF_TIPC, s.SOCK_RDM) for _ in range(2)]
    for instance, member in enumerate(members):
        member.settimeout(120)
        request = struct.pack("4I", number, instance, 2, 0)
        t.call("join", member.setsockopt, s.SOL_TIPC, 135, request)
    number_and_rest = members[0].getsockname()
    t.note("name", shape(s, number_and_rest))
    t.call("send", members[0].sendto, b"to you", (s.TIPC_ADDR_NAME, number, 1, 0))
    data, control, flags, sender = members[1].recvmsg(100, 200)
    t.note("received", (data, flags, shape(s, sender), [item[:2] for item in control], "message"))
    t.call("leave", members[0].setsockopt, s.SOL_TIPC, 136, b"")


@scenario
def topology(s, t):
    """The topology server reports when a service appears and disappears."""
    number, whole = service(s)
    watcher = t.socket(s.AF_TIPC, s.SOCK_SEQPACKET)
    watcher.settimeout(120)
    t.call("connect", watcher.connect, (s.TIPC_ADDR_NAME, s.TIPC_TOP_SRV, s.TIPC_TOP_SRV, 0))
    wanted = struct.pack("5I8s", number, 0, 0xFFFFFFFF, s.TIPC_WAIT_FOREVER & 0xFFFFFFFF, s.TIPC_SUB_SERVICE, b"mine")
    t.call("subscribe", watcher.send, wanted)
    server = t.socket(s.AF_TIPC, s.SOCK_RDM)
    server.bind(whole)
    event = watcher.recv(100)
    t.note("published", (len(event), struct.unpack_from("3I", event)[0], event[-8:], event[1:3] == b"\0\0"))
    server.close()
    t.note("withdrawn", struct.unpack_from("3I", watcher.recv(100)))
