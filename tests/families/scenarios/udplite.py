"""UDP-Lite: datagrams with a checksum that covers a part of them."""

from oracle.scenario import scenario


@scenario
def datagrams(s, t):
    """Datagrams from port to port, in both families."""
    for family, host in ((s.AF_INET, "127.0.0.1"), (s.AF_INET6, "::1")):
        here, there = (t.socket(family, s.SOCK_DGRAM, s.IPPROTO_UDPLITE) for _ in range(2))
        t.note("made", here)
        for sock in (here, there):
            sock.settimeout(120)
            sock.bind((host, 0))
        t.call("sendto", here.sendto, b"data", there.getsockname())
        data, sender = there.recvfrom(100)
        t.note("recvfrom", (data, sender == here.getsockname(), "message"))
        there.connect(sender)
        t.call("send", there.send, b"")
        t.call("empty", here.recvmsg, 10)
        here.close()
        t.call("no receiver", there.send, b"x")
        t.call("refused", there.recv, 10)


@scenario
def coverage(s, t):
    """The checksum coverage is an option of the sender and of the receiver."""
    here, there = (t.socket(s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_UDPLITE) for _ in range(2))
    there.bind(("127.0.0.1", 0))
    here.connect(there.getsockname())
    for option in (s.UDPLITE_SEND_CSCOV, s.UDPLITE_RECV_CSCOV):
        t.call(f"get {option}", here.getsockopt, s.IPPROTO_UDPLITE, option)
        t.call(f"set {option}", here.setsockopt, s.IPPROTO_UDPLITE, option, 20)
        t.call(f"read {option}", here.getsockopt, s.IPPROTO_UDPLITE, option)
    t.call("too little", here.setsockopt, s.IPPROTO_UDPLITE, s.UDPLITE_SEND_CSCOV, 3)
    t.call("read", here.getsockopt, s.IPPROTO_UDPLITE, s.UDPLITE_SEND_CSCOV)
    there.setsockopt(s.IPPROTO_UDPLITE, s.UDPLITE_RECV_CSCOV, 100)
    there.settimeout(0.2)
    t.call("send", here.send, b"covered too little")
    t.call("dropped", there.recv, 100)
