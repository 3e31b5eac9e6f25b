"""The three timeout modes: none, zero, and a number of seconds."""

import time

from oracle.common import fill, listener, pair, tcp_pair, udp
from oracle.scenario import scenario

READERS = (("recv", (10,)), ("recvfrom", (10,)), ("recvmsg", (10,)), ("recv_into", (bytearray(10),)),
           ("recvfrom_into", (bytearray(10),)), ("recvmsg_into", ([bytearray(10)],)))


@scenario
def settimeout_and_gettimeout(s, t):
    """The timeout is reported as a float; None blocks."""
    sock = t.socket()
    for value in (None, 0, 0.0, 1, 2.5, 0.001, 1e-9, 86400 * 365):
        t.call(f"set {value}", sock.settimeout, value)
        t.note("get", (sock.gettimeout(), sock.getblocking()))


@scenario
def setblocking(s, t):
    """`setblocking` is a timeout of None or 0; any truth value will do."""
    sock = t.socket()
    for flag in (True, False, 1, 0):
        t.call(f"set {flag}", sock.setblocking, flag)
        t.note("get", (sock.gettimeout(), sock.getblocking()))


@scenario
def impossible_timeouts(s, t):
    """Negative timeouts are ValueErrors, huge ones OverflowErrors, others TypeErrors; nothing changes."""
    sock = t.socket()
    sock.settimeout(3)
    for value in (-1, -0.001, -1e-9, 1e20, 1e300, "5", [1], {}):
        t.call(f"set {value}", sock.settimeout, value)
    t.call("nothing", sock.settimeout)
    t.call("two", sock.settimeout, 1, 2)
    t.note("unchanged", sock.gettimeout())


@scenario
def impossible_default_timeouts(s, t):
    """The same for the module's default."""
    for value in (-1, 1e20, "5", [1]):
        t.call(f"set {value}", s.setdefaulttimeout, value)
    t.call("nothing", s.setdefaulttimeout)
    t.note("unchanged", s.getdefaulttimeout())
    for value in (0, 2, 0.5, None):
        t.call(f"set {value}", s.setdefaulttimeout, value)
        t.note("get", s.getdefaulttimeout())


@scenario
def reading_without_waiting(s, t):
    """With timeout 0 every reading call is EAGAIN at once."""
    _, server = tcp_pair(s, t)
    server.settimeout(0)
    for name, args in READERS:
        t.call(name, getattr(server, name), *args)


@scenario
def reading_with_dontwait(s, t):
    """MSG_DONTWAIT does the same on a blocking socket."""
    _, server = tcp_pair(s, t)
    flag = s.MSG_DONTWAIT
    for name, args in (("recv", (10, flag)), ("recvfrom", (10, flag)), ("recvmsg", (10, 0, flag)),
                       ("recv_into", (bytearray(9), 9, flag)), ("recvfrom_into", (bytearray(9), 9, flag))):
        t.call(name, getattr(server, name), *args)


@scenario
def reading_with_a_timeout(s, t):
    """With a timeout every reading call ends in TimeoutError, without errno."""
    _, server = tcp_pair(s, t)
    server.settimeout(0.02)
    for name, args in READERS:
        t.call(name, getattr(server, name), *args)


@scenario
def dontwait_with_a_timeout(s, t):
    """MSG_DONTWAIT does not shorten a timeout."""
    client, server = tcp_pair(s, t)
    server.settimeout(300)
    task = t.start(server.recv, 10, s.MSG_DONTWAIT)
    t.note("early", task.ended(0.1))
    client.send(b"in time")
    t.finish("recv", task)


@scenario
def data_comes_in_time(s, t):
    """A waiting call returns data that arrives before its deadline."""
    left, right = pair(s, t)
    right.settimeout(120)
    task = t.start(right.recv, 10)
    t.note("early", task.ended(0.1))
    left.send(b"in time")
    t.finish("data", task)


@scenario
def each_wait_has_its_own_timeout(s, t):
    """A short timeout ends while a long one on another socket goes on."""
    left, right = pair(s, t)
    _, other = pair(s, t)
    right.settimeout(300)
    other.settimeout(0.25)
    task = t.start(right.recv, 10)
    t.call("recv", other.recv, 1)
    t.note("long one ended", task.ended())
    left.send(b"in time")
    t.finish("data", task)


