"""AF_NETLINK: addresses, requests to the kernel, multicast, errors."""

import struct

from oracle import world
from oracle.common import arrived
from oracle.scenario import scenario

ROUTE, NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0, 1, 4, 0x300
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE, RTM_NEWLINK, RTM_GETLINK, RTM_GETADDR = 1, 2, 3, 16, 18, 22


def route(s, t):
    """A socket that talks to rtnetlink."""
    return t.socket(s.AF_NETLINK, s.SOCK_RAW, ROUTE)


def message(kind, flags, body, sequence=7):
    """A request."""
    return struct.pack("IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def heads(data):
    """Type and sequence of each message in an answer."""
    found, offset = [], 0
    while offset + 16 <= len(data):
        length, kind, _, sequence, _ = struct.unpack_from("IHHII", data, offset)
        found.append((kind, sequence))
        offset += (length + 3) & ~3
    return found


@scenario(needs=["netlink"])
def own_address(s, t):
    """A new socket has no address; binding to 0 gives one, and groups are kept."""
    sock = route(s, t)
    t.note("before", sock.getsockname())
    t.call("bind", sock.bind, (0, 0))
    pid, groups = sock.getsockname()
    t.note("after", (t.own(pid), groups))
    other = route(s, t)
    t.call("groups", other.bind, (0, 1))
    t.note("groups", other.getsockname()[1])


@scenario(needs=["netlink"])
def a_chosen_port(s, t):
    """A port can be chosen, and is then in use."""
    sock = route(s, t)
    t.call("bind", sock.bind, (4242424, 0))
    t.note("name", sock.getsockname())
    t.call("taken", route(s, t).bind, (4242424, 0))
    t.call("again", sock.bind, (4242425, 0))


@scenario(needs=["netlink"])
def kinds(s, t):
    """Raw and datagram sockets exist, streams do not; unknown protocols are refused."""
    t.note("raw", t.socket(s.AF_NETLINK, s.SOCK_RAW, ROUTE))
    t.note("datagram", t.socket(s.AF_NETLINK, s.SOCK_DGRAM, ROUTE))
    t.call("stream", t.socket, s.AF_NETLINK, s.SOCK_STREAM, ROUTE)
    t.call("protocol 31", t.socket, s.AF_NETLINK, s.SOCK_RAW, 31)
    t.call("protocol 99", t.socket, s.AF_NETLINK, s.SOCK_RAW, 99)


@scenario(needs=["netlink"])
def requesting_a_link(s, t):
    """The kernel answers a request about the loopback interface, from port 0."""
    sock = route(s, t)
    t.note("sent", sock.send(message(RTM_GETLINK, NLM_F_REQUEST, struct.pack("BxHiII", 0, 0, 1, 0, 0))))
    data, sender = sock.recvfrom(65536)
    t.note("sender", sender)
    t.note("head", heads(data))
    t.note("index", struct.unpack_from("i", data, 20)[0])
    t.note("name", b"lo\0" in data)


@scenario(needs=["netlink"])
def sendto_the_kernel(s, t):
    """Requests may be addressed to port 0, by `sendto` and by `sendmsg`."""
    sock = route(s, t)
    request = message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, bytes(8), 99)
    t.note("sendto", sock.sendto(request, (0, 0)))
    t.note("answer", set(heads(sock.recv(65536))) <= {(20, 99), (NLMSG_DONE, 99)})
    while (NLMSG_DONE, 99) not in heads(sock.recv(65536)):
        pass
    t.note("sendmsg", sock.sendmsg([request[:16], request[16:]], [], 0, (0, 0)))
    t.note("some", len(heads(sock.recv(65536))) > 0)


@scenario(needs=["netlink"])
def connected_to_the_kernel(s, t):
    """The peer's name of a netlink socket is the kernel until it is connected elsewhere."""
    sock = route(s, t)
    t.note("peer", sock.getpeername())
    t.call("connect", sock.connect, (0, 0))
    t.note("peer", sock.getpeername())


@scenario(needs=["netlink"])
def an_error_answer(s, t):
    """A request that fails is answered by an error message, not by an exception."""
    sock = route(s, t)
    sock.send(message(RTM_GETLINK, NLM_F_REQUEST, struct.pack("BxHiII", 0, 0, 9999, 0, 0), 3))
    data = sock.recv(4096)
    t.note("head", heads(data))
    t.note("errno", struct.unpack_from("i", data, 16)[0])


@scenario(needs=["netlink"])
def acknowledged(s, t):
    """NLM_F_ACK requests an answer with error 0."""
    sock = route(s, t)
    sock.send(message(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, b"", 5))
    data = sock.recv(4096)
    t.note("answer", (heads(data), struct.unpack_from("i", data, 16)[0]))


