"""TCP: transfer, waiting for all of it, urgent data, ends."""

import select

from oracle.common import arrived, fill, tcp_pair
from oracle.scenario import scenario


@scenario
def echo(s, t):
    """What one end sends the other receives, in both directions."""
    client, server = tcp_pair(s, t)
    t.note("sent", client.send(b"hello"))
    t.note("data", server.recv(100))
    t.note("all", server.sendall(b"and back"))
    t.note("data", client.recv(100))


@scenario
def a_stream_has_no_borders(s, t):
    """Parts sent one by one are received as the reader likes."""
    client, server = tcp_pair(s, t)
    for part in (b"ab", b"cd", b"ef"):
        client.send(part)
    t.note("first", server.recv(3, s.MSG_WAITALL))
    t.note("rest", server.recv(3, s.MSG_WAITALL))


@scenario
def waitall_waits(s, t):
    """MSG_WAITALL on a blocking stream waits for the whole amount."""
    client, server = tcp_pair(s, t)
    client.send(b"first ")
    task = t.start(server.recv, 12, s.MSG_WAITALL)
    t.note("early", task.ended(0.1))
    client.send(b"second, and more")
    t.finish("data", task)
    t.note("rest", server.recv(100))


@scenario
def waitall_ends_with_the_stream(s, t):
    """MSG_WAITALL gives what there is when the stream ends."""
    client, server = tcp_pair(s, t)
    client.send(b"only this")
    client.close()
    t.note("data", server.recv(100, s.MSG_WAITALL))
    t.note("end", server.recv(100, s.MSG_WAITALL))


@scenario
def waitall_with_a_timeout(s, t):
    """With a timeout the descriptor does not block, so MSG_WAITALL gives the first part."""
    client, server = tcp_pair(s, t)
    server.settimeout(120)
    client.send(b"first")
    arrived(s, server)
    t.note("data", server.recv(100, s.MSG_WAITALL))


@scenario
def waitall_and_dontwait(s, t):
    """MSG_DONTWAIT wins over MSG_WAITALL."""
    client, server = tcp_pair(s, t)
    t.call("nothing", server.recv, 10, s.MSG_WAITALL | s.MSG_DONTWAIT)
    client.send(b"part")
    arrived(s, server)
    t.call("part", server.recv, 10, s.MSG_WAITALL | s.MSG_DONTWAIT)


@scenario
def peek_leaves_the_data(s, t):
    """MSG_PEEK returns the same data until it is received."""
    client, server = tcp_pair(s, t)
    client.send(b"peekaboo")
    arrived(s, server)
    t.note("peek", server.recv(4, s.MSG_PEEK))
    t.note("peek", server.recv(100, s.MSG_PEEK))
    t.note("take", server.recv(100))


@scenario
def peek_and_waitall(s, t):
    """MSG_PEEK with MSG_WAITALL waits for the amount and leaves it."""
    client, server = tcp_pair(s, t)
    client.send(b"abc")
    task = t.start(server.recv, 6, s.MSG_PEEK | s.MSG_WAITALL)
    t.note("early", task.ended(0.1))
    client.send(b"def")
    t.finish("peek", task)
    t.note("take", server.recv(100))


@scenario
def truncating_a_stream(s, t):
    """MSG_TRUNC on TCP throws data away and counts it."""
    client, server = tcp_pair(s, t)
    client.send(b"0123456789")
    arrived(s, server)
    t.note("thrown away", len(server.recv(4, s.MSG_TRUNC)))
    t.note("rest", server.recv(100))


@scenario
def urgent_data(s, t):
    """Out-of-band data is apart from the stream, and SO_OOBINLINE puts it in."""
    client, server = tcp_pair(s, t)
    t.call("none", server.recv, 1, s.MSG_OOB)
    client.send(b"abc")
    client.send(b"!", s.MSG_OOB)
    arrived(s, server, select.POLLPRI)
    t.note("urgent", server.recv(1, s.MSG_OOB))
    t.call("again", server.recv, 1, s.MSG_OOB)
    t.note("stream", server.recv(10))
    server.setsockopt(s.SOL_SOCKET, s.SO_OOBINLINE, 1)
    client.send(b"?", s.MSG_OOB)
    t.note("inline", server.recv(10))
    t.call("not apart", server.recv, 1, s.MSG_OOB)


@scenario
def half_close(s, t):
    """After SHUT_WR the peer reads the end and can still send."""
    client, server = tcp_pair(s, t)
    client.send(b"question")
    t.call("shutdown", client.shutdown, s.SHUT_WR)
    t.note("data", server.recv(100))
    t.note("end", server.recv(100))
    t.note("sent", server.send(b"answer"))
    t.note("answer", client.recv(100))
    t.call("send", client.send, b"more")


