"""AF_UNIX: the three types, backlogs, credentials of the peer, ends."""

import select
import struct

from oracle.common import arrived, fill, pair, unix_bound as bound, unix_served as served
from oracle.scenario import scenario


@scenario
def unnamed(s, t):
    """Sockets of a pair have no names, and their datagrams no sender."""
    left, right = pair(s, t, s.SOCK_DGRAM)
    t.note("names", (left.getsockname(), left.getpeername()))
    left.send(b"data")
    t.note("from", right.recvfrom(10))
    left.send(b"data")
    t.note("message", right.recvmsg(10))


@scenario
def datagrams(s, t):
    """Datagrams keep their boundaries and report a named sender."""
    there, here = bound(s, t, t.path("there")), bound(s, t, t.path("here"))
    t.note("sent", here.sendto(b"one", t.path("there")))
    here.sendto(b"", t.path("there"))
    data, sender = there.recvfrom(10)
    t.note("got", (data, sender == t.path("here")))
    t.note("empty", there.recv(10))
    here.connect(t.path("there"))
    t.note("peer", here.getpeername() == t.path("there"))
    there.close()
    t.call("gone", here.send, b"x")


@scenario
def datagrams_of_an_abstract_sender(s, t):
    """The sender of a datagram may be abstract."""
    there, here = bound(s, t, t.path("there")), bound(s, t, t.abstract("here"))
    here.sendto(b"x", t.path("there"))
    t.note("sender", there.recvfrom(10)[1] == t.abstract("here"))


@scenario
def datagrams_wait_for_space(s, t):
    """A full queue is EAGAIN without waiting, and a timeout with one."""
    left, right = pair(s, t, s.SOCK_DGRAM)
    fill(left, b"x" * 100)
    t.call("MSG_DONTWAIT", left.send, b"x" * 100, s.MSG_DONTWAIT)
    left.settimeout(0.05)
    t.call("timeout", left.send, b"x" * 100)
    left.settimeout(120)
    task = t.start(left.send, b"y" * 100)
    t.note("early", task.ended(0.1))
    while arrived(s, right, select.POLLIN, 0.2):
        right.recv(200)
    t.finish("sent", task)


@scenario
def sequenced_packets(s, t):
    """SOCK_SEQPACKET has connections and borders; the end is an empty record."""
    waiting = served(s, t, t.path("seq"), s.SOCK_SEQPACKET)
    client = t.socket(s.AF_UNIX, s.SOCK_SEQPACKET)
    client.connect(t.path("seq"))
    server = t.keep(waiting.accept()[0])
    client.send(b"one")
    client.send(b"second")
    t.note("message", server.recvmsg(10))
    t.note("cut", server.recvmsg(3))
    client.send(b"third")
    t.note("true length", len(server.recv(2, s.MSG_TRUNC)))
    client.close()
    t.note("end", server.recvmsg(10))


@scenario
def empty_records(s, t):
    """An empty record on SOCK_SEQPACKET looks like the end, but more can follow."""
    left, right = pair(s, t, s.SOCK_SEQPACKET)
    t.note("sent", left.send(b""))
    left.send(b"after")
    t.note("empty", right.recv(10))
    t.note("after", right.recv(10))


@scenario
def backlog_is_full(s, t):
    """A full backlog is EAGAIN without waiting; with a timeout as well."""
    waiting = t.socket(s.AF_UNIX)
    waiting.bind(t.path("full"))
    waiting.listen(0)
    first, second, third = (t.socket(s.AF_UNIX) for _ in range(3))
    first.connect(t.path("full"))
    second.setblocking(False)
    t.call("connect", second.connect, t.path("full"))
    third.settimeout(0.1)
    t.call("with a timeout", third.connect, t.path("full"))
    t.note("as a number", t.socket(s.AF_UNIX, s.SOCK_STREAM | s.SOCK_NONBLOCK).connect_ex(t.path("full")))


@scenario
def connect_waits_for_the_backlog(s, t):
    """A blocking connect waits until the backlog has space."""
    waiting = t.socket(s.AF_UNIX)
    waiting.bind(t.path("full"))
    waiting.listen(0)
    t.socket(s.AF_UNIX).connect(t.path("full"))
    late = t.socket(s.AF_UNIX)
    task = t.start(late.connect, t.path("full"))
    t.note("early", task.ended(0.2))
    t.keep(waiting.accept()[0])
    t.finish("connect", task)


@scenario
def unconnected_transfer(s, t):
    """Streams need a connection; datagram sockets a destination."""
    stream, datagram = t.socket(s.AF_UNIX), t.socket(s.AF_UNIX, s.SOCK_DGRAM)
    for name, sock in (("stream", stream), ("datagram", datagram)):
        t.call(f"{name} send", sock.send, b"x")
        t.call(f"{name} peer", sock.getpeername)
    t.call("stream recv", stream.recv, 1)
    t.call("stream listen", stream.listen)
    t.call("stream accept", stream.accept)


@scenario
def peer_is_a_user(s, t):
    """SO_PEERCRED reports user and group of the peer."""
    left, _ = pair(s, t)
    pid, uid, gid = struct.unpack("3i", left.getsockopt(s.SOL_SOCKET, s.SO_PEERCRED, 12))
    t.note("pid", t.own(pid))
    t.note("user", (uid, gid))
    t.note("unconnected", t.socket(s.AF_UNIX).getsockopt(s.SOL_SOCKET, s.SO_PEERCRED, 12))


@scenario
def send_after_the_end(s, t):
    """Writing to a stream whose reader has gone is EPIPE."""
    left, right = pair(s, t)
    right.close()
    t.call("send", left.send, b"x")
    t.call("nosignal", left.send, b"x", s.MSG_NOSIGNAL)
    t.call("sendall", left.sendall, b"x")
    t.call("sendmsg", left.sendmsg, [b"x"])


@scenario
def urgent_data_on_unix(s, t):
    """MSG_OOB on AF_UNIX depends on the kernel; both sides return the same."""
    left, right = pair(s, t)
    t.call("none", right.recv, 1, s.MSG_OOB)
    t.call("send", left.send, b"!", s.MSG_OOB)
    t.call("recv", right.recv, 1, s.MSG_OOB)


@scenario
def reset_by_unread_data(s, t):
    """Closing with unread data resets the stream at the other end."""
    left, right = pair(s, t)
    left.send(b"never read")
    right.close()
    t.call("recv", left.recv, 10)
    t.call("again", left.recv, 10)