@scenario(needs=["netlink"])
def truncated(s, t):
    """An answer that does not fit is truncated, and both forms of MSG_TRUNC report it."""
    sock = route(s, t)
    request = message(RTM_GETLINK, NLM_F_REQUEST, struct.pack("BxHiII", 0, 0, 1, 0, 0))
    sock.send(request)
    whole = len(sock.recv(16, s.MSG_PEEK | s.MSG_TRUNC))
    t.note("longer", whole > 16)
    data, control, flags, sender = sock.recvmsg(16)
    t.note("message", (len(data), control, flags, sender))
    sock.send(request)
    t.note("whole", len(sock.recv(whole)) == whole)


@scenario(needs=["netlink", "namespace"])
def multicast_by_group_mask(s, t):
    """A member of a group receives events about new and changed links, with the group in the sender's address."""
    watcher, sock = route(s, t), route(s, t)
    watcher.bind((0, 1))
    t.call("nothing yet", watcher.recv, 4096, s.MSG_DONTWAIT)
    change(s, sock)
    data, sender = watcher.recvfrom(65536)
    t.note("kind", heads(data)[0][0])
    t.note("sender", sender)


@scenario(needs=["netlink", "namespace"])
def multicast_by_membership(s, t):
    """NETLINK_ADD_MEMBERSHIP joins a group, and NETLINK_PKTINFO reports the group of a message."""
    watcher, sock = route(s, t), route(s, t)
    watcher.bind((0, 0))
    t.call("join", watcher.setsockopt, 270, 1, 1)
    t.call("packet information", watcher.setsockopt, 270, 3, 1)
    change(s, sock)
    _, control, flags, sender = watcher.recvmsg(65536, 100)
    t.note("message", (control, flags, sender))
    t.call("leave", watcher.setsockopt, 270, 2, 1)
    t.call("no such group", watcher.setsockopt, 270, 1, 9999)
    t.note("memberships", watcher.getsockopt(270, 9, 8))


def change(s, sock):
    """Changes the queue length of the loopback interface, which the link group reports, and restores it."""
    for length in (900, 1000):
        attribute = struct.pack("HHI", 8, 13, length)  # IFLA_TXQLEN
        body = struct.pack("BxHiII", 0, 0, 1, 0, 0) + attribute
        sock.send(message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, body))
        if struct.unpack_from("i", sock.recv(4096), 16)[0] != 0:
            raise RuntimeError("the loopback interface cannot be changed")


@scenario(needs=["netlink"])
def between_users(s, t):
    """Two sockets of the same protocol talk to each other by their ports."""
    one, two = (t.socket(s.AF_NETLINK, s.SOCK_RAW, 2) for _ in range(2))
    one.bind((7001, 0))
    two.bind((7002, 0))
    t.call("sent", one.sendto, b"to another user", (7002, 0))
    t.note("got", two.recvfrom(100))
    t.call("no receiver", one.sendto, b"x", (7003, 0))


@scenario(needs=["netlink"])
def extended_acknowledgement(s, t):
    """Options of netlink keep what is set."""
    sock = route(s, t)
    for name in (3, 4, 5, 10, 11, 12):
        t.call(f"before {name}", sock.getsockopt, 270, name)
        t.call(f"set {name}", sock.setsockopt, 270, name, 1)
        t.call(f"after {name}", sock.getsockopt, 270, name)


@scenario(needs=["netlink"])
def credentials_of_the_kernel(s, t):
    """With SO_PASSCRED the kernel's answers carry its credentials: pid 0."""
    sock = route(s, t)
    sock.setsockopt(s.SOL_SOCKET, s.SO_PASSCRED, 1)
    sock.send(message(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, b""))
    _, control, flags, sender = sock.recvmsg(4096, s.CMSG_SPACE(12))
    t.note("message", (control, flags, sender))


@scenario(needs=["netlink"])
def addresses_of_the_wrong_form(s, t):
    """An address is a pair of integers."""
    for address in ((0,), (0, 0, 0), ("x", 0), (0, "x"), "text", (None, 0), 7):
        t.call(f"bind {address}", route(s, t).bind, address)


@scenario(needs=["netlink"])
def addresses_out_of_range(s, t):
    """Port and groups that do not fit into 32 bits."""
    for address in ((1 << 32, 0), (0, 1 << 32), (-1, 0)):
        t.call(f"bind {address}", route(s, t).bind, address)


@scenario(needs=["netlink", "veth"])
def links_of_the_namespace(s, t):
    """A dump lists every interface, in as many datagrams as it takes."""
    sock = route(s, t)
    sock.send(message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, bytes(16)))
    names, kinds_seen = set(), set()
    while NLMSG_DONE not in kinds_seen:
        arrived(s, sock)
        data = sock.recv(1 << 16)
        kinds_seen |= {kind for kind, _ in heads(data)}
        names |= {name for name in ("lo", *world.VETH) if name.encode() + b"\0" in data}
    t.note("names", sorted(names))
    t.note("kinds", sorted(kinds_seen))
