"""Runs scapy with the sockets of `sockbroker.scapy`. Ends with a traceback if a function of scapy fails.

The process keeps Python's own sockets, so that everything that works here goes through these classes.
"""

import os
import socket
import sys
import threading

from scapy.config import conf

conf.verb = 0

import sockbroker.scapy  # noqa: E402
from scapy.all import (  # noqa: E402
    ARP, ICMP, IP, TCP, UDP, AsyncSniffer, Ether, IPv6, ICMPv6EchoRequest, ICMPv6EchoReply, Raw, bridge_and_sniff, send, sendp,
    sniff, sr, sr1, srp, srp1, wrpcap,
)  # fmt: skip
from scapy.arch.linux.rtnetlink import _get_if_list  # noqa: E402
from scapy.error import Scapy_Exception  # noqa: E402

IFACE, OTHER, NEIGHBOUR, NEIGHBOUR6 = "ve0", "ve2", "10.77.0.2", "fd77::2"
# A wait ends when its packet arrives; this limits a hang.
LONGEST_WAIT = 120
FRAMES = [Ether() / IP(src="192.0.2.7", dst=NEIGHBOUR) / UDP(dport=9000 + number) / b"x" for number in range(10)]
PORTS = list(range(9000, 9010))
OTHERS = [Ether() / IP(dst=NEIGHBOUR) / TCP(dport=80)] * 3
ONLY_FRAMES = "udp and portrange 9000-9009"


def ports(packets):
    """Returns the ports of packets."""
    return [packet[UDP].dport for packet in packets]


