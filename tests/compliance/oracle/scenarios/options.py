"""Socket options: integers, buffers, absent values with a length, and the errors of each form."""

import struct

from oracle.common import listener, tcp_pair, udp
from oracle.scenario import scenario

BOOLEANS = ("SO_REUSEADDR", "SO_KEEPALIVE", "SO_BROADCAST", "SO_OOBINLINE", "SO_REUSEPORT", "SO_DONTROUTE")


@scenario
def booleans(s, t):
    """Switches are 0 at first and 1 once they are set to anything else."""
    sock = t.socket()
    for name in BOOLEANS:
        number = getattr(s, name)
        t.note(f"{name} before", sock.getsockopt(s.SOL_SOCKET, number))
        for value in (1, 0, 7, -1):
            t.call(f"{name} set {value}", sock.setsockopt, s.SOL_SOCKET, number, value)
            t.note(f"{name} after", sock.getsockopt(s.SOL_SOCKET, number))


@scenario
def python_booleans(s, t):
    """True and False are integers."""
    sock = t.socket()
    t.call("set", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, True)
    t.note("get", sock.getsockopt(s.SOL_SOCKET, s.SO_REUSEADDR))


@scenario
def buffer_sizes(s, t):
    """The kernel doubles buffer sizes and has a least one."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    for name in (s.SO_RCVBUF, s.SO_SNDBUF):
        for value in (0, 10000, 65536, 1 << 30):
            t.call(f"set {value}", sock.setsockopt, s.SOL_SOCKET, name, value)
            t.note("get", sock.getsockopt(s.SOL_SOCKET, name))
    t.call("negative", sock.setsockopt, s.SOL_SOCKET, s.SO_RCVBUF, -1)


@scenario
def integers_as_bytes(s, t):
    """An integer option can be read and written as bytes of any enough length."""
    sock = t.socket()
    t.call("set", sock.setsockopt, s.SOL_SOCKET, s.SO_KEEPALIVE, struct.pack("i", 1))
    for length in (1, 2, 4, 8, 1024):
        t.call(f"get {length}", sock.getsockopt, s.SOL_SOCKET, s.SO_KEEPALIVE, length)
    for value in (b"", b"\1", b"\0\0\0\0\0\0\0\0"):
        t.call(f"set {value}", sock.setsockopt, s.SOL_SOCKET, s.SO_KEEPALIVE, value)
    t.note("get", sock.getsockopt(s.SOL_SOCKET, s.SO_KEEPALIVE))


@scenario
def bytes_of_other_kinds(s, t):
    """`bytearray` and `memoryview` serve as bytes."""
    sock = t.socket()
    for value in (bytearray(struct.pack("ii", 1, 5)), memoryview(struct.pack("ii", 0, 0))):
        t.call("set", sock.setsockopt, s.SOL_SOCKET, s.SO_LINGER, value)
        t.note("get", sock.getsockopt(s.SOL_SOCKET, s.SO_LINGER, 8))


@scenario
def buffer_lengths(s, t):
    """A buffer has 1 to 1024 bytes; 0 requests an integer."""
    sock = t.socket()
    for length in (0, 1024, 1025, -1, 1 << 20):
        t.call(f"length {length}", sock.getsockopt, s.SOL_SOCKET, s.SO_TYPE, length)


@scenario
def structures(s, t):
    """SO_LINGER, SO_RCVTIMEO and TCP_INFO are structures."""
    client, _ = tcp_pair(s, t)
    t.call("linger", client.setsockopt, s.SOL_SOCKET, s.SO_LINGER, struct.pack("ii", 1, 42))
    t.note("linger", client.getsockopt(s.SOL_SOCKET, s.SO_LINGER, 8))
    t.call("short", client.setsockopt, s.SOL_SOCKET, s.SO_LINGER, b"1234")
    t.call("an integer", client.setsockopt, s.SOL_SOCKET, s.SO_LINGER, 1)
    t.call("receive timeout", client.setsockopt, s.SOL_SOCKET, s.SO_RCVTIMEO, struct.pack("ll", 3, 0))
    t.note("receive timeout", client.getsockopt(s.SOL_SOCKET, s.SO_RCVTIMEO, 16))
    t.note("state", client.getsockopt(s.IPPROTO_TCP, s.TCP_INFO, 104)[0])


@scenario
def absent_value(s, t):
    """`None` with a length is a null pointer; a length alone, or `None` alone, is a TypeError."""
    sock = t.socket()
    t.call("length 0", sock.setsockopt, s.SOL_SOCKET, s.SO_BINDTODEVICE, None, 0)
    t.call("length 4", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, None, 4)
    t.call("length 0", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, None, 0)
    t.call("no length", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, None)
    t.call("both", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, 1, 4)
    t.call("bytes and length", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, b"1234", 4)


@scenario
def unknown_options(s, t):
    """Options and levels that do not exist, and those of other protocols."""
    sock = t.socket()
    for level, name in ((s.SOL_SOCKET, 9999), (9999, 1), (s.IPPROTO_TCP, 9999), (s.IPPROTO_IP, 9999),
                        (s.IPPROTO_UDP, 1), (s.IPPROTO_IPV6, s.IPV6_V6ONLY), (-1, -1)):
        t.call(f"get {level} {name}", sock.getsockopt, level, name)
        t.call(f"set {level} {name}", sock.setsockopt, level, name, 1)
    t.call("TCP on UDP", udp(s, t).getsockopt, s.IPPROTO_TCP, s.TCP_NODELAY)


@scenario
def read_only(s, t):
    """Read-only options cannot be set."""
    sock = t.socket()
    for name in (s.SO_TYPE, s.SO_ERROR, s.SO_ACCEPTCONN, s.SO_PROTOCOL, s.SO_DOMAIN):
        t.note(f"get {name}", sock.getsockopt(s.SOL_SOCKET, name))
        t.call(f"set {name}", sock.setsockopt, s.SOL_SOCKET, name, 1)


@scenario
def ranges(s, t):
    """Level, name and value are C integers."""
    sock = t.socket()
    for value in (2**31, -2**31 - 1, 2**40):
        t.call("value", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, value)
        t.call("level", sock.setsockopt, value, s.SO_REUSEADDR, 1)
        t.call("name", sock.getsockopt, s.SOL_SOCKET, value)
    t.call("largest", sock.setsockopt, s.SOL_SOCKET, s.SO_REUSEADDR, 2**31 - 1)


@scenario
def wrong_types(s, t):
    """Floats, lists and missing arguments are TypeErrors."""
    sock = t.socket()
    for args in ((s.SOL_SOCKET,), (s.SOL_SOCKET, s.SO_TYPE, 4, 5), (1.5, 2), (s.SOL_SOCKET, None),
                 (s.SOL_SOCKET, s.SO_TYPE, 1.5)):
        t.call(f"get {len(args)}", sock.getsockopt, *args)
    for args in ((s.SOL_SOCKET, s.SO_REUSEADDR), (s.SOL_SOCKET, s.SO_REUSEADDR, 1.5),
                 (s.SOL_SOCKET, s.SO_REUSEADDR, [1]), (s.SOL_SOCKET, s.SO_REUSEADDR, 1, 2, 3)):
        t.call(f"set {len(args)}", sock.setsockopt, *args)


@scenario
def tcp_options(s, t):
    """Options of TCP keep what is set, within their ranges."""
    sock = t.socket()
    for name, value in (("TCP_NODELAY", 1), ("TCP_CORK", 1), ("TCP_KEEPIDLE", 77), ("TCP_KEEPINTVL", 11),
                        ("TCP_KEEPCNT", 3), ("TCP_SYNCNT", 4), ("TCP_MAXSEG", 1000), ("TCP_QUICKACK", 0),
                        ("TCP_USER_TIMEOUT", 5000), ("TCP_DEFER_ACCEPT", 5), ("TCP_LINGER2", 7),
                        ("TCP_WINDOW_CLAMP", 70000), ("TCP_NOTSENT_LOWAT", 16384), ("TCP_FASTOPEN", 5)):
        number = getattr(s, name, None) or {"TCP_NOTSENT_LOWAT": 25}[name]
        t.call(f"{name} before", sock.getsockopt, s.IPPROTO_TCP, number)
        t.call(f"{name} set", sock.setsockopt, s.IPPROTO_TCP, number, value)
        t.call(f"{name} after", sock.getsockopt, s.IPPROTO_TCP, number)
        t.call(f"{name} bad", sock.setsockopt, s.IPPROTO_TCP, number, -5)


@scenario
def congestion_control(s, t):
    """TCP_CONGESTION is text; one that does not exist is ENOENT."""
    sock = t.socket()
    t.note("get", sock.getsockopt(s.IPPROTO_TCP, s.TCP_CONGESTION, 16))
    t.call("set", sock.setsockopt, s.IPPROTO_TCP, s.TCP_CONGESTION, b"reno")
    t.note("get", sock.getsockopt(s.IPPROTO_TCP, s.TCP_CONGESTION, 16))
    t.call("unknown", sock.setsockopt, s.IPPROTO_TCP, s.TCP_CONGESTION, b"no-such-thing")


@scenario
def ip_options(s, t):
    """Options of IPv4 keep what is set."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    for number, value in ((s.IP_TTL, 17), (s.IP_TOS, 16), (s.IP_MULTICAST_TTL, 9), (s.IP_MULTICAST_LOOP, 0),
                          (10, 2), (8, 1), (s.IP_RECVTOS, 1), (11, 1), (15, 1)):
        t.call(f"{number} before", sock.getsockopt, s.IPPROTO_IP, number)
        t.call(f"{number} set", sock.setsockopt, s.IPPROTO_IP, number, value)
        t.call(f"{number} after", sock.getsockopt, s.IPPROTO_IP, number)
    for value in (0, 256, -2):
        t.call(f"TTL {value}", sock.setsockopt, s.IPPROTO_IP, s.IP_TTL, value)


