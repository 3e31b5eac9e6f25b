"""Common first steps of scenarios."""

import select
import time

LOOPBACK = {2: "127.0.0.1", 10: "::1"}


def listener(s, t, family=2, backlog=8):
    """A listening TCP socket on loopback."""
    made = t.socket(family, s.SOCK_STREAM)
    made.bind((LOOPBACK[int(family)], 0))
    made.listen(backlog)
    return made


def tcp_pair(s, t, family=2):
    """A connected client and the server's end."""
    with listener(s, t, family) as waiting:
        client = t.socket(family, s.SOCK_STREAM)
        client.connect(waiting.getsockname())
        server, _ = waiting.accept()
    return client, t.keep(server)


def udp(s, t, family=2):
    """A UDP socket bound to loopback."""
    made = t.socket(family, s.SOCK_DGRAM)
    made.bind((LOOPBACK[int(family)], 0))
    return made


def udp_pair(s, t, family=2):
    """Two UDP sockets, the first connected to the second."""
    here, there = udp(s, t, family), udp(s, t, family)
    here.connect(there.getsockname())
    return here, there


def pair(s, t, kind=None):
    """A socket pair of AF_UNIX."""
    made = s.socketpair(s.AF_UNIX, s.SOCK_STREAM if kind is None else kind)
    return t.keep(made[0]), t.keep(made[1])


def unix_served(s, t, name, kind=None):
    """A listening AF_UNIX socket with a name."""
    made = t.socket(s.AF_UNIX, s.SOCK_STREAM if kind is None else kind)
    made.bind(name)
    made.listen(4)
    return made


def unix_bound(s, t, name):
    """An AF_UNIX datagram socket with a name."""
    made = t.socket(s.AF_UNIX, s.SOCK_DGRAM)
    made.bind(name)
    return made


def arrived(s, sock, events=select.POLLIN, within=120):
    """Waits until the socket has an event."""
    return bool(s.poll([(sock, events)], within))


def refused_port(s, t):
    """Returns a loopback port without a listener: a socket is bound to it, but does not listen."""
    return bound(s, t).getsockname()[1]


def bound(s, t):
    """A TCP socket that is bound and does not listen."""
    made = t.socket(s.AF_INET, s.SOCK_STREAM)
    made.bind(("127.0.0.1", 0))
    return made


def fill(sock, chunk=bytes(65536)):
    """Sends without waiting until the buffers are full, and stay so.

    Acknowledgements in flight free space: TCP may delay them, or repeat a segment, for 0.2 seconds.
    """
    before = sock.gettimeout()
    sock.settimeout(0)
    quiet = 0
    try:
        while quiet < 25:
            try:
                sock.send(chunk)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
    finally:
        sock.settimeout(before)