def open_files():
    """Returns how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


assert os.getuid() != 0
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    raise SystemExit("this process can open packet sockets itself")
except PermissionError:
    pass

sockbroker.scapy.install()
broker = sockbroker.connect(os.environ["SOCKBROKER"])

# Interfaces, with what scapy needs of them.
device = conf.ifaces[IFACE]
assert (device.provider.name, device.ip, device.index) == ("sockbroker", "10.77.0.1", socket.if_nametoindex(IFACE)), device
native = {one["index"]: one for one in _get_if_list().values()}
brokered = {one.index: one for one in conf.ifaces.values()}
assert native.keys() == brokered.keys()
for index, one in brokered.items():
    facts = native[index]
    expected = (facts["name"], facts["mac"], facts["type"], str(facts["flags"]), sorted(ip["address"] for ip in facts["ips"]))
    assert (one.name, one.mac, one.type, str(one.flags), sorted(one.ips[4] + one.ips[6])) == expected, expected
assert device.is_valid() and str(conf.iface) == IFACE, conf.iface

# Answers to packets, to several, to frames, and to IPv6.
answer = sr1(IP(dst=NEIGHBOUR) / ICMP(), timeout=LONGEST_WAIT)
assert answer is not None and answer[ICMP].type == 0, answer
answered, unanswered = sr(IP(dst=NEIGHBOUR) / ICMP(seq=(1, 5)), timeout=LONGEST_WAIT)
assert (len(answered), len(unanswered)) == (5, 0)
assert all(sent.sent_time < answer.time < sent.sent_time + LONGEST_WAIT for sent, answer in answered)
question = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=NEIGHBOUR)
assert srp1(question, iface=IFACE, timeout=LONGEST_WAIT)[ARP].psrc == NEIGHBOUR
answered, unanswered = srp(question, iface=IFACE, timeout=LONGEST_WAIT, filter="arp")
assert (len(answered), len(unanswered)) == (1, 0)
answer = sr1(IPv6(dst=NEIGHBOUR6) / ICMPv6EchoRequest(), timeout=LONGEST_WAIT)
assert answer is not None and ICMPv6EchoReply in answer, answer
answer = sr1(IP(dst="127.0.0.1") / ICMP(), timeout=LONGEST_WAIT)
assert answer is not None and answer[ICMP].type == 0 and answer.src == "127.0.0.1", answer
# What is not IP leaves the loopback as a frame.
local = conf.L3socket(iface="lo")
assert local.send(ARP(pdst="127.0.0.1")) > 0
local.close()

# Frames of other senders, and its own, by a filter that the kernel runs: nothing else arrives.
found = sniff(
    iface=IFACE, filter=ONLY_FRAMES, count=10, timeout=LONGEST_WAIT,
    started_callback=lambda: sendp(OTHERS + FRAMES, iface=IFACE),
)  # fmt: skip
assert ports(found) == PORTS, found
assert {(packet[IP].src, packet.sniffed_on) for packet in found} == {("192.0.2.7", IFACE)}
# Times of the kernel: in nanoseconds, and in order.
times = [int(packet.time * 10**9) for packet in found]
assert times == sorted(times) and any(time % 1000 for time in times), times

# `store=0`, `prn`, `stop_filter`, and sending at layer 3.
seen = []
found = sniff(
    iface=IFACE, filter=ONLY_FRAMES, store=0, prn=lambda packet: seen.append(packet[UDP].dport),
    stop_filter=lambda packet: packet[UDP].dport == 9009, timeout=LONGEST_WAIT,
    started_callback=lambda: send(IP(dst=NEIGHBOUR) / UDP(dport=(9000, 9009))),
)  # fmt: skip
assert seen == PORTS and len(found) == 0, (seen, found)

# A timeout without packets, and a list of interfaces.
assert len(sniff(iface=IFACE, filter="udp port 9", timeout=0.2)) == 0
found = sniff(
    iface=[IFACE, OTHER], filter=ONLY_FRAMES, count=20, timeout=LONGEST_WAIT,
    started_callback=lambda: (sendp(FRAMES, iface=IFACE), sendp(FRAMES, iface=OTHER)),
)  # fmt: skip
assert sorted((packet.sniffed_on, packet[UDP].dport) for packet in found) == [
    (name, port) for name in (IFACE, OTHER) for port in PORTS
]

# Packets that arrive between the opening of a socket and `sniff` are kept.
with conf.L2listen(iface=IFACE, filter=ONLY_FRAMES) as listener:
    sendp(FRAMES, iface=IFACE)
    assert ports(sniff(opened_socket=listener, count=10, timeout=LONGEST_WAIT)) == PORTS
    assert listener.stats()[:3] == (10, 10, 0), listener.stats()
    try:
        listener.send(FRAMES[0])
        raise SystemExit("a socket that listens has sent")
    except Scapy_Exception:
        pass
# A socket of one direction, and a receive without a wait before it.
with conf.L2socket(iface=IFACE, filter=f"({ONLY_FRAMES}) or icmp") as both:
    assert both.send(FRAMES[0]) == len(FRAMES[0])
    both.send(Ether() / IP(dst=NEIGHBOUR) / ICMP())
    assert both.recv()[ICMP].type == 0

# A thread, and its end by `stop`.
for _ in range(20):
    sniffer = AsyncSniffer(
        iface=IFACE, filter=ONLY_FRAMES, count=1, started_callback=lambda: sendp(FRAMES[0], iface=IFACE)
    )
    sniffer.start()
    sniffer.join(LONGEST_WAIT)
    assert len(sniffer.results) == 1, "the first packet after the start was missed"
running = threading.Event()
sniffer = AsyncSniffer(iface=IFACE, started_callback=running.set)
sniffer.start()
assert running.wait(LONGEST_WAIT)
sniffer.stop()

# A bridge: what one interface receives leaves by the other one. The neighbour sends, because it answers.
bridged, results = threading.Event(), []
bridge = threading.Thread(
    target=lambda: results.extend(
        bridge_and_sniff(
            IFACE, OTHER, xfrm12=lambda packet: ICMP in packet, xfrm21=lambda packet: False, started_callback=bridged.set,
            stop_filter=lambda packet: ICMP in packet, timeout=LONGEST_WAIT,
        )
    )
)  # fmt: skip
with conf.L2listen(iface=OTHER, filter="icmp[icmptype] == icmp-echoreply") as other_side:
    bridge.start()
    assert bridged.wait(LONGEST_WAIT)
    assert sr1(IP(dst=NEIGHBOUR) / ICMP(), timeout=LONGEST_WAIT) is not None
    forwarded = other_side.recv()
    assert forwarded[IP].src == NEIGHBOUR, forwarded
bridge.join(LONGEST_WAIT)
assert not bridge.is_alive() and results

# Files stay what they are to scapy.
path = os.path.join(os.environ["TMPDIR"], "written.pcap")
wrpcap(path, FRAMES)
assert ports(sniff(offline=path)) == PORTS

# A wrong filter, and an interface that does not exist.
for wrong in (lambda: sniff(iface=IFACE, filter="udp prot 7", timeout=1), lambda: conf.L2socket(iface="nowhere")):
    try:
        wrong()
        raise SystemExit("a wrong argument was accepted")
    except (Scapy_Exception, ValueError) as error:
        assert "syntax error" in str(error) or "nowhere" in str(error), error

# Names with a prefix, for another broker and for a network namespace.
sockbroker.scapy.install(broker, prefix="lab/")
assert str(conf.iface) == IFACE and conf.ifaces["lab/ve0"].ip == "10.77.0.1"
found = sniff(
    iface="lab/ve0", filter=ONLY_FRAMES, count=10, timeout=LONGEST_WAIT, started_callback=lambda: sendp(FRAMES, iface="lab/ve0")
)
assert ports(found) == PORTS and found[0].sniffed_on == "lab/ve0"
assert srp1(question, iface="lab/ve0", timeout=LONGEST_WAIT)[ARP].psrc == NEIGHBOUR
if "--netns" in sys.argv:
    sockbroker.scapy.install(broker.namespace("caller"), prefix="own/")
    assert conf.ifaces["own/lo"].ip == "127.0.0.1"
    assert sniff(iface="own/lo", count=1, timeout=LONGEST_WAIT, started_callback=lambda: send(IP(dst="127.0.0.1")) )
sockbroker.scapy.install(broker, prefix="lab/")
assert [one.provider.name for one in conf.ifaces.values() if str(one) == "lab/ve0"] == ["sockbroker"]

# Without a descriptor of the stream, calls return it.
with sockbroker.connect(os.environ["SOCKBROKER"], "remote") as remote:
    sockbroker.scapy.install(remote, prefix="far/")
    found = sniff(
        iface="far/ve0", filter=ONLY_FRAMES, count=10, timeout=LONGEST_WAIT,
        started_callback=lambda: sendp(FRAMES, iface="far/ve0"),
    )  # fmt: skip
    assert ports(found) == PORTS

# Nothing is left open, also after 30 sockets.
before = open_files()
for _ in range(30):
    conf.L3socket(iface=IFACE).close()
assert open_files() <= before + 2, (before, open_files())

# A socket that was closed meanwhile ends the wait.
closed = conf.L2listen(iface=IFACE)
closed.close()
assert conf.L2listen.select([closed], LONGEST_WAIT) == [closed]

# A snap length, with the length on the wire.
sockbroker.scapy.install(broker, prefix="short/", snaplen=30)
with conf.ifaces["short/ve0"].l2listen()(iface="short/ve0", filter=ONLY_FRAMES) as listener:
    sendp(FRAMES[0], iface=IFACE)
    short = listener.recv()
    assert (len(short), short.wirelen) == (30, len(FRAMES[0])), (len(short), short.wirelen)

# A child process does not end the captures of its parent.
with conf.L2listen(iface=IFACE, filter=ONLY_FRAMES) as listener:
    child = os.fork()
    if child == 0:
        try:
            listener.recv()
        except Scapy_Exception:
            listener.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    sendp(FRAMES[0], iface=IFACE)
    assert listener.recv()[UDP].dport == 9000
assert Raw in FRAMES[0]
broker.close()