@scenario
def shutdown_of_reading(s, t):
    """After SHUT_RD reading gives what is there and then the end at once."""
    client, server = tcp_pair(s, t)
    client.send(b"unread")
    arrived(s, server)
    server.shutdown(s.SHUT_RD)
    t.note("data", server.recv(100))
    t.note("end", server.recv(100))
    t.note("sent", server.send(b"still"))
    t.note("data", client.recv(10))


@scenario
def shutdown_errors(s, t):
    """Shutting down what is not connected, or in a way that does not exist, fails."""
    t.call("not connected", t.socket().shutdown, s.SHUT_RDWR)
    client, _ = tcp_pair(s, t)
    t.call("how 3", client.shutdown, 3)
    t.call("how -1", client.shutdown, -1)
    t.call("both", client.shutdown, s.SHUT_RDWR)
    t.call("names", lambda: client.getsockname()[0])


@scenario
def shutdown_wakes_a_reader(s, t):
    """A blocked receive ends when its own socket is shut down."""
    client, server = tcp_pair(s, t)
    task = t.start(server.recv, 10)
    t.note("early", task.ended(0.1))
    server.shutdown(s.SHUT_RDWR)
    t.finish("data", task)
    t.note("peer", client.recv(10))


@scenario
def a_blocked_reader_delays_no_sender(s, t):
    """While a receive waits, the same socket sends."""
    client, server = tcp_pair(s, t)
    task = t.start(server.recv, 10)
    t.note("early", task.ended(0.1))
    t.note("sent", server.send(b"meanwhile"))
    t.note("data", client.recv(20))
    client.send(b"now")
    t.finish("data", task)


@scenario
def not_connected(s, t):
    """Transfer and the peer's name need a connection."""
    sock = t.socket()
    t.call("getpeername", sock.getpeername)
    t.call("send", sock.send, b"x")
    t.call("sendall", sock.sendall, b"x")
    t.call("recv", sock.recv, 10)
    t.call("recvmsg", sock.recvmsg, 10)
    t.call("sendmsg", sock.sendmsg, [b"x"])


@scenario
def sending_without_waiting(s, t):
    """A full buffer is EAGAIN with timeout 0 and with MSG_DONTWAIT."""
    client, _ = tcp_pair(s, t)
    fill(client)
    client.setblocking(True)
    t.call("MSG_DONTWAIT", client.send, bytes(65536), s.MSG_DONTWAIT)
    client.setblocking(False)
    t.call("non-blocking", client.send, bytes(65536))
    t.call("sendall", client.sendall, bytes(65536))


@scenario
def sendall_of_much(s, t):
    """Many megabytes go through `sendall` while the peer reads."""
    client, server = tcp_pair(s, t)
    data = bytes(range(256)) * 12000
    task = t.start(client.sendall, data)
    got = bytearray()
    while len(got) < len(data):
        got += server.recv(1 << 20)
    t.note("data", got)
    t.finish("sendall", task)


@scenario
def send_of_much_blocks_until_all_is_sent(s, t):
    """A blocking `send` takes everything, as the kernel does."""
    client, server = tcp_pair(s, t)
    data = bytes(3 << 20)
    task = t.start(client.send, data)
    got = 0
    while got < len(data):
        got += len(server.recv(1 << 20))
    t.finish("sent", task)


@scenario
def sendto_on_a_stream(s, t):
    """An address is ignored on a connected stream, and `recvfrom` has none to give."""
    client, server = tcp_pair(s, t)
    t.call("sendto", client.sendto, b"data", ("127.0.0.1", 9))
    t.note("recvfrom", server.recvfrom(10))
    t.call("unconnected", t.socket().sendto, b"x", ("127.0.0.1", 9))


@scenario
def zero_bytes(s, t):
    """Sending and receiving nothing is not the end of a stream."""
    client, server = tcp_pair(s, t)
    t.note("sent", client.send(b""))
    t.note("sendall", client.sendall(b""))
    client.send(b"x")
    arrived(s, server)
    t.note("none", server.recv(0))
    t.note("data", server.recv(1))


@scenario
def more_flag(s, t):
    """Data sent with MSG_MORE is held back and joined with what follows."""
    client, server = tcp_pair(s, t)
    client.send(b"held ", s.MSG_MORE)
    client.send(b"together")
    t.note("data", server.recv(13, s.MSG_WAITALL))


@scenario
def close_while_receiving(s, t):
    """A waiting receive continues although the object is closed, and returns later data."""
    client, server = tcp_pair(s, t)
    task = t.start(server.recv, 10)
    t.note("early", task.ended(0.2))
    server.close()
    client.send(b"late")
    t.finish("data", task)
