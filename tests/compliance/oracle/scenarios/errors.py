"""Arguments that Python refuses before any system call, and with which exception."""

from oracle.common import pair, tcp_pair, udp
from oracle.scenario import scenario


@scenario
def ports_out_of_range(s, t):
    """A port is 0 to 65535, in every call that takes an address."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    for port in (65536, -1, 2**31, 2**40, -2**40):
        for name in ("bind", "connect", "connect_ex"):
            t.call(f"{name} {port}", getattr(sock, name), ("127.0.0.1", port))
        t.call(f"sendto {port}", sock.sendto, b"x", ("127.0.0.1", port))
        t.call(f"sendmsg {port}", sock.sendmsg, [b"x"], [], 0, ("127.0.0.1", port))


@scenario
def integers_beyond_64_bits(s, t):
    """An integer that no machine word holds is out of range, and not of a wrong type."""
    sock = udp(s, t)
    for big in (2**63 - 1, 2**63, 2**64, 2**70, -(2**63) - 1):
        t.call(f"htonl {big}", s.htonl, big)
        t.call(f"CMSG_LEN {big}", s.CMSG_LEN, big)
        t.call(f"getservbyport {big}", s.getservbyport, big)
        t.call(f"getaddrinfo {big}", s.getaddrinfo, "127.0.0.1", big)
        t.call(f"getnameinfo {big}", s.getnameinfo, ("127.0.0.1", big), 0)
        t.call(f"shutdown {big}", sock.shutdown, big)
        t.call(f"connect {big}", sock.connect, ("127.0.0.1", big))
        t.call(f"send {big}", sock.send, b"x", big)
        t.call(f"socket {big}", s.socket, big)


@scenario(needs=("ipv6",))
def zones_beyond_64_bits(s, t):
    """Of the number of a zone the low 32 bits count."""
    sock = udp(s, t, s.AF_INET6)
    for big in (2**63, 2**64, 2**70, -(2**63) - 2**32):
        t.call(f"connect {big}", sock.connect, ("::1", 9, 0, big))


@scenario
def addresses_of_the_wrong_form(s, t):
    """An IPv4 address is a pair of text and integer."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    for address in (("127.0.0.1",), ("127.0.0.1", 0, 0), (), "127.0.0.1:0", None, 5, ("127.0.0.1", "0"),
                    ("127.0.0.1", 1.5), ("127.0.0.1", None), (None, 0), (5, 0), (1.5, 0), (("127.0.0.1",), 0)):
        t.call(f"bind {address}", sock.bind, address)


@scenario
def hosts_with_a_null(s, t):
    """A host with a NUL inside."""
    t.call("bind", t.socket().bind, ("127.0.0.1\0x", 0))


