"""UDP: message boundaries, addresses, truncation, gathering and scattering."""

from oracle.common import udp, udp_pair
from oracle.scenario import scenario


@scenario
def sendto_and_recvfrom(s, t):
    """A datagram arrives with its sender."""
    here, there = udp(s, t), udp(s, t)
    t.note("names", (here.getsockname(), there.getsockname()))
    t.note("sent", here.sendto(b"hello", there.getsockname()))
    t.note("got", there.recvfrom(100))
    t.note("sent with flags", there.sendto(b"back", 0, here.getsockname()))
    t.note("got", here.recvfrom(100))


@scenario
def borders(s, t):
    """Each datagram is received by itself, in order."""
    here, there = udp_pair(s, t)
    for size in (1, 1000, 0, 3):
        here.send(bytes(size))
    t.note("sizes", [len(there.recv(2000)) for _ in range(4)])


@scenario
def empty_datagrams(s, t):
    """An empty datagram is a datagram, not the end."""
    here, there = udp_pair(s, t)
    t.note("sent", here.send(b""))
    t.note("got", there.recvfrom(10))
    here.sendmsg([])
    t.note("message", there.recvmsg(10))
    here.send(b"after")
    t.note("after", there.recv(10))


@scenario
def receiving_nothing(s, t):
    """`recv(0)` makes no system call; `recvfrom(0)` and `recvmsg(0)` consume a datagram."""
    here, there = udp_pair(s, t)
    t.note("empty queue", there.recv(0))
    for number in range(3):
        here.send(bytes([number]))
    t.note("recv", there.recv(0))
    t.note("recvfrom", there.recvfrom(0))
    t.note("recvmsg", there.recvmsg(0))
    t.note("next", there.recv(10))


@scenario
def truncation(s, t):
    """Bytes that do not fit are lost; `recvmsg` reports it, MSG_TRUNC returns the full length."""
    here, there = udp_pair(s, t)
    for _ in range(5):
        here.send(b"0123456789")
    t.note("cut", there.recv(4))
    t.note("message", there.recvmsg(4)[::2])
    whole = there.recv(4, s.MSG_TRUNC)
    t.note("true length", (len(whole), whole[:4]))
    buffer = bytearray(4)
    t.note("into", (there.recv_into(buffer, 4, s.MSG_TRUNC), bytes(buffer)))
    data, _, flags, _ = there.recvmsg(4, 0, s.MSG_TRUNC)
    t.note("message", (len(data), data[:4], flags))


@scenario
def peek(s, t):
    """MSG_PEEK leaves a datagram, and MSG_TRUNC with it returns its full length."""
    here, there = udp_pair(s, t)
    here.send(b"0123456789")
    t.note("peek", there.recv(3, s.MSG_PEEK))
    t.note("size", len(there.recv(1, s.MSG_PEEK | s.MSG_TRUNC)))
    t.note("from", there.recvfrom(100, s.MSG_PEEK))
    t.note("take", there.recv(100))
    t.call("gone", there.recv, 100, s.MSG_DONTWAIT)


@scenario
def waitall_means_nothing_here(s, t):
    """MSG_WAITALL does not join datagrams."""
    here, there = udp_pair(s, t)
    here.send(b"one")
    here.send(b"two")
    t.note("one", there.recv(6, s.MSG_WAITALL))
    t.note("two", there.recv(6, s.MSG_WAITALL))


@scenario
def connected(s, t):
    """A connected socket sends without an address and receives only from its peer."""
    here, there = udp_pair(s, t)
    other = udp(s, t)
    other.sendto(b"from a other", here.getsockname())
    there.sendto(b"from the peer", here.getsockname())
    t.note("got", here.recvfrom(100))
    t.note("peer", here.getpeername())
    t.note("elsewhere", here.sendto(b"x", other.getsockname()))
    t.note("arrived", other.recv(10))


@scenario
def connecting_again(s, t):
    """The peer of a datagram socket can be changed."""
    here, there = udp_pair(s, t)
    other = udp(s, t)
    here.connect(other.getsockname())
    here.send(b"to the other")
    t.note("other", other.recv(20))
    t.note("peer", here.getpeername() == other.getsockname())
    t.call("first", there.recv, 20, s.MSG_DONTWAIT)


@scenario
def without_a_destination(s, t):
    """Sending on an unconnected socket needs an address."""
    sock = udp(s, t)
    t.call("send", sock.send, b"x")
    t.call("sendall", sock.sendall, b"x")
    t.call("sendmsg", sock.sendmsg, [b"x"])
    t.call("getpeername", sock.getpeername)
    t.call("port 0", sock.sendto, b"x", ("127.0.0.1", 0))


@scenario
def autobind(s, t):
    """The first datagram gives a socket its port."""
    sock, there = t.socket(s.AF_INET, s.SOCK_DGRAM), udp(s, t)
    t.note("before", sock.getsockname())
    sock.sendto(b"x", there.getsockname())
    t.note("after", sock.getsockname()[0])
    t.note("sender", there.recvfrom(10)[1][1] == sock.getsockname()[1])


@scenario
def shutdown_of_datagrams(s, t):
    """A connected socket that is shut down reads nothing more, and cannot send."""
    here, _ = udp_pair(s, t)
    t.call("unconnected", udp(s, t).shutdown, s.SHUT_RD)
    t.call("shutdown", here.shutdown, s.SHUT_RDWR)
    t.note("recv", here.recv(10))
    t.call("send", here.send, b"x")


@scenario
def gathered(s, t):
    """`sendmsg` joins buffers into one datagram, `recvmsg_into` scatters it."""
    here, there = udp_pair(s, t)
    t.note("sent", here.sendmsg([b"one ", bytearray(b"two "), memoryview(b"three")]))
    parts = [bytearray(4), bytearray(2), bytearray(20)]
    n, control, flags, address = there.recvmsg_into(parts)
    t.note("got", (n, control, flags, address))
    t.note("parts", [bytes(part) for part in parts])


@scenario
def sendmsg_with_an_address(s, t):
    """`sendmsg` sends to its address."""
    here, there = udp(s, t), udp(s, t)
    t.note("sent", here.sendmsg([b"a", b"b"], [], 0, there.getsockname()))
    t.note("got", there.recvmsg(10))
    t.note("port 0", t.call("port 0", here.sendmsg, [b"a"], [], 0, ("127.0.0.1", 0)))


@scenario
def recvfrom_into(s, t):
    """`recvfrom_into` fills a buffer, wholly or in part, and gives the sender."""
    here, there = udp_pair(s, t)
    for _ in range(3):
        here.send(b"0123456789")
    for size, nbytes in ((20, 0), (20, 5), (4, 0)):
        buffer = bytearray(b"." * size)
        t.note("got", there.recvfrom_into(buffer, nbytes))
        t.note("buffer", bytes(buffer))


@scenario
def many_buffers(s, t):
    """1024 buffers are the most that one message can have."""
    here, there = udp_pair(s, t)
    t.call("1024", here.sendmsg, [b"x"] * 1024)
    t.note("got", len(there.recv(2000)))
    t.call("1025", here.sendmsg, [b"x"] * 1025)
    t.call("into 1025", there.recvmsg_into, [bytearray(1)] * 1025)


@scenario
def shutdown_with_a_timeout(s, t):
    """With a timeout, reading from a socket that is shut down runs into the timeout."""
    here, _ = udp_pair(s, t)
    here.settimeout(0.05)
    here.shutdown(s.SHUT_RD)
    t.call("recv", here.recv, 10)
    here.settimeout(0)
    t.call("non-blocking", here.recv, 10)
