"""Creating and closing sockets, and file objects for them."""

from oracle.common import listener, pair
from oracle.scenario import scenario


@scenario
def defaults(s, t):
    """A socket without arguments is an IPv4 stream, blocking, not inheritable, not bound."""
    sock = t.socket()
    t.note("kind", (int(sock.family), int(sock.type), sock.proto))
    t.note("timeout", sock.gettimeout())
    t.note("blocking", sock.getblocking())
    t.note("inheritable", sock.get_inheritable())
    t.note("name", sock.getsockname())


@scenario
def families_and_types(s, t):
    """Family, type and protocol are reported as requested; -1 means the default."""
    for family in (-1, s.AF_INET, s.AF_INET6, s.AF_UNIX):
        for kind in (-1, s.SOCK_STREAM, s.SOCK_DGRAM):
            t.call(f"socket {int(family)} {int(kind)}", t.socket, family, kind)
    for proto in (-1, 0, s.IPPROTO_TCP):
        t.call(f"proto {proto}", t.socket, s.AF_INET, s.SOCK_STREAM, proto)
    t.call("udp", t.socket, s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_UDP)
    t.call("seqpacket", t.socket, s.AF_UNIX, s.SOCK_SEQPACKET)


@scenario
def type_matches_the_kernel(s, t):
    """SO_DOMAIN, SO_TYPE and SO_PROTOCOL agree with the object."""
    for args in ((s.AF_INET, s.SOCK_STREAM), (s.AF_INET6, s.SOCK_DGRAM), (s.AF_UNIX, s.SOCK_SEQPACKET)):
        sock = t.socket(*args)
        t.note("domain", sock.getsockopt(s.SOL_SOCKET, s.SO_DOMAIN))
        t.note("type", sock.getsockopt(s.SOL_SOCKET, s.SO_TYPE))
        t.note("protocol", sock.getsockopt(s.SOL_SOCKET, s.SO_PROTOCOL))


@scenario(needs=["mptcp"])
def multipath_tcp(s, t):
    """Multipath TCP is another protocol of stream sockets, and can listen."""
    sock = t.socket(s.AF_INET, s.SOCK_STREAM, 262)
    t.note("proto", sock.proto)
    sock.bind(("127.0.0.1", 0))
    t.call("listen", sock.listen)


@scenario(needs=["udplite"])
def udp_lite(s, t):
    """UDP-Lite carries datagrams like UDP."""
    one, two = (t.socket(s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_UDPLITE) for _ in range(2))
    one.bind(("127.0.0.1", 0))
    t.note("sent", two.sendto(b"lite", one.getsockname()))
    t.note("data", one.recvfrom(10))


@scenario
def flags_in_the_type(s, t):
    """SOCK_NONBLOCK gives timeout 0; neither it nor SOCK_CLOEXEC shows in the type."""
    for flags in (0, s.SOCK_NONBLOCK, s.SOCK_CLOEXEC, s.SOCK_NONBLOCK | s.SOCK_CLOEXEC):
        sock = t.socket(s.AF_INET, s.SOCK_STREAM | flags)
        t.note("type", int(sock.type))
        t.note("timeout", sock.gettimeout())
        t.note("blocking", sock.getblocking())


@scenario
def impossible_kinds(s, t):
    """Families, types and protocols that do not exist fail with the error of the kernel."""
    t.call("family", t.socket, 99, s.SOCK_STREAM)
    t.call("family 45", t.socket, 45, s.SOCK_STREAM)
    t.call("type 0", t.socket, s.AF_INET, 0)
    t.call("type 99", t.socket, s.AF_INET, 99)
    t.call("type 11", t.socket, s.AF_INET, 11)
    t.call("tcp datagrams", t.socket, s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_TCP)
    t.call("proto", t.socket, s.AF_UNIX, s.SOCK_STREAM, 77)
    t.call("rdm", t.socket, s.AF_INET, s.SOCK_RDM)
    t.call("negative proto", t.socket, s.AF_INET, s.SOCK_STREAM, -2)


@scenario
def the_default_timeout_is_used(s, t):
    """New, accepted and paired sockets begin with the module's default timeout."""
    s.setdefaulttimeout(7.5)
    t.note("default", s.getdefaulttimeout())
    waiting = listener(s, t)
    t.note("new", waiting.gettimeout())
    client = t.socket()
    client.connect(waiting.getsockname())
    server, _ = waiting.accept()
    t.note("accepted", t.keep(server).gettimeout())
    t.note("pair", [t.keep(sock).gettimeout() for sock in s.socketpair()])
    s.setdefaulttimeout(None)
    t.note("again", t.socket().gettimeout())