@scenario
def multicast_interface(s, t):
    """IP_MULTICAST_IF takes an address, and gives it as bytes."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    t.call("set", sock.setsockopt, s.IPPROTO_IP, s.IP_MULTICAST_IF, s.inet_aton("127.0.0.1"))
    t.note("get", sock.getsockopt(s.IPPROTO_IP, s.IP_MULTICAST_IF, 4))
    t.call("not here", sock.setsockopt, s.IPPROTO_IP, s.IP_MULTICAST_IF, s.inet_aton("192.0.2.1"))


@scenario
def bound_to_a_device(s, t):
    """SO_BINDTODEVICE takes an interface name, and fails for one that is not there."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    t.note("before", sock.getsockopt(s.SOL_SOCKET, s.SO_BINDTODEVICE, 16))
    t.call("set", sock.setsockopt, s.SOL_SOCKET, s.SO_BINDTODEVICE, b"lo\0")
    t.note("after", sock.getsockopt(s.SOL_SOCKET, s.SO_BINDTODEVICE, 16))
    t.call("missing", sock.setsockopt, s.SOL_SOCKET, s.SO_BINDTODEVICE, b"nowhere\0")


@scenario
def accepted_sockets_inherit(s, t):
    """Options of the listener are those of the accepted socket."""
    waiting = listener(s, t)
    waiting.setsockopt(s.SOL_SOCKET, s.SO_KEEPALIVE, 1)
    waiting.setsockopt(s.IPPROTO_TCP, s.TCP_NODELAY, 1)
    client = t.socket()
    client.connect(waiting.getsockname())
    server = t.keep(waiting.accept()[0])
    t.note("keepalive", server.getsockopt(s.SOL_SOCKET, s.SO_KEEPALIVE))
    t.note("nodelay", server.getsockopt(s.IPPROTO_TCP, s.TCP_NODELAY))