@scenario
def hosts_as_bytes(s, t):
    """A host may be bytes."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    t.call("bind", sock.bind, (b"127.0.0.1", 0))
    t.note("name", sock.getsockname())


@scenario
def missing_and_surplus_arguments(s, t):
    """Too few or too many arguments are TypeErrors."""
    sock = t.socket()
    for name in ("bind", "connect", "connect_ex", "recv", "recvfrom", "send", "sendall", "sendto", "shutdown",
                 "getsockopt", "setsockopt"):
        t.call(f"{name}()", getattr(sock, name))
    for name, args in (("bind", (("127.0.0.1", 0), 1)), ("recv", (1, 2, 3)), ("send", (b"x", 0, 0)), ("getsockname", (1,)),
                       ("shutdown", (1, 2)), ("listen", (1, 2)), ("sendto", (b"x", 0, ("127.0.0.1", 9), 0)),
                       ("gettimeout", (1,)), ("recvfrom", (1, 2, 3)), ("sendall", (b"x", 0, 0))):
        t.call(f"{name} with {len(args)}", getattr(sock, name), *args)


@scenario
def sizes_that_are_none(s, t):
    """Sizes are integers, not negative."""
    sock = udp(s, t)
    for name in ("recv", "recvfrom", "recvmsg"):
        for size in (-1, -2**40, 1.5, None, [1]):
            t.call(f"{name} {size}", getattr(sock, name), size)


@scenario
def sizes_of_buffers(s, t):
    """`nbytes` is not negative and not more than the buffer."""
    sock = udp(s, t)
    for name in ("recv_into", "recvfrom_into"):
        for nbytes in (-1, 11, -2**40):
            t.call(f"{name} {nbytes}", getattr(sock, name), bytearray(10), nbytes)
        t.call(f"{name} read-only", getattr(sock, name), b"constant", 100)


@scenario
def empty_buffers(s, t):
    """An empty buffer receives nothing, and consumes nothing from a stream."""
    left, right = pair(s, t)
    left.send(b"data")
    t.call("recv_into", right.recv_into, bytearray())
    t.call("recvmsg_into", right.recvmsg_into, [bytearray()])
    t.call("no buffers", right.recvmsg_into, [])
    t.note("all there", right.recv(10))


@scenario
def data_of_the_wrong_type(s, t):
    """Data is bytes."""
    sock = udp(s, t)
    for data in (5, None, 1.5, [1, 2]):
        t.call(f"send {data}", sock.send, data)
        t.call(f"sendall {data}", sock.sendall, data)
        t.call(f"sendto {data}", sock.sendto, data, ("127.0.0.1", 9))
        t.call(f"sendmsg {data}", sock.sendmsg, [data])


@scenario
def flags_of_the_wrong_type(s, t):
    """Flags are C integers."""
    sock = udp(s, t)
    sock.setblocking(False)
    for flags in (1.5, [1], 2**31, 2**40, -2**40):
        t.call(f"recv {flags}", sock.recv, 1, flags)
        t.call(f"send {flags}", sock.send, b"x", flags)
        t.call(f"sendto {flags}", sock.sendto, b"x", flags, ("127.0.0.1", 9))


@scenario
def flags_that_mean_nothing(s, t):
    """The kernel checks unknown flags."""
    left, right = pair(s, t)
    t.call("send", left.send, b"x", 0x400000)
    t.call("recv", right.recv, 10, 0x200000)
    t.call("negative", right.recv, 10, -1)


@scenario
def kinds_of_the_wrong_type(s, t):
    """Family, type and protocol are C integers."""
    for args in ((1.5,), (s.AF_INET, 1.5), (s.AF_INET, s.SOCK_STREAM, 1.5),
                 (2**31,), (s.AF_INET, 2**31), (s.AF_INET, s.SOCK_STREAM, 2**31), (2**40,), (-2,), (s.AF_INET, -2)):
        t.call(f"socket{args}", t.socket, *args)


@scenario
def families_of_socketpair(s, t):
    """The same for `socketpair`."""
    for args in ((1.5,), (s.AF_UNIX, 1.5), (s.AF_UNIX, s.SOCK_STREAM, 1.5), (2**31,), (-2,), (s.AF_UNIX, -1)):
        made = t.call(f"socketpair{args}", s.socketpair, *args)
        for sock in made or ():
            t.keep(sock)


@scenario
def backlog_of_the_wrong_type(s, t):
    """The backlog is a C integer."""
    sock = t.socket()
    for backlog in (1.5, [1], 2**31, -2**31 - 1, 2**40):
        t.call(f"listen {backlog}", sock.listen, backlog)


@scenario
def ways_of_shutdown(s, t):
    """The way of a shutdown is a C integer, and one of three."""
    client, _ = tcp_pair(s, t)
    for how in (1.5, None, [1], 2**31, 3, -1):
        t.call(f"shutdown {how}", client.shutdown, how)


@scenario
def inheritable_of_any_type(s, t):
    """`set_inheritable` takes a truth value."""
    sock = t.socket()
    for value in (1, 0, True):
        t.call(f"set {value}", sock.set_inheritable, value)
        t.note("get", sock.get_inheritable())


@scenario
def control_of_the_wrong_form(s, t):
    """Ancillary data is a list of triples of two integers and bytes."""
    sock = udp(s, t)
    there = udp(s, t).getsockname()
    sock.connect(there)
    for items in ([(1, 2, b"")], [(1.5, 2, b"")], [(0, None, b"")]):
        t.call(f"sendmsg {items}", sock.sendmsg, [b"x"], items)
    t.call("level", sock.sendmsg, [b"x"], [(2**31, 1, b"")])


@scenario
def afalg_messages(s, t):
    """`sendmsg_afalg` is for AF_ALG only."""
    sock = udp(s, t)
    t.call("call", sock.sendmsg_afalg, [b"x"], op=s.ALG_OP_ENCRYPT)
    t.call("with an iv", sock.sendmsg_afalg, [b"x"], op=s.ALG_OP_ENCRYPT, iv=b"1234")


@scenario
def operations_of_the_wrong_kind(s, t):
    """Unsupported operations fail with the error of the kernel."""
    datagram, stream = udp(s, t), t.socket()
    t.call("accept", datagram.accept)
    t.call("listen", datagram.listen)
    t.call("urgent", datagram.send, b"x", s.MSG_OOB)
    t.call("urgent", datagram.recv, 1, s.MSG_OOB | s.MSG_DONTWAIT)
    t.call("accept", stream.accept)
    t.call("connect to 0", stream.connect, ("127.0.0.1", 0))
    t.call("multicast", stream.connect, ("224.0.0.1", 9))
    t.call("broadcast", stream.connect, ("255.255.255.255", 9))
