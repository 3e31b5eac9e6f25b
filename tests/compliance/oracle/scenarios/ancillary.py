"""Ancillary data of the internet families, credentials, timestamps, and the error queue."""

import os
import select
import struct

from oracle.common import arrived, pair, refused_port, tcp_pair, udp, udp_pair
from oracle.scenario import scenario

IP_RECVERR, IP_RECVTTL, IP_PKTINFO, IPV6_RECVERR, SO_TIMESTAMP, SO_TIMESTAMPNS = 11, 12, 8, 25, 29, 35


def heads(control):
    """Level, type and length of each item."""
    return [(level, kind, len(data)) for level, kind, data in control]


@scenario
def packet_information(s, t):
    """IP_PKTINFO reports the interface and the addresses of a datagram."""
    here, there = udp_pair(s, t)
    there.setsockopt(s.IPPROTO_IP, IP_PKTINFO, 1)
    here.send(b"x")
    t.note("message", there.recvmsg(10, s.CMSG_SPACE(12)))


@scenario
def packet_information_as_the_source(s, t):
    """IP_PKTINFO in `sendmsg` chooses the source address."""
    here, there = t.socket(s.AF_INET, s.SOCK_DGRAM), udp(s, t)
    info = struct.pack("I4s4s", 0, s.inet_aton("127.0.0.3"), bytes(4))
    t.note("sent", here.sendmsg([b"x"], [(s.IPPROTO_IP, IP_PKTINFO, info)], 0, there.getsockname()))
    t.note("sender", there.recvfrom(10)[1])
    bad = struct.pack("I4s4s", 0, s.inet_aton("192.0.2.1"), bytes(4))
    t.call("not here", here.sendmsg, [b"x"], [(s.IPPROTO_IP, IP_PKTINFO, bad)], 0, there.getsockname())
    t.call("short", here.sendmsg, [b"x"], [(s.IPPROTO_IP, IP_PKTINFO, b"1234")], 0, there.getsockname())


@scenario
def time_to_live_and_type_of_service(s, t):
    """TTL and TOS are reported, and can be set for one datagram."""
    here, there = udp_pair(s, t)
    there.setsockopt(s.IPPROTO_IP, IP_RECVTTL, 1)
    there.setsockopt(s.IPPROTO_IP, s.IP_RECVTOS, 1)
    here.setsockopt(s.IPPROTO_IP, s.IP_TTL, 33)
    here.send(b"x")
    t.note("message", there.recvmsg(10, 100)[1])
    control = [(s.IPPROTO_IP, s.IP_TTL, struct.pack("i", 44)), (s.IPPROTO_IP, s.IP_TOS, struct.pack("i", 8))]
    t.note("sent", here.sendmsg([b"y"], control))
    t.note("message", there.recvmsg(10, 100)[1])
    t.call("bad", here.sendmsg, [b"z"], [(s.IPPROTO_IP, s.IP_TTL, struct.pack("i", 300))])


@scenario
def buffer_is_too_small(s, t):
    """Items that do not fit are truncated or omitted, with MSG_CTRUNC."""
    here, there = udp_pair(s, t)
    there.setsockopt(s.IPPROTO_IP, IP_PKTINFO, 1)
    there.setsockopt(s.IPPROTO_IP, IP_RECVTTL, 1)
    for size in (0, 8, 15, s.CMSG_LEN(0), s.CMSG_LEN(5), s.CMSG_LEN(12), s.CMSG_SPACE(12), s.CMSG_SPACE(12) + 4, 200):
        here.send(b"x")
        t.note(f"size {size}", there.recvmsg(10, size))


@scenario
def unknown_items(s, t):
    """Unknown ancillary data is refused or ignored, depending on its level."""
    here, _ = udp_pair(s, t)
    for level, kind, data in ((s.IPPROTO_IP, 999, b"x"), (s.SOL_SOCKET, 999, b"x"), (999, 1, b"x"),
                              (s.IPPROTO_IP, IP_PKTINFO, b"")):
        t.call(f"item {level} {kind}", here.sendmsg, [b"x"], [(level, kind, data)])


