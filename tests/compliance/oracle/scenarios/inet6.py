"""AF_INET6: tuples of two to four, flow labels, scopes, mapped addresses."""

from oracle import world
from oracle.common import arrived, listener, tcp_pair, udp, udp_pair
from oracle.scenario import scenario

IPV6_FLOWINFO_SEND, IPV6_FLOWLABEL_MGR, IPV6_FLOWINFO = 33, 32, 11


@scenario(needs=["ipv6"])
def names(s, t):
    """Names have four items."""
    client, server = tcp_pair(s, t, s.AF_INET6)
    t.note("client", (client.getsockname(), client.getpeername()))
    t.note("server", (server.getsockname(), server.getpeername()))
    client.send(b"six")
    t.note("data", server.recv(10))


@scenario(needs=["ipv6"])
def tuples_of_two_to_four(s, t):
    """Flow information and scope may be left out."""
    for address in (("::1", 0), ("::1", 0, 0), ("::1", 0, 0, 0)):
        sock = t.socket(s.AF_INET6, s.SOCK_DGRAM)
        t.call("bind", sock.bind, address)
        t.note("name", sock.getsockname())
    for address in (("::1",), ("::1", 0, 0, 0, 0), ()):
        t.call(f"{len(address)} items", t.socket(s.AF_INET6).bind, address)


@scenario(needs=["ipv6"])
def short_form(s, t):
    """Addresses are returned in their short form."""
    for host in ("0:0:0:0:0:0:0:1", "::0001", "::ffff:127.0.0.1", "::", "0::0"):
        sock = t.socket(s.AF_INET6, s.SOCK_DGRAM)
        t.call(f"bind {host}", sock.bind, (host, 0))
        t.note("name", sock.getsockname())


@scenario(needs=["ipv6"])
def hosts_by_name(s, t):
    """The empty host is every address; a name is resolved for the family."""
    sock = t.socket(s.AF_INET6, s.SOCK_DGRAM)
    sock.bind(("", 0))
    t.note("empty", sock.getsockname())
    t.call("broadcast", t.socket(s.AF_INET6, s.SOCK_DGRAM).bind, ("<broadcast>", 0))
    t.call("IPv4", t.socket(s.AF_INET6, s.SOCK_DGRAM).bind, ("127.0.0.1", 0))
    t.call("IPv6 for IPv4", t.socket(s.AF_INET, s.SOCK_DGRAM).bind, ("::1", 0))
    t.call("no name", t.socket(s.AF_INET6).connect, ("nobody.invalid", 9))


@scenario(needs=["ipv6"])
def ranges_of_the_items(s, t):
    """Port, flow information and scope have their ranges."""
    for address in (("::1", 65536), ("::1", -1), ("::1", 0, 1048576), ("::1", 0, -1), ("::1", 0, 1048575),
                    ("::1", "x"), ("::1", 0, "x"), (5, 0), ("::1", 0, 0, None), ("::1", 0, 0, 0)):
        t.call(f"bind {address}", t.socket(s.AF_INET6, s.SOCK_DGRAM).bind, address)


@scenario(needs=["ipv6"])
def scopes_out_of_range(s, t):
    """A scope that does not fit into 32 bits."""
    for scope in (1 << 32, -1):
        t.call(f"bind {scope}", t.socket(s.AF_INET6, s.SOCK_DGRAM).bind, ("::1", 0, 0, scope))


@scenario(needs=["ipv6"])
def flow_label(s, t):
    """A flow label is leased, sent with the datagram, and reported with the sender."""
    here, there = udp(s, t, s.AF_INET6), udp(s, t, s.AF_INET6)
    request = s.inet_pton(s.AF_INET6, "::1") + (0x12345).to_bytes(4, "big") + bytes([0, 255]) + bytes([1, 0]) + bytes(8)
    t.call("lease", here.setsockopt, s.IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, request)
    here.setsockopt(s.IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)
    there.setsockopt(s.IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)
    there.setsockopt(s.IPPROTO_IPV6, IPV6_FLOWINFO, 1)
    port = there.getsockname()[1]
    t.call("sent", here.sendto, b"flow", ("::1", port, 0x12345))
    t.note("message", there.recvmsg(10, 100))
    t.call("not leased", here.sendto, b"flow", ("::1", port, 0x54321))


@scenario(needs=["ipv6"])
def mapped_addresses(s, t):
    """One IPv6 listener serves IPv4 as mapped addresses."""
    waiting = t.socket(s.AF_INET6)
    waiting.setsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY, 0)
    waiting.bind(("::", 0))
    waiting.listen()
    client = t.socket(s.AF_INET)
    client.connect(("127.0.0.1", waiting.getsockname()[1]))
    server, address = waiting.accept()
    t.note("address", address)
    t.note("names", (t.keep(server).getsockname(), server.getpeername()))
    t.note("only", waiting.getsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY))


@scenario(needs=["ipv6"])
def v6_only(s, t):
    """With IPV6_V6ONLY the IPv4 port stays free, and IPv4 is refused."""
    waiting = t.socket(s.AF_INET6)
    waiting.setsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY, 1)
    waiting.bind(("::", 0))
    waiting.listen()
    port = waiting.getsockname()[1]
    t.call("IPv4", t.socket(s.AF_INET).connect, ("127.0.0.1", port))
    t.call("same port", t.socket(s.AF_INET).bind, ("0.0.0.0", port))
    t.call("too late", waiting.setsockopt, s.IPPROTO_IPV6, s.IPV6_V6ONLY, 0)


