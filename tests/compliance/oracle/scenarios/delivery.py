"""UDP: broadcast and multicast, unreachable ports, names, and corked datagrams."""

import select

from oracle.common import arrived, refused_port, udp, udp_pair
from oracle.scenario import scenario


@scenario
def too_long(s, t):
    """More than a datagram can hold is EMSGSIZE; the largest one goes through."""
    here, there = udp_pair(s, t)
    t.call("65508", here.send, bytes(65508))
    there.setsockopt(s.SOL_SOCKET, s.SO_RCVBUF, 1 << 18)
    t.call("65507", here.send, bytes(65507))
    t.note("got", len(there.recv(65535)))


@scenario
def port_unreachable(s, t):
    """The ICMP answer to a datagram shows as ECONNREFUSED on a connected socket, once."""
    sock = udp(s, t)
    with s.socket(s.AF_INET, s.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    sock.connect(address)
    sock.send(b"probe")
    arrived(s, sock, select.POLLERR)
    t.call("recv", sock.recv, 10)
    t.call("again", sock.recv, 10, s.MSG_DONTWAIT)
    sock.send(b"probe")
    arrived(s, sock, select.POLLERR)
    t.call("send", sock.send, b"and now?")
    t.note("error", sock.getsockopt(s.SOL_SOCKET, s.SO_ERROR))


@scenario
def an_error_wakes_a_reader(s, t):
    """A receive that waits ends with the ICMP error."""
    sock = udp(s, t)
    sock.connect(("127.0.0.1", refused_port(s, t)))
    task = t.start(sock.recv, 10)
    t.note("early", task.ended(0.1))
    sock.send(b"x")
    t.finish("recv", task)


@scenario
def broadcast_needs_permission(s, t):
    """Sending to a broadcast address is EACCES without SO_BROADCAST."""
    sock = udp(s, t)
    t.call("without", sock.sendto, b"x", ("255.255.255.255", 9))
    t.call("symbolic", sock.sendto, b"x", ("<broadcast>", 9))
    t.call("loopback", sock.sendto, b"x", ("127.255.255.255", 9))
    sock.setsockopt(s.SOL_SOCKET, s.SO_BROADCAST, 1)
    t.call("with", sock.sendto, b"x", ("127.255.255.255", 9))


@scenario
def broadcast_on_loopback(s, t):
    """A broadcast of loopback reaches a socket bound to every address."""
    receiver = t.socket(s.AF_INET, s.SOCK_DGRAM)
    receiver.bind(("", 0))
    sender = udp(s, t)
    sender.setsockopt(s.SOL_SOCKET, s.SO_BROADCAST, 1)
    sender.sendto(b"to all", ("127.255.255.255", receiver.getsockname()[1]))
    t.note("got", receiver.recvfrom(10))


@scenario
def multicast_on_loopback(s, t):
    """A member of a group on the loopback interface receives what is sent to the group."""
    receiver, sender = t.socket(s.AF_INET, s.SOCK_DGRAM), udp(s, t)
    receiver.bind(("", 0))
    member = s.inet_aton("239.1.2.3") + s.inet_aton("127.0.0.1")
    t.call("join", receiver.setsockopt, s.IPPROTO_IP, s.IP_ADD_MEMBERSHIP, member)
    t.call("join again", receiver.setsockopt, s.IPPROTO_IP, s.IP_ADD_MEMBERSHIP, member)
    sender.setsockopt(s.IPPROTO_IP, s.IP_MULTICAST_IF, s.inet_aton("127.0.0.1"))
    t.note("loop", sender.getsockopt(s.IPPROTO_IP, s.IP_MULTICAST_LOOP))
    t.note("sent", sender.sendto(b"group", ("239.1.2.3", receiver.getsockname()[1])))
    t.note("got", receiver.recvfrom(10))
    t.call("leave", receiver.setsockopt, s.IPPROTO_IP, s.IP_DROP_MEMBERSHIP, member)
    t.call("leave again", receiver.setsockopt, s.IPPROTO_IP, s.IP_DROP_MEMBERSHIP, member)


@scenario
def corked(s, t):
    """MSG_MORE gathers datagrams into one; UDP_CORK does so until it is switched off."""
    here, there = udp_pair(s, t)
    here.send(b"one ", s.MSG_MORE)
    here.send(b"two")
    t.note("joined", there.recv(20))
    here.setsockopt(s.IPPROTO_UDP, 1, 1)
    here.send(b"three ")
    here.send(b"four")
    t.call("nothing", there.recv, 20, s.MSG_DONTWAIT)
    here.setsockopt(s.IPPROTO_UDP, 1, 0)
    t.note("uncorked", there.recv(20))


@scenario
def reuse_port(s, t):
    """Two sockets can share a port if both set the option before."""
    one, two, three = (t.socket(s.AF_INET, s.SOCK_DGRAM) for _ in range(3))
    one.setsockopt(s.SOL_SOCKET, s.SO_REUSEPORT, 1)
    two.setsockopt(s.SOL_SOCKET, s.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", 0))
    t.call("second", two.bind, one.getsockname())
    t.call("third", three.bind, one.getsockname())


@scenario
def names_as_hosts(s, t):
    """A host in an address may be a name, which is resolved."""
    sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
    t.call("bind", sock.bind, ("localhost", 0))
    t.note("name", sock.getsockname())
    t.note("sent", udp(s, t).sendto(b"by name", ("localhost", sock.getsockname()[1])))
    t.note("got", sock.recv(10))
    t.call("no name", udp(s, t).sendto, b"x", ("nobody.invalid", 9))