@scenario(needs=["ipv6"])
def hop_limit_and_packet_information(s, t):
    """IPv6 reports hop limit, interface and traffic class, and accepts them."""
    here, there = udp_pair(s, t, s.AF_INET6)
    for name in (s.IPV6_RECVPKTINFO, s.IPV6_RECVHOPLIMIT, s.IPV6_RECVTCLASS):
        there.setsockopt(s.IPPROTO_IPV6, name, 1)
    here.send(b"x")
    t.note("message", there.recvmsg(10, 200)[1:])
    control = [(s.IPPROTO_IPV6, s.IPV6_HOPLIMIT, struct.pack("i", 5)), (s.IPPROTO_IPV6, s.IPV6_TCLASS, struct.pack("i", 32))]
    t.note("sent", here.sendmsg([b"y"], control))
    t.note("message", there.recvmsg(10, 200)[1:])
    t.call("bad", here.sendmsg, [b"z"], [(s.IPPROTO_IPV6, s.IPV6_HOPLIMIT, struct.pack("i", 256))])


@scenario
def timestamps(s, t):
    """SO_TIMESTAMP and SO_TIMESTAMPNS add an item with the time."""
    here, there = udp_pair(s, t)
    for option, size in ((SO_TIMESTAMP, 16), (SO_TIMESTAMPNS, 16)):
        there.setsockopt(s.SOL_SOCKET, option, 1)
        here.send(b"x")
        data, control, flags, _ = there.recvmsg(10, s.CMSG_SPACE(size))
        t.note("message", (data, heads(control), flags))
        t.note("a time", struct.unpack_from("l", control[0][2])[0] > 1_600_000_000)


@scenario
def drops_are_counted(s, t):
    """SO_RXQ_OVFL reports how many datagrams were lost."""
    here, there = udp_pair(s, t)
    there.setsockopt(s.SOL_SOCKET, 40, 1)
    there.setsockopt(s.SOL_SOCKET, s.SO_RCVBUF, 0)
    for _ in range(50):
        here.send(b"x" * 500)
    there.recv(1000)
    while arrived(s, there, select.POLLIN, 0):
        there.recv(1000)
    here.send(b"after")
    data, control, _, _ = there.recvmsg(10, 100)
    t.note("message", (data, heads(control), control[0][2] != bytes(4)))


@scenario
def credentials_on_request(s, t):
    """With SO_PASSCRED a message carries the sender's identity."""
    left, right = pair(s, t)
    right.setsockopt(s.SOL_SOCKET, s.SO_PASSCRED, 1)
    left.send(b"x")
    data, control, flags, _ = right.recvmsg(10, s.CMSG_SPACE(12))
    t.note("message", (data, heads(control), flags))
    pid, uid, gid = struct.unpack("3i", control[0][2])
    t.note("who", (t.own(pid), uid, gid))


@scenario(needs=["namespace"])
def own_credentials(s, t):
    """A process can send its own credentials."""
    left, right = pair(s, t, s.SOCK_DGRAM)
    right.setsockopt(s.SOL_SOCKET, s.SO_PASSCRED, 1)
    mine = struct.pack("3i", os.getpid(), os.geteuid(), os.getegid())
    t.call("sent", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_CREDENTIALS, mine)])
    t.call("message", right.recvmsg, 10, s.CMSG_SPACE(12), s.MSG_DONTWAIT)


@scenario
def impossible_credentials(s, t):
    """Credentials of a missing process, and truncated ones, are refused."""
    left, _ = pair(s, t, s.SOCK_DGRAM)
    missing = struct.pack("3i", 4194303, os.geteuid(), os.getegid())
    t.call("no such process", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_CREDENTIALS, missing)])
    t.call("short", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_CREDENTIALS, b"1234")])


@scenario
def error_queue(s, t):
    """With IP_RECVERR the ICMP error is read from the error queue, with the lost datagram and its origin."""
    sock = udp(s, t)
    sock.setsockopt(s.IPPROTO_IP, IP_RECVERR, 1)
    address = ("127.0.0.1", refused_port(s, t))
    sock.sendto(b"lost datagram", address)
    arrived(s, sock, select.POLLERR)
    data, control, flags, sender = sock.recvmsg(100, 200, s.MSG_ERRQUEUE)
    t.note("message", (data, heads(control), flags, sender[0], sender[1] == address[1]))
    number, origin, kind, code = struct.unpack_from("IBBB", control[0][2])
    t.note("error", (number, origin, kind, code))
    t.call("empty", sock.recvmsg, 100, 200, s.MSG_ERRQUEUE)