@scenario(needs=["ipv6"])
def without_a_scope(s, t):
    """A link-local address needs a scope."""
    t.call("bind", t.socket(s.AF_INET6, s.SOCK_DGRAM).bind, ("fe80::1", 0))
    t.call("connect", t.socket(s.AF_INET6, s.SOCK_DGRAM).connect, ("fe80::1", 9))
    t.call("no interface", t.socket(s.AF_INET6, s.SOCK_DGRAM).bind, ("fe80::1%nowhere", 0))


@scenario(needs=["ipv6", "veth"])
def scopes(s, t):
    """A scope counts as the fourth item; one after a percent sign is resolved and dropped, as in CPython."""
    local, index = world.link_local(world.VETH[0]), s.if_nametoindex(world.VETH[0])
    for address in ((local, 0, 0, index), (f"{local}%{world.VETH[0]}", 0), (f"{local}%{index}", 0)):
        sock = t.socket(s.AF_INET6, s.SOCK_DGRAM)
        t.call("bind", sock.bind, address)
        name = sock.getsockname()
        t.note("name", (name[0] == local, name[2], name[3] == index))
    t.call("other interface", t.socket(s.AF_INET6).bind, (local, 0, 0, s.if_nametoindex(world.VETH[1])))
    t.call("no interface", t.socket(s.AF_INET6).bind, (local, 0, 0, 999))


@scenario(needs=["ipv6", "veth"])
def over_a_link(s, t):
    """The sender of a link-local datagram is reported with its scope."""
    local, index = world.link_local(world.VETH[0]), s.if_nametoindex(world.VETH[0])
    here, there = (t.socket(s.AF_INET6, s.SOCK_DGRAM) for _ in range(2))
    there.bind((local, 0, 0, index))
    t.note("sent", here.sendto(b"local", there.getsockname()))
    data, sender = there.recvfrom(10)
    t.note("data", data)
    t.note("sender", (sender[0] == local, sender[2], sender[3] == index))
    t.note("numeric", s.getnameinfo(sender, s.NI_NUMERICHOST)[0] == f"{local}%{world.VETH[0]}")


@scenario(needs=["ipv6"])
def unspecified_destination(s, t):
    """The unspecified address as a destination is this host."""
    there = udp(s, t, s.AF_INET6)
    here = t.socket(s.AF_INET6, s.SOCK_DGRAM)
    t.call("sent", here.sendto, b"self", ("::", there.getsockname()[1]))
    t.note("got", there.recvfrom(10)[0])


@scenario(needs=["ipv6"])
def multicast_membership(s, t):
    """Groups are joined by interface index."""
    sock = t.socket(s.AF_INET6, s.SOCK_DGRAM)
    sock.bind(("", 0))
    group = s.inet_pton(s.AF_INET6, "ff11::77")
    for index in (1, 999):
        t.call(f"join {index}", sock.setsockopt, s.IPPROTO_IPV6, s.IPV6_JOIN_GROUP, group + index.to_bytes(4, "little"))
    t.call("leave", sock.setsockopt, s.IPPROTO_IPV6, s.IPV6_LEAVE_GROUP, group + (1).to_bytes(4, "little"))
    t.call("no group", sock.setsockopt, s.IPPROTO_IPV6, s.IPV6_JOIN_GROUP, bytes(15) + b"\1" + bytes(4))


@scenario(needs=["ipv6"])
def options(s, t):
    """Options of IPv6 have their defaults and keep what is set."""
    sock = t.socket(s.AF_INET6, s.SOCK_DGRAM)
    for name in ("IPV6_V6ONLY", "IPV6_UNICAST_HOPS", "IPV6_MULTICAST_HOPS", "IPV6_MULTICAST_LOOP",
                 "IPV6_TCLASS", "IPV6_RECVPKTINFO", "IPV6_RECVHOPLIMIT", "IPV6_DONTFRAG"):
        number = getattr(s, name)
        t.call(f"{name} before", sock.getsockopt, s.IPPROTO_IPV6, number)
        t.call(f"{name} set", sock.setsockopt, s.IPPROTO_IPV6, number, 1)
        t.call(f"{name} after", sock.getsockopt, s.IPPROTO_IPV6, number)


@scenario(needs=["ipv6"])
def refused(s, t):
    """Errors come back over IPv6 too."""
    sock = t.socket(s.AF_INET6)
    sock.bind(("::1", 0))
    t.call("connect", t.socket(s.AF_INET6).connect, sock.getsockname())
    here, there = udp_pair(s, t, s.AF_INET6)
    there.close()
    here.send(b"x")
    arrived(s, here)
    t.call("recv", here.recv, 10)


@scenario(needs=["ipv6"])
def accepting(s, t):
    """`accept` gives four items."""
    waiting = listener(s, t, s.AF_INET6)
    client = t.socket(s.AF_INET6)
    client.connect(waiting.getsockname()[:2])
    server, address = waiting.accept()
    t.keep(server)
    t.note("address", address)
    t.note("family", int(server.family))