@scenario
def the_default_timeout_zero(s, t):
    """A default timeout of 0 makes new sockets non-blocking."""
    s.setdefaulttimeout(0)
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    t.note("timeout", sock.gettimeout())
    t.note("blocking", sock.getblocking())
    sock.bind(("127.0.0.1", 0))
    t.call("recv", sock.recv, 10)


@scenario
def close_twice(s, t):
    """Closing again does nothing; the file number is -1 afterwards."""
    sock = t.socket()
    t.call("close", sock.close)
    t.call("again", sock.close)
    t.note("fileno", sock.fileno())
    t.note("detach", sock.detach())


@scenario
def use_after_close(s, t):
    """Every call on a closed socket fails with EBADF."""
    sock = t.socket()
    sock.close()
    for name, args in (
            ("bind", (("127.0.0.1", 0),)), ("connect", (("127.0.0.1", 9),)), ("connect_ex", (("127.0.0.1", 9),)),
            ("listen", ()), ("accept", ()), ("getsockname", ()), ("getpeername", ()), ("recv", (10,)),
            ("recvfrom", (10,)), ("recvmsg", (10,)), ("send", (b"x",)), ("sendall", (b"x",)),
            ("sendto", (b"x", ("127.0.0.1", 9))), ("sendmsg", ([b"x"],)), ("shutdown", (s.SHUT_RDWR,)),
            ("getsockopt", (s.SOL_SOCKET, s.SO_TYPE)), ("setsockopt", (s.SOL_SOCKET, s.SO_REUSEADDR, 1)),
            ("settimeout", (1,)), ("setblocking", (False,)), ("get_inheritable", ()), ("dup", ()),
            ("set_inheritable", (True,)), ("recv_into", (bytearray(4),)), ("recvmsg_into", ([bytearray(4)],))):
        t.call(name, getattr(sock, name), *args)


@scenario
def with_statement(s, t):
    """Leaving a `with` block closes the socket."""
    with s.socket() as sock:
        t.note("inside", sock.getsockname())
    t.note("outside", sock.fileno())
    t.call("name", sock.getsockname)


@scenario
def the_peer_sees_the_close(s, t):
    """Closing one end is the end of the stream at the other."""
    left, right = pair(s, t)
    left.send(b"last")
    left.close()
    t.note("data", right.recv(10))
    t.note("end", right.recv(10))
    t.call("send", right.send, b"x")


@scenario
def socketpair_kinds(s, t):
    """Pairs exist in AF_UNIX for every type, and nowhere else."""
    for args in ((), (s.AF_UNIX,), (s.AF_UNIX, s.SOCK_DGRAM), (s.AF_UNIX, s.SOCK_SEQPACKET),
                 (s.AF_UNIX, s.SOCK_STREAM, 0)):
        made = s.socketpair(*args)
        t.note("pair", [t.keep(sock) for sock in made])
    t.call("inet", s.socketpair, s.AF_INET)
    t.call("no family", s.socketpair, 99)
    t.call("bad type", s.socketpair, s.AF_UNIX, 99)
    t.call("bad proto", s.socketpair, s.AF_UNIX, s.SOCK_STREAM, 5)


@scenario
def socketpair_nonblocking(s, t):
    """SOCK_NONBLOCK makes both ends of a pair non-blocking."""
    made = s.socketpair(s.AF_UNIX, s.SOCK_STREAM | s.SOCK_NONBLOCK)
    for sock in made:
        t.note("timeout", t.keep(sock).gettimeout())
        t.call("recv", sock.recv, 1)


@scenario
def attributes_of_the_handle(s, t):
    """The broker reports family, type and protocol of a handle as the object has them."""
    for args in ((s.AF_INET, s.SOCK_STREAM), (s.AF_UNIX, s.SOCK_DGRAM), (s.AF_INET6, s.SOCK_STREAM, 6)):
        sock = t.socket(*args)
        t.note("kind", sock.attributes() if s.brokered else (int(sock.family), int(sock.type), sock.proto))


@scenario
def makefile_reads_lines(s, t):
    """A file object over the socket reads lines, writes, and keeps the socket open while it lives."""
    left, right = pair(s, t)
    with left.makefile("rw", encoding="utf-8", newline="\n") as file:
        right.send(b"one\ntwo\nthr")
        t.note("lines", [file.readline(), file.readline()])
        file.write("answer\n")
        file.flush()
        t.note("answer", right.recv(20))
        left.close()
        right.send(b"ee\n")
        t.note("after close", file.readline())
    t.note("end", right.recv(1))


@scenario
def makefile_with_a_timeout(s, t):
    """A read that runs into the timeout fails, and so does every read after it."""
    left, right = pair(s, t)
    left.settimeout(0.05)
    with left.makefile("rb") as file:
        right.send(b"half")
        t.call("read", file.read, 10)
        t.call("again", file.read, 10)
