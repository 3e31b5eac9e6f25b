"""TCP: connecting, listening, accepting, and how connections fail."""

import select
import struct

from oracle.common import arrived, bound, listener, refused_port, tcp_pair
from oracle.scenario import scenario


@scenario
def names_of_a_connection(s, t):
    """Both ends agree on the names."""
    waiting = listener(s, t)
    client = t.socket()
    t.note("listener", waiting.getsockname())
    client.connect(waiting.getsockname())
    server, address = waiting.accept()
    t.keep(server)
    t.note("address", address)
    t.note("client", (client.getsockname(), client.getpeername()))
    t.note("server", (server.getsockname(), server.getpeername()))
    t.note("kind", server)


@scenario
def refused(s, t):
    """Connecting to a port without a listener is refused, as an exception and as a number."""
    port = refused_port(s, t)
    t.call("connect", t.socket().connect, ("127.0.0.1", port))
    t.call("connect_ex", t.socket().connect_ex, ("127.0.0.1", port))
    sock = t.socket()
    sock.settimeout(120)
    t.call("with a timeout", sock.connect, ("127.0.0.1", port))
    t.call("again", sock.connect_ex, ("127.0.0.1", port))


@scenario
def connecting_twice(s, t):
    """A connected socket cannot be connected, nor can a listening one."""
    client, _ = tcp_pair(s, t)
    waiting = listener(s, t)
    t.call("connected", client.connect, waiting.getsockname())
    t.call("connected", client.connect_ex, waiting.getsockname())
    t.call("listening", waiting.connect, waiting.getsockname())


@scenario
def connecting_twice_with_a_timeout(s, t):
    """With a timeout the second call reports success once more, the third EISCONN."""
    client, waiting = t.socket(), listener(s, t)
    client.settimeout(120)
    for number in range(3):
        t.call(f"connect {number}", client.connect, waiting.getsockname())


@scenario
def nonblocking_connect(s, t):
    """A non-blocking connect is under way at first, and done when the socket is writable."""
    waiting = listener(s, t)
    client = t.socket()
    client.setblocking(False)
    t.call("connect", client.connect, waiting.getsockname())
    arrived(s, client, select.POLLOUT)
    t.note("error", client.getsockopt(s.SOL_SOCKET, s.SO_ERROR))
    t.call("again", client.connect_ex, waiting.getsockname())
    t.call("once more", client.connect_ex, waiting.getsockname())


@scenario
def nonblocking_refused(s, t):
    """A refused non-blocking connect shows in SO_ERROR, once."""
    client = t.socket()
    client.setblocking(False)
    t.call("connect_ex", client.connect_ex, ("127.0.0.1", refused_port(s, t)))
    arrived(s, client, select.POLLOUT)
    t.note("error", client.getsockopt(s.SOL_SOCKET, s.SO_ERROR))
    t.note("again", client.getsockopt(s.SOL_SOCKET, s.SO_ERROR))


@scenario
def accept_without_a_listener(s, t):
    """Accepting on what does not listen fails at once, in every timeout mode."""
    for timeout in (None, 0, 5):
        sock = bound(s, t)
        sock.settimeout(timeout)
        t.call(f"accept {timeout}", sock.accept)


@scenario
def accept_nothing(s, t):
    """Accepting without a connection: EAGAIN, or the timeout."""
    waiting = listener(s, t)
    waiting.settimeout(0)
    t.call("non-blocking", waiting.accept)
    waiting.settimeout(0.05)
    t.call("timeout", waiting.accept)


@scenario
def accepted_sockets_block(s, t):
    """The listener's timeout is not inherited."""
    for timeout in (None, 0, 5):
        waiting = listener(s, t)
        waiting.settimeout(timeout)
        client = t.socket()
        client.connect(waiting.getsockname())
        arrived(s, waiting)
        server, _ = waiting.accept()
        t.note(f"accepted {timeout}", t.keep(server).gettimeout())


@scenario
def accept_takes_in_order(s, t):
    """Connections are accepted in their order of arrival."""
    waiting = listener(s, t)
    names = []
    for number in range(3):
        client = t.socket()
        client.connect(waiting.getsockname())
        client.send(bytes([number]))
        names.append(client.getsockname())
    for name in names:
        server, address = waiting.accept()
        t.note("in order", address == name)
        t.note("data", t.keep(server).recv(1))


@scenario
def reset(s, t):
    """A connection closed with SO_LINGER 0 is reset: ECONNRESET, and then the end."""
    client, server = tcp_pair(s, t)
    client.setsockopt(s.SOL_SOCKET, s.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    arrived(s, server)
    t.call("recv", server.recv, 10)
    t.call("again", server.recv, 10)
    t.call("send", server.send, b"x")


@scenario
def reset_shows_in_so_error(s, t):
    """SO_ERROR takes a pending reset; nothing of it is left for the next call."""
    client, server = tcp_pair(s, t)
    client.setsockopt(s.SOL_SOCKET, s.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    arrived(s, server)
    t.note("error", server.getsockopt(s.SOL_SOCKET, s.SO_ERROR))
    t.note("again", server.getsockopt(s.SOL_SOCKET, s.SO_ERROR))
    t.call("recv", server.recv, 10)


@scenario
def address_in_use(s, t):
    """Binding to a port in use, binding again, and binding to a foreign address fail."""
    waiting = listener(s, t)
    t.call("taken", t.socket().bind, waiting.getsockname())
    t.call("again", waiting.bind, ("127.0.0.1", 0))
    t.call("not here", t.socket().bind, ("192.0.2.1", 0))


@scenario
def listening_again(s, t):
    """`listen` takes any number, negative ones as 0, and may be repeated."""
    sock = bound(s, t)
    for backlog in (0, 5, -1, 10000):
        t.call(f"listen {backlog}", sock.listen, backlog)
    t.call("default", sock.listen)
    t.note("accepts", sock.getsockopt(s.SOL_SOCKET, s.SO_ACCEPTCONN))
    t.call("datagrams", t.socket(s.AF_INET, s.SOCK_DGRAM).listen)
    client, _ = tcp_pair(s, t)
    t.call("connected", client.listen)
