"""Raw sockets on loopback: ICMP, custom protocols, custom headers; and ping sockets."""

import struct

from oracle.common import arrived, udp
from oracle.scenario import scenario

ECHO, ECHO_REPLY, OUR_PROTOCOL, SOL_RAW = 8, 0, 253, 255


def checksum(data):
    """The Internet checksum."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) & ~1])) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(identity, payload=b"compliance"):
    """An ICMP echo request."""
    body = struct.pack("!BBHHH", ECHO, 0, 0, identity, 1) + payload
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


@scenario(needs=["raw"])
def ping(s, t):
    """An echo request on loopback is answered; both packets are seen, with their IP head."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
    t.note("sent", sock.sendto(echo_request(4711), ("127.0.0.1", 0)))
    for _ in range(2):
        data, sender = sock.recvfrom(2000)
        t.note("sender", sender)
        t.note("head", (data[0], data[9], data[12:20]))
        t.note("body", data[20:])


@scenario(needs=["raw"])
def connected_ping(s, t):
    """A raw socket can be connected and bound; names have port 0 or the protocol."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
    t.note("before", sock.getsockname())
    t.call("bind", sock.bind, ("127.0.0.1", 77))
    t.note("bound", sock.getsockname())
    t.call("connect", sock.connect, ("127.0.0.1", 99))
    t.note("peer", sock.getpeername())
    t.note("sent", sock.send(echo_request(4712)))
    t.note("types", [sock.recv(2000)[20] for _ in range(2)])


@scenario(needs=["raw"])
def icmp_filter(s, t):
    """ICMP_FILTER hides types."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
    t.call("filter", sock.setsockopt, SOL_RAW, 1, struct.pack("I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
    t.note("get", sock.getsockopt(SOL_RAW, 1, 4))
    sock.sendto(echo_request(4713), ("127.0.0.1", 0))
    t.note("type", sock.recv(2000)[20])
    t.call("no more", sock.recv, 2000, s.MSG_DONTWAIT)


@scenario(needs=["raw"])
def own_protocol(s, t):
    """A custom protocol is sent and received with the kernel's IP header."""
    here, there = (t.socket(s.AF_INET, s.SOCK_RAW, OUR_PROTOCOL) for _ in range(2))
    there.bind(("127.0.0.2", 0))
    t.note("sent", here.sendto(b"own protocol", ("127.0.0.2", 0)))
    data, sender = there.recvfrom(2000)
    t.note("sender", sender)
    t.note("packet", (data[9], data[20:]))


@scenario(needs=["raw"])
def header_included(s, t):
    """With IP_HDRINCL the sender writes the whole header, including the source address."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_RAW)
    receiver = t.socket(s.AF_INET, s.SOCK_RAW, OUR_PROTOCOL)
    t.note("included", sock.getsockopt(s.IPPROTO_IP, s.IP_HDRINCL))
    addresses = s.inet_aton("127.0.0.9") + s.inet_aton("127.0.0.1")
    head = struct.pack("!BBHHHBBH8s", 0x45, 0, 0, 99, 0, 7, OUR_PROTOCOL, 0, addresses)
    t.note("sent", sock.sendto(head + b"written by hand", ("127.0.0.1", 0)))
    data, sender = receiver.recvfrom(2000)
    t.note("sender", sender)
    t.note("packet", (data[8], data[9], data[20:]))
    t.call("short", sock.sendto, b"x", ("127.0.0.1", 0))
    t.call("receives nothing", sock.recv, 10, s.MSG_DONTWAIT)


@scenario(needs=["raw"])
def header_by_option(s, t):
    """IP_HDRINCL is an option of any raw socket."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
    for value in (1, 0):
        t.call("set", sock.setsockopt, s.IPPROTO_IP, s.IP_HDRINCL, value)
        t.note("get", sock.getsockopt(s.IPPROTO_IP, s.IP_HDRINCL))
    t.call("on UDP", udp(s, t).setsockopt, s.IPPROTO_IP, s.IP_HDRINCL, 1)


@scenario(needs=["raw"])
def raw_kinds(s, t):
    """Raw sockets need a protocol, and report it."""
    for proto in (s.IPPROTO_ICMP, s.IPPROTO_TCP, s.IPPROTO_UDP, 253, 255):
        t.call(f"proto {proto}", t.socket, s.AF_INET, s.SOCK_RAW, proto)
    t.call("proto 256", t.socket, s.AF_INET, s.SOCK_RAW, 256)
    t.call("proto 0 of IPv6", t.socket, s.AF_INET6, s.SOCK_RAW, 0)


@scenario(needs=["raw", "ipv6"])
def ping6(s, t):
    """ICMPv6 echo; the kernel writes the checksum, and no head is shown."""
    sock = t.socket(s.AF_INET6, s.SOCK_RAW, s.IPPROTO_ICMPV6)
    t.note("sent", sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 4714, 1) + b"six", ("::1", 0)))
    for _ in range(2):
        data, sender = sock.recvfrom(2000)
        t.note("packet", (data[0], data[4:], sender))


