"""Methods of the broker that Python's module lacks, against equivalent native code."""

import select
import struct

from oracle.common import listener, pair, tcp_pair, udp, udp_pair
from oracle.scenario import scenario

IN, OUT, PRI, RDHUP = select.POLLIN, select.POLLOUT, select.POLLPRI, select.POLLRDHUP


@scenario
def poll_readiness(s, t):
    """`poll` reports which sockets are ready, and for what."""
    left, right = pair(s, t)
    other = udp(s, t)
    t.note("nothing", s.poll([(right, IN), (other, IN)], 0))
    left.send(b"x")
    t.note("one", s.poll([(right, IN), (other, IN)], 5))
    t.note("both", s.poll([(right, IN | OUT), (other, IN | OUT)], 5))
    t.note("no events requested", s.poll([(right, 0)], 0))


@scenario
def poll_of_many_states(s, t):
    """End of stream, errors and urgent data have their own events."""
    left, right = pair(s, t)
    left.close()
    t.note("closed", s.poll([(right, IN)], 5))
    t.note("hang-up unasked", s.poll([(right, 0)], 5))
    client, server = tcp_pair(s, t)
    client.shutdown(s.SHUT_WR)
    t.note("half closed", s.poll([(server, IN | RDHUP)], 5))
    server.send(b"!", s.MSG_OOB)
    t.note("urgent", s.poll([(client, PRI)], 5))
    t.note("unconnected", s.poll([(t.socket(), IN | OUT)], 5))
    t.note("listener", s.poll([(listener(s, t), IN | OUT)], 0))


@scenario
def poll_waits(s, t):
    """`poll` wakes when something happens, and ends at its timeout."""
    left, right = pair(s, t)
    task = t.start(s.poll, [(right, IN)], 5)
    t.note("early", task.ended(0.1))
    left.send(b"x")
    t.finish("events", task)
    right.recv(1)
    t.note("timeout", s.poll([(right, IN)], 0.05))
    t.note("no sockets", s.poll([], 0.01))


@scenario
def poll_of_a_closed_socket(s, t):
    """A closed socket returns POLLNVAL immediately."""
    left, right = pair(s, t)
    if s.brokered:
        left.close()
        t.note("events", [events for _, events in s.poll([(left, IN), (right, 0)], 5)][:1])
    else:
        poller = select.poll()
        poller.register(4095, IN)
        t.note("events", [events for _, events in poller.poll(5000)])


@scenario
def poll_the_same_socket_twice(s, t):
    """A listener is readable while a connection waits."""
    waiting = listener(s, t)
    client = t.socket()
    client.connect(waiting.getsockname())
    t.note("readable", s.poll([(waiting, IN)], 5))
    t.keep(waiting.accept()[0])
    t.note("taken", s.poll([(waiting, IN)], 0))


@scenario
def position_of_a_connection(s, t):
    """`position` counts the bytes of a TCP connection that were sent and received."""
    client, server = tcp_pair(s, t)
    before = [s.position(client), s.position(server)]

    def moved():
        now = [s.position(client), s.position(server)]
        return [(a - c, b - d) for (a, b), (c, d) in zip(now, before)]

    t.note("nothing", moved())
    client.sendall(b"x" * 1000)
    server.recv(300, s.MSG_WAITALL)
    t.note("sent and partly received", moved())
    server.recv(10, s.MSG_PEEK)
    t.note("peeked", moved())
    server.sendall(b"y")
    server.recv(700, s.MSG_WAITALL)
    client.recv(1)
    t.note("all received", moved())
    t.call("udp", s.position, udp(s, t))


@scenario
def resumed_position(s, t):
    """`resume` returns what receivers have taken. The process is the same, so that it drops nothing."""
    client, server = tcp_pair(s, t)
    client.sendall(b"x" * 1000)
    server.recv(300, s.MSG_WAITALL)
    t.note("known", s.resume(server, 300))
    t.note("not known", s.resume(server, None))
    t.note("next", len(server.recv(700, s.MSG_WAITALL)))
    t.note("all", s.resume(server, 5))
    t.call("udp", s.resume, udp(s, t), 0)


@scenario
def receive_many(s, t):
    """`recvmmsg` returns available messages, up to its limit."""
    here, there = udp_pair(s, t)
    for number in range(5):
        here.send(b"message %d" % number)
    t.note("three", s.recvmmsg(there, 3, 100))
    t.note("rest", s.recvmmsg(there, 10, 7))
    there.settimeout(0.05)
    t.call("none", s.recvmmsg, there, 10, 100)
    there.settimeout(0)
    t.call("non-blocking", s.recvmmsg, there, 10, 100)


@scenario
def receive_many_with_control(s, t):
    """Each message has its ancillary data and flags."""
    here, there = udp_pair(s, t)
    there.setsockopt(s.IPPROTO_IP, 12, 1)
    for number in range(2):
        here.send(b"message %d" % number)
    t.note("messages", s.recvmmsg(there, 2, 4, s.CMSG_SPACE(4)))


@scenario
def receive_many_waits_for_one(s, t):
    """`recvmmsg` waits for the first message only."""
    here, there = udp_pair(s, t)
    task = t.start(s.recvmmsg, there, 5, 100)
    t.note("early", task.ended(0.1))
    here.send(b"first")
    t.finish("messages", task)


@scenario
def send_many(s, t):
    """`sendmmsg` sends in order, each message to its address."""
    here, there, other = udp(s, t), udp(s, t), udp(s, t)
    messages = [([b"one"], [], there.getsockname()), ([b"two", b"three"], [], other.getsockname()),
                ([b""], [], there.getsockname())]
    t.note("sent", s.sendmmsg(here, messages))
    t.note("there", [there.recv(100), there.recv(100)])
    t.note("other", other.recv(100))


