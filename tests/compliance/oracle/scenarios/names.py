"""The resolver, services and protocols, interfaces and the host's name: with the files of the machine."""

import os

from oracle import world
from oracle.scenario import scenario


@scenario
def numeric_hosts(s, t):
    """Numeric addresses are resolved without a lookup."""
    for host in ("127.0.0.1", "::1", "0.0.0.0", "255.255.255.255", "fe80::1", "127.1", "0x7f000001"):
        t.call(host, s.getaddrinfo, host, 80)


@scenario
def localhost(s, t):
    """The name of this host is found in the machine's own table, for every family and type."""
    for family in (s.AF_UNSPEC, s.AF_INET, s.AF_INET6):
        for kind in (0, s.SOCK_STREAM, s.SOCK_DGRAM, s.SOCK_RAW):
            t.call(f"{int(family)} {int(kind)}", s.getaddrinfo, "localhost", 80, family, kind)


@scenario
def absent_hosts(s, t):
    """No host is the loopback address, or the wildcard one with AI_PASSIVE."""
    for flags in (0, s.AI_PASSIVE):
        t.call(f"flags {int(flags)}", s.getaddrinfo, None, 80, 0, s.SOCK_STREAM, 0, flags)
    t.call("neither host nor port", s.getaddrinfo, None, None)
    t.call("no port", s.getaddrinfo, "127.0.0.1", None, 0, s.SOCK_STREAM)
    t.call("empty", s.getaddrinfo, "", 80, 0, s.SOCK_STREAM)


@scenario
def services(s, t):
    """The port may be a number, its digits, or the name of a service."""
    for port in (0, 80, 65535, "80", "http", "domain", "no-such-service", "", "65536", "-1"):
        t.call(f"port {port!r}", s.getaddrinfo, "127.0.0.1", port, 0, s.SOCK_STREAM)
    t.call("only for UDP", s.getaddrinfo, "127.0.0.1", "tftp", 0, s.SOCK_STREAM)
    t.call("bytes", s.getaddrinfo, "127.0.0.1", b"80", 0, s.SOCK_STREAM)


@scenario
def flags_of_getaddrinfo(s, t):
    """Numeric flags forbid names; AI_CANONNAME requests the full name."""
    for flags in (s.AI_NUMERICHOST, s.AI_CANONNAME, s.AI_V4MAPPED, s.AI_ADDRCONFIG, s.AI_NUMERICSERV):
        t.call(f"name {int(flags)}", s.getaddrinfo, "localhost", 80, s.AF_INET, s.SOCK_STREAM, 0, flags)
        t.call(f"address {int(flags)}", s.getaddrinfo, "127.0.0.1", 80, s.AF_INET, s.SOCK_STREAM, 0, flags)
    t.call("mapped", s.getaddrinfo, "127.0.0.1", 80, s.AF_INET6, s.SOCK_STREAM, 0, s.AI_V4MAPPED)
    t.call("numeric service", s.getaddrinfo, "127.0.0.1", "http", 0, s.SOCK_STREAM, 0, s.AI_NUMERICSERV)
    t.call("bad flags", s.getaddrinfo, "127.0.0.1", 80, 0, 0, 0, 0x1000000)


@scenario
def families_of_getaddrinfo(s, t):
    """Families, types and protocols that do not fit together have their own error codes."""
    t.call("other family", s.getaddrinfo, "127.0.0.1", 80, s.AF_INET6)
    t.call("no such family", s.getaddrinfo, "127.0.0.1", 80, 99)
    t.call("unix", s.getaddrinfo, "127.0.0.1", 80, s.AF_UNIX)
    t.call("bad type", s.getaddrinfo, "127.0.0.1", 80, 0, 99)
    t.call("type and protocol", s.getaddrinfo, "127.0.0.1", 80, 0, s.SOCK_STREAM, s.IPPROTO_UDP)
    t.call("protocol", s.getaddrinfo, "127.0.0.1", 80, 0, 0, s.IPPROTO_UDP)


@scenario
def types_of_getaddrinfo(s, t):
    """Hosts are text, ports are numbers or text."""
    for args in ((5, 80), ("127.0.0.1", 1.5), ("127.0.0.1", [80]), ("127.0.0.1",), ("127.0.0.1", 80, "x")):
        t.call(f"{args}", s.getaddrinfo, *args)


@scenario
def zones(s, t):
    """The zone of a link-local address becomes its scope, or fails."""
    t.call("loopback", s.getaddrinfo, "fe80::1%lo", 80, 0, s.SOCK_STREAM)
    t.call("number", s.getaddrinfo, "fe80::1%1", 80, 0, s.SOCK_STREAM)
    t.call("missing", s.getaddrinfo, "fe80::1%nowhere", 80, 0, s.SOCK_STREAM)


@scenario
def unknown_names(s, t):
    """An unknown name returns the same resolver error code."""
    t.call("getaddrinfo", s.getaddrinfo, "nobody.invalid", 80)
    t.call("gethostbyname", s.gethostbyname, "nobody.invalid")
    t.call("gethostbyname_ex", s.gethostbyname_ex, "nobody.invalid")
    t.call("gethostbyaddr", s.gethostbyaddr, "nobody.invalid")


@scenario
def gethostbyname(s, t):
    """One IPv4 address, of a name, an address, nothing, or every host."""
    for name in ("localhost", "127.0.0.1", "", "<broadcast>", "255.255.255.255", "0.0.0.0", "127.1"):
        t.call(repr(name), s.gethostbyname, name)
    t.call("IPv6", s.gethostbyname, "::1")
    t.call("number", s.gethostbyname, 5)