@scenario
def writing_with_a_timeout(s, t):
    """A full buffer ends in TimeoutError."""
    left, _ = pair(s, t)
    fill(left, bytes(1000))
    left.settimeout(0.05)
    t.call("send", left.send, bytes(1 << 20))
    t.call("sendmsg", left.sendmsg, [bytes(1 << 20)])
    t.call("sendall", left.sendall, bytes(1 << 20))


@scenario
def sendall_has_one_deadline(s, t):
    """A reader that takes a little now and then does not prolong `sendall`."""
    left, right = pair(s, t)
    left.settimeout(0.4)
    task = t.start(left.sendall, bytes(4 << 20))
    # A reader that goes on for as long as this would take all of it, if the deadline moved.
    for _ in range(4000):
        if task.ended(0.05):
            break
        right.recv(1000)
    t.finish("sendall", task)


@scenario
def send_takes_a_part(s, t):
    """With a timeout `send` gives what fitted."""
    left, _ = pair(s, t)
    left.settimeout(120)
    sent = left.send(bytes(4 << 20))
    t.note("a part", 0 < sent < 4 << 20)


@scenario
def accepting_in_time(s, t):
    """`accept` with a timeout accepts a connection that arrives before the deadline."""
    waiting = listener(s, t)
    waiting.settimeout(120)
    task = t.start(waiting.accept)
    t.note("early", task.ended(0.1))
    client = t.socket()
    client.connect(waiting.getsockname())
    server, address = task.outcome()
    t.note("address", address == client.getsockname())
    t.note("timeout", t.keep(server).gettimeout())


@scenario
def connecting_with_a_timeout(s, t):
    """`connect` with a timeout succeeds, and leaves the timeout as it is."""
    waiting = listener(s, t)
    client = t.socket()
    client.settimeout(120)
    t.call("connect", client.connect, waiting.getsockname())
    t.note("timeout", client.gettimeout())
    other = t.socket()
    other.settimeout(120)
    t.call("connect_ex", other.connect_ex, waiting.getsockname())


@scenario
def connecting_runs_into_the_timeout(s, t):
    """A connect without an answer: TimeoutError, and EAGAIN from connect_ex."""
    waiting = listener(s, t, backlog=0)
    address = waiting.getsockname()
    for _ in range(4):  # fills the backlog; the kernel drops later connections
        client = t.socket(s.AF_INET, s.SOCK_STREAM | s.SOCK_NONBLOCK)
        client.connect_ex(address)
    time.sleep(0.05)
    late = t.socket()
    late.settimeout(0.1)
    t.call("connect", late.connect, address)
    other = t.socket()
    other.settimeout(0.1)
    t.call("connect_ex", other.connect_ex, address)


@scenario
def changing_the_timeout(s, t):
    """A new timeout holds for calls that start later."""
    _, right = pair(s, t)
    right.settimeout(0.05)
    t.call("short", right.recv, 1)
    right.settimeout(0)
    t.call("zero", right.recv, 1)
    right.settimeout(None)
    task = t.start(right.recv, 1)
    t.note("blocks", task.ended(0.1))
    right.shutdown(s.SHUT_RDWR)
    t.finish("ended", task)


@scenario
def datagrams_in_every_mode(s, t):
    """UDP in the three modes."""
    sock = udp(s, t)
    for timeout in (0, 0.02):
        sock.settimeout(timeout)
        for name, args in READERS:
            t.call(f"{name} {timeout}", getattr(sock, name), *args)
    sock.sendto(b"self", sock.getsockname())
    t.note("data", sock.recv(10))


@scenario
def many_waiters(s, t):
    """Several calls wait on one socket, and each datagram wakes one of them."""
    sock = udp(s, t)
    sock.settimeout(120)
    tasks = [t.start(sock.recv, 10) for _ in range(4)]
    t.note("early", [task.ended(0.02) for task in tasks])
    for number in range(4):
        sock.sendto(bytes([number]), sock.getsockname())
    t.note("all", sorted(task.outcome() for task in tasks))