@scenario(needs=["raw", "ipv6"])
def icmp6_filter(s, t):
    """ICMP6_FILTER hides types, IPV6_CHECKSUM is refused here."""
    sock = t.socket(s.AF_INET6, s.SOCK_RAW, s.IPPROTO_ICMPV6)
    wanted = bytearray(b"\xff" * 32)
    wanted[129 // 32 * 4 + 129 % 32 // 8] &= ~(1 << 129 % 8) & 0xFF
    t.call("filter", sock.setsockopt, s.IPPROTO_ICMPV6, 1, bytes(wanted))
    sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 4715, 1), ("::1", 0))
    t.note("type", sock.recv(2000)[0])
    t.call("no more", sock.recv, 2000, s.MSG_DONTWAIT)
    t.call("checksum", sock.setsockopt, s.IPPROTO_IPV6, s.IPV6_CHECKSUM, 3)


@scenario(needs=["raw"])
def udp_seen_raw(s, t):
    """A raw socket sees datagrams of UDP too."""
    receiver = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_UDP)
    here, there = udp(s, t), udp(s, t)
    here.sendto(b"seen twice", there.getsockname())
    data, sender = receiver.recvfrom(2000)
    t.note("raw", (sender, data[28:]))
    t.note("udp", there.recv(20))


@scenario(needs=["raw"])
def raw_errors(s, t):
    """Operations that raw sockets do not support."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
    t.call("send", sock.send, b"x")
    t.call("listen", sock.listen)
    t.call("too long", sock.sendto, bytes(70000), ("127.0.0.1", 0))
    t.call("not here", sock.bind, ("192.0.2.1", 0))
    t.call("no host", sock.sendto, b"x", ("", 0))


@scenario(needs=["ping"])
def ping_socket(s, t):
    """An ICMP datagram socket pings without privileges; the kernel writes the identity."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_ICMP)
    t.note("sent", sock.sendto(echo_request(1), ("127.0.0.1", 0)))
    data, sender = sock.recvfrom(2000)
    t.note("reply", (data[0], data[8:], sender))
    identity = struct.unpack_from("!H", data, 4)[0]
    t.note("identity is the port", identity == sock.getsockname()[1])
    t.call("not an echo", sock.sendto, struct.pack("!BBHHH", 13, 0, 0, 0, 0), ("127.0.0.1", 0))


@scenario(needs=["ping", "ipv6"])
def ping_socket_of_ipv6(s, t):
    """The same for IPv6."""
    sock = t.socket(s.AF_INET6, s.SOCK_DGRAM, s.IPPROTO_ICMPV6)
    t.note("sent", sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 0, 1) + b"six", ("::1", 0)))
    arrived(s, sock)
    data, sender = sock.recvfrom(2000)
    t.note("reply", (data[0], data[8:], sender))


@scenario(needs=["raw"])
def filtered_raw(s, t):
    """A classic filter on a raw socket works on the IP packet."""
    sock = t.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)
    only_replies = (struct.pack("HBBI", 0x30, 0, 0, 20) + struct.pack("HBBI", 0x15, 0, 1, ECHO_REPLY)
                    + struct.pack("HBBI", 6, 0, 0, 0xFFFF) + struct.pack("HBBI", 6, 0, 0, 0))
    t.call("attach", s.attach_filter, sock, only_replies)
    sock.sendto(echo_request(4716), ("127.0.0.1", 0))
    t.note("type", sock.recv(2000)[20])
    t.call("no more", sock.recv, 2000, s.MSG_DONTWAIT)