@scenario
def marks_and_priorities(s, t):
    """SO_PRIORITY and SO_MARK keep what is set, as far as the user may."""
    sock = t.socket()
    for name in (s.SO_PRIORITY, s.SO_MARK):
        for value in (3, 6, 100):
            t.call(f"set {value}", sock.setsockopt, s.SOL_SOCKET, name, value)
            t.note("get", sock.getsockopt(s.SOL_SOCKET, name))


@scenario
def receive_timeout_of_the_kernel(s, t):
    """SO_RCVTIMEO ends a blocking receive with EAGAIN."""
    sock = udp(s, t)
    sock.setsockopt(s.SOL_SOCKET, s.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    t.call("recv", sock.recv, 10)
    t.call("recvmsg", sock.recvmsg, 10)
    waiting = listener(s, t)
    waiting.setsockopt(s.SOL_SOCKET, s.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    t.call("accept", waiting.accept)


@scenario
def lower_water_mark(s, t):
    """SO_RCVLOWAT keeps what is set."""
    sock = t.socket()
    t.note("before", sock.getsockopt(s.SOL_SOCKET, s.SO_RCVLOWAT))
    t.call("set", sock.setsockopt, s.SOL_SOCKET, s.SO_RCVLOWAT, 100)
    t.note("after", sock.getsockopt(s.SOL_SOCKET, s.SO_RCVLOWAT))
    t.call("send mark", sock.setsockopt, s.SOL_SOCKET, s.SO_SNDLOWAT, 100)


@scenario
def filters(s, t):
    """A classic filter on UDP: all, nothing, a bad program, and none to detach."""
    receiver, sender = udp(s, t), udp(s, t)
    t.call("detach nothing", s.detach_filter, receiver)
    t.call("attach", s.attach_filter, receiver, struct.pack("HBBI", 6, 0, 0, 0))
    sender.sendto(b"lost", receiver.getsockname())
    t.call("nothing", receiver.recv, 10, s.MSG_DONTWAIT)
    t.call("detach", s.detach_filter, receiver)
    sender.sendto(b"seen", receiver.getsockname())
    t.note("data", receiver.recv(10))
    t.call("attach short", s.attach_filter, receiver, struct.pack("HBBI", 6, 0, 0, 10))
    sender.sendto(b"0123456789", receiver.getsockname())
    t.note("cut", receiver.recv(20))
    t.call("bad", s.attach_filter, receiver, struct.pack("HBBI", 0xFFFF, 0, 0, 0))
    t.call("no return", s.attach_filter, receiver, struct.pack("HBBI", 0x20, 0, 0, 0))


@scenario
def locked_filter(s, t):
    """SO_LOCK_FILTER forbids to change the filter."""
    sock = udp(s, t)
    s.attach_filter(sock, struct.pack("HBBI", 6, 0, 0, 10))
    t.call("lock", sock.setsockopt, s.SOL_SOCKET, 44, 1)
    t.call("detach", s.detach_filter, sock)
    t.call("attach", s.attach_filter, sock, struct.pack("HBBI", 6, 0, 0, 0))
    t.call("unlock", sock.setsockopt, s.SOL_SOCKET, 44, 0)