@scenario
def error_queue_never_waits(s, t):
    """Reading an empty error queue is EAGAIN on a blocking socket."""
    sock = udp(s, t)
    t.call("recv", sock.recv, 10, s.MSG_ERRQUEUE)
    t.call("recvfrom", sock.recvfrom, 10, s.MSG_ERRQUEUE)
    t.call("recvmsg", sock.recvmsg, 10, 0, s.MSG_ERRQUEUE)
    sock.setblocking(False)
    t.call("non-blocking", sock.recvmsg, 10, 0, s.MSG_ERRQUEUE)


@scenario
def error_queue_with_a_timeout(s, t):
    """With a timeout an empty error queue is waited for."""
    sock = udp(s, t)
    sock.settimeout(0.05)
    t.call("recvmsg", sock.recvmsg, 10, 0, s.MSG_ERRQUEUE)


@scenario
def errors_with_the_queue(s, t):
    """With IP_RECVERR errors reach sockets that are not connected, and the next call fails with them."""
    sock = udp(s, t)
    sock.setsockopt(s.IPPROTO_IP, IP_RECVERR, 1)
    sock.sendto(b"x", ("127.0.0.1", refused_port(s, t)))
    arrived(s, sock, select.POLLERR)
    t.call("recv", sock.recv, 10, s.MSG_DONTWAIT)
    t.call("then", sock.recv, 10, s.MSG_DONTWAIT)


@scenario(needs=["ipv6"])
def error_queue_of_ipv6(s, t):
    """IPv6 has an error queue too."""
    here, there = udp_pair(s, t, s.AF_INET6)
    here.setsockopt(s.IPPROTO_IPV6, IPV6_RECVERR, 1)
    there.close()
    here.send(b"lost")
    arrived(s, here, select.POLLERR)
    data, control, flags, _ = here.recvmsg(100, 200, s.MSG_ERRQUEUE)
    t.note("message", (data, heads(control), flags))
    t.note("error", struct.unpack_from("IBBB", control[0][2]))


@scenario
def transmit_timestamps(s, t):
    """Software timestamps of sent datagrams are returned through the error queue."""
    here, _ = udp_pair(s, t)
    t.call("on", here.setsockopt, s.SOL_SOCKET, 37, 2 | 16 | 128)
    here.send(b"stamped")
    arrived(s, here, select.POLLERR)
    _, control, flags, _ = here.recvmsg(100, 500, s.MSG_ERRQUEUE)
    t.note("message", (heads(control), flags))


@scenario
def queue_length_of_tcp(s, t):
    """TCP_INQ reports in ancillary data how much is left to read."""
    client, server = tcp_pair(s, t)
    t.call("on", server.setsockopt, s.IPPROTO_TCP, 36, 1)
    client.send(b"0123456789")
    arrived(s, server)
    t.note("message", server.recvmsg(4, s.CMSG_SPACE(4)))


@scenario
def sizes_of_recvmsg(s, t):
    """Sizes are not negative, and the one of ancillary data fits into a C int."""
    sock = udp(s, t)
    for args in ((-1,), (10, -1), (10, 2**31), (10, 2**40)):
        t.call(f"{args}", sock.recvmsg, *args)
    for args in ((), (1.5,), (None,), (10, 1.5), (10, 0, 1.5), (10, 0, 0, 0)):
        t.call(f"{args}", sock.recvmsg, *args)


@scenario
def several_items(s, t):
    """Several items go in one message, in order."""
    here, there = udp_pair(s, t)
    there.setsockopt(s.IPPROTO_IP, IP_RECVTTL, 1)
    there.setsockopt(s.IPPROTO_IP, IP_PKTINFO, 1)
    info = struct.pack("I4s4s", 1, s.inet_aton("127.0.0.1"), bytes(4))
    items = [(s.IPPROTO_IP, IP_PKTINFO, info), (s.IPPROTO_IP, s.IP_TTL, struct.pack("i", 9))]
    t.note("sent", here.sendmsg([b"x"], items))
    t.note("items", there.recvmsg(10, 200)[1])
    t.call("twice", here.sendmsg, [b"x"], items + items)