@scenario
def send_many_until_an_error(s, t):
    """The list ends at the first failure; a failure of the first one is raised."""
    here, there = udp(s, t), udp(s, t)
    good, bad = ([b"good"], [], there.getsockname()), ([b"bad"], [], ("127.0.0.1", 0))
    t.call("later", s.sendmmsg, here, [good, bad, good])
    t.call("first", s.sendmmsg, here, [bad, good])
    t.note("arrived", there.recv(10))
    t.call("no more", there.recv, 10, s.MSG_DONTWAIT)


@scenario
def send_many_over_a_stream(s, t):
    """A connected stream takes the messages one after the other."""
    client, server = tcp_pair(s, t)
    t.note("sent", s.sendmmsg(client, [([b"one "],), ([b"two"],)]))
    t.note("data", server.recv(7, s.MSG_WAITALL))


@scenario
def bytes_to_read(s, t):
    """FIONREAD counts what can be read; of datagrams the next one."""
    left, right = pair(s, t)
    t.note("empty", s.ioctl(right, "FIONREAD"))
    left.send(b"12345")
    t.note("stream", s.ioctl(right, "SIOCINQ"))
    here, there = udp_pair(s, t)
    here.send(b"123")
    here.send(b"45")
    t.note("datagram", s.ioctl(there, "FIONREAD"))
    t.call("listener", s.ioctl, listener(s, t), "FIONREAD")


@scenario
def bytes_to_send(s, t):
    """SIOCOUTQ counts unsent bytes."""
    client, _ = tcp_pair(s, t)
    t.note("nothing", s.ioctl(client, "SIOCOUTQ"))
    left, right = pair(s, t)
    left.send(b"12345")
    t.note("something", s.ioctl(left, "SIOCOUTQ") > 0)
    right.recv(10)
    t.note("taken", s.ioctl(left, "SIOCOUTQ"))


@scenario
def at_the_urgent_mark(s, t):
    """SIOCATMARK reports whether the urgent byte is next."""
    client, server = tcp_pair(s, t)
    t.note("before", s.ioctl(server, "SIOCATMARK"))
    client.send(b"ab")
    client.send(b"!", s.MSG_OOB)
    s.poll([(server, PRI)], 5)
    server.recv(2)
    t.note("at the mark", s.ioctl(server, "SIOCATMARK"))
    t.call("datagrams", s.ioctl, udp(s, t), "SIOCATMARK")


@scenario
def attributes_of_an_interface(s, t):
    """Index, flags, MTU and addresses of the loopback interface."""
    sock = udp(s, t)
    for name in ("SIOCGIFINDEX", "SIOCGIFFLAGS", "SIOCGIFMTU", "SIOCGIFADDR", "SIOCGIFNETMASK", "SIOCGIFBRDADDR",
                 "SIOCGIFHWADDR"):
        t.call(name, s.ioctl, sock, name, "lo")
        t.call(f"{name} of a missing interface", s.ioctl, sock, name, "nowhere")


@scenario
def requests_that_are_unknown(s, t):
    """Others are ENOTTY."""
    sock = udp(s, t)
    for request in (0x5401, 0x8914, 1):
        t.call(f"{request}", s.ioctl, sock, request, None)


@scenario
def reuseport_of_a_filtered_group(s, t):
    """A filter stays with its socket when the port is shared."""
    one, two = (t.socket(s.AF_INET, s.SOCK_DGRAM) for _ in range(2))
    for sock in (one, two):
        sock.setsockopt(s.SOL_SOCKET, s.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", 0))
    two.bind(one.getsockname())
    for sock in (one, two):
        t.call("attach", s.attach_filter, sock, struct.pack("HBBI", 6, 0, 0, 0))
    udp(s, t).sendto(b"x", one.getsockname())
    t.note("nothing", s.poll([(one, IN), (two, IN)], 0.05))


@scenario
def delegated_socket(s, t):
    """A delegated socket is the program's own, and single calls are applied to it."""
    sock = t.keep(s.delegate(s.AF_INET, s.SOCK_STREAM, 0))
    t.note("attributes", (int(sock.family), int(sock.type)))
    s.apply_option(sock, s.SOL_SOCKET, s.SO_REUSEADDR, 1)
    s.apply_option(sock, s.SOL_SOCKET, s.SO_LINGER, struct.pack("ii", 1, 7))
    t.note("reuse", sock.getsockopt(s.SOL_SOCKET, s.SO_REUSEADDR))
    t.note("linger", sock.getsockopt(s.SOL_SOCKET, s.SO_LINGER, 8))
    t.call("unknown option", s.apply_option, sock, s.SOL_SOCKET, 9999, 1)
    s.apply_bind(sock, ("127.0.0.1", 0))
    t.note("host", sock.getsockname()[0])
    t.call("bound already", s.apply_bind, sock, ("127.0.0.1", 0))
    sock.listen()
    client = t.socket()
    client.connect(sock.getsockname())
    t.keep(sock.accept()[0]).send(b"served")
    t.note("data", client.recv(100))


@scenario
def delegation_of_what_the_kernel_does_not_have(s, t):
    """The kernel's errors are those of `socket`."""
    t.call("family", s.delegate, 99, s.SOCK_STREAM, 0)
    t.call("type", s.delegate, s.AF_INET, 99, 0)
    t.call("protocol", s.delegate, s.AF_INET, s.SOCK_STREAM, s.IPPROTO_UDP)
