"""Runs the common functions of scapy: sniff, sr1, AsyncSniffer, sendp. Ends with a traceback if one fails."""

import os
import select
import threading

from scapy.config import conf

conf.verb = 0

from scapy.all import ARP, ICMP, IP, TCP, UDP, AsyncSniffer, Ether, L3RawSocket, sendp, sniff, sr, sr1, srp1  # noqa: E402
from scapy.arch.linux import _flush_fd  # noqa: E402

IFACE, NEIGHBOUR = "ve0", "10.77.0.2"
# A wait ends when its packet arrives; this limits a hang.
LONGEST_WAIT = 120

# The program has no privileges.
assert os.getuid() != 0
with open("/proc/self/status", encoding="ascii") as status:
    assert "CapEff:\t0000000000000000\n" in status.read()

# scapy has read interfaces and routes from the kernel.
assert IFACE in (interface.name for interface in conf.ifaces.values()), list(conf.ifaces.values())
assert conf.route.route(NEIGHBOUR)[0] == IFACE, conf.route

# A packet and its answer, through frames.
answer = sr1(IP(dst=NEIGHBOUR) / ICMP(), timeout=LONGEST_WAIT)
assert answer is not None and answer[ICMP].type == 0, answer
answered, unanswered = sr(IP(dst=NEIGHBOUR) / ICMP(seq=(1, 5)), timeout=LONGEST_WAIT)
assert (len(answered), len(unanswered)) == (5, 0)

# A frame and its answer.
answer = srp1(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=NEIGHBOUR), iface=IFACE, timeout=LONGEST_WAIT)
assert answer is not None and answer[ARP].psrc == NEIGHBOUR, answer

# Through a raw socket, with a custom header.
raw = L3RawSocket()
answer = raw.sr1(IP(dst=NEIGHBOUR) / ICMP(id=79), timeout=LONGEST_WAIT, verbose=0)
raw.close()
assert answer is not None and answer[ICMP].id == 79, answer

# scapy captures frames of other senders and its own.
FRAMES = [Ether() / IP(src="192.0.2.7", dst=NEIGHBOUR) / UDP(dport=9000 + number) / b"x" for number in range(10)]
OTHERS = [Ether() / IP(dst=NEIGHBOUR) / TCP(dport=80)] * 3


def seen(packet):
    """Returns whether a packet is one of the frames."""
    return UDP in packet and 9000 <= packet[UDP].dport < 9010


found = sniff(
    iface=IFACE, count=10, lfilter=seen, timeout=LONGEST_WAIT,
    started_callback=lambda: sendp(OTHERS + FRAMES, iface=IFACE),
)  # fmt: skip
assert [packet[UDP].dport for packet in found] == list(range(9000, 9010)), found
assert {packet[IP].src for packet in found} == {"192.0.2.7"}

sniffer = AsyncSniffer(
    iface=IFACE, count=10, lfilter=seen, started_callback=lambda: sendp(OTHERS + FRAMES, iface=IFACE)
)
sniffer.start()
sniffer.join(LONGEST_WAIT)
assert len(sniffer.results) == 10, sniffer.results

# scapy discards with os.read() what arrives while it opens a socket.
with conf.L2socket(iface=IFACE) as listener:
    sendp(FRAMES[0], iface=IFACE)
    assert select.select([listener.ins], [], [], LONGEST_WAIT)[0]
    _flush_fd(listener.ins.fileno())

# A capture that the program stops.
running = threading.Event()
sniffer = AsyncSniffer(iface=IFACE, started_callback=running.set)
sniffer.start()
assert running.wait(LONGEST_WAIT)
sniffer.stop()