@scenario
def gethostbyname_ex(s, t):
    """Name, aliases and addresses."""
    for name in ("localhost", "127.0.0.1"):
        t.call(name, s.gethostbyname_ex, name)


@scenario
def gethostbyaddr(s, t):
    """An address, or a name that is resolved first."""
    for name in ("127.0.0.1", "localhost"):
        t.call(name, s.gethostbyaddr, name)


@scenario
def getfqdn(s, t):
    """The full name of a host, or the name itself where there is none."""
    for name in ("localhost", "127.0.0.1", "nobody.invalid"):
        t.call(name, s.getfqdn, name)


@scenario
def numeric_names(s, t):
    """`getnameinfo` with numeric flags only formats."""
    numeric = s.NI_NUMERICHOST | s.NI_NUMERICSERV
    for address in (("127.0.0.1", 80), ("::1", 80), ("::1", 80, 0, 0), ("fe80::1", 80, 0, 1), ("0.0.0.0", 0)):
        t.call(f"{address}", s.getnameinfo, address, numeric)
    for address in (("127.0.0.1", 65535), ("127.0.0.1", 53)):
        t.call(f"{address}", s.getnameinfo, address, s.NI_NUMERICHOST)
        t.call(f"{address} datagram", s.getnameinfo, address, s.NI_NUMERICHOST | s.NI_DGRAM)
    t.call("localhost", s.getnameinfo, ("127.0.0.1", 80), 0)


@scenario
def errors_of_getnameinfo(s, t):
    """The address must be numeric, and a tuple; NI_NAMEREQD fails for what has no name."""
    t.call("name", s.getnameinfo, ("nobody.invalid", 80), 0)
    t.call("no tuple", s.getnameinfo, "127.0.0.1", 0)
    t.call("one item", s.getnameinfo, ("127.0.0.1",), 0)
    t.call("five items", s.getnameinfo, ("::1", 80, 0, 0, 0), 0)
    t.call("flow", s.getnameinfo, ("::1", 80, 1 << 20, 0), s.NI_NUMERICHOST | s.NI_NUMERICSERV)
    t.call("IPv4 with flow", s.getnameinfo, ("127.0.0.1", 80, 0, 0), s.NI_NUMERICHOST)
    t.call("no port", s.getnameinfo, ("127.0.0.1", None), 0)
    t.call("text as port", s.getnameinfo, ("127.0.0.1", "http"), 0)
    t.call("text as flags", s.getnameinfo, ("127.0.0.1", 80), 1.5)


@scenario
def getservbyname(s, t):
    """Services of the machine's table."""
    for args in (("http",), ("http", "tcp"), ("domain", "udp"), ("tftp", "udp"), ("tftp", "tcp"), ("no-such-service",),
                 ("http", "no-such-protocol"), ("",)):
        t.call(f"{args}", s.getservbyname, *args)
    t.call("number", s.getservbyname, 5)
    t.call("nothing", s.getservbyname)


@scenario
def getservbyport(s, t):
    """Ports of the machine's table; the range is checked first."""
    for args in ((80,), (80, "tcp"), (53, "udp"), (69, "tcp"), (64999,), (80, "no-such-protocol")):
        t.call(f"{args}", s.getservbyport, *args)
    for port in (-1, 65536, 2**40, "80", None, 1.5):
        t.call(f"{port}", s.getservbyport, port)


@scenario
def getprotobyname(s, t):
    """Protocols of the machine's table."""
    for name in ("icmp", "tcp", "udp", "ipv6-icmp", "TCP", "no-such-protocol", ""):
        t.call(name, s.getprotobyname, name)
    t.call("number", s.getprotobyname, 6)


@scenario
def interfaces(s, t):
    """Interfaces have an index and a name, each found by the other."""
    found = s.if_nameindex()
    t.note("interfaces", found)
    for index, name in found:
        t.note(name, (s.if_nametoindex(name), s.if_indextoname(index)))


@scenario
def unknown_interfaces(s, t):
    """Interfaces that are not there."""
    for name in ("nowhere", "", "a-very-long-name-of-an-interface", "lo:1"):
        t.call(repr(name), s.if_nametoindex, name)
    for index in (0, 9999, 2**31 - 1):
        t.call(f"{index}", s.if_indextoname, index)
    t.call("no text", s.if_nametoindex, 5)
    t.call("no number", s.if_indextoname, "lo")


@scenario(python=(3, 13))
def interface_indexes_out_of_range(s, t):
    """An index that is not an unsigned 32-bit number."""
    for index in (-1, 2**32, 2**40):
        t.call(f"{index}", s.if_indextoname, index)


@scenario
def hostname(s, t):
    """The host's name is the machine's."""
    t.note("same", s.gethostname() == os.uname().nodename)


@scenario(needs=["hostname"])
def setting_the_hostname(s, t):
    """The name can be changed, up to 64 bytes."""
    before = s.gethostname()
    try:
        for name in ("compliance", "x" * 64, "a.b.c"):
            t.call(f"set {name}", s.sethostname, name)
            t.note("get", s.gethostname())
        t.call("too long", s.sethostname, "x" * 65)
        t.note("unchanged", s.gethostname())
        t.call("number", s.sethostname, 5)
    finally:
        s.sethostname(before)


@scenario(needs=["veth"])
def virtual_interfaces(s, t):
    """New interfaces are there at once."""
    names = {name for _, name in s.if_nameindex()}
    t.note("there", sorted(names & set(world.VETH)))
    t.note("different", len({s.if_nametoindex(name) for name in world.VETH}))
