"""Runs scapy as a member of the shipped role that captures and cannot send. Ends with a traceback if a check fails."""

import os
import pathlib
import socket
import sys

from scapy.config import conf

conf.verb = 0

import sockbroker  # noqa: E402
from scapy.all import Ether, sendp, sniff  # noqa: E402

IFACE = "ve0"
LONGEST_WAIT = 120

# scapy loads extensions whose metadata has the licence of scapy, so that these tests make metadata of their own.
metadata = pathlib.Path(os.environ["TMPDIR"], "sockbroker-0.dist-info")
metadata.mkdir()
(metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: sockbroker\nVersion: 0\nLicense-Expression: GPL-2.0-only\n")
(metadata / "top_level.txt").write_text("sockbroker\n")
sys.path.append(str(metadata.parent))
conf.exts.load("sockbroker")
assert [(one.name, one.version) for one in conf.exts.exts] == [("sockbroker", sockbroker.__version__)], conf.exts

# The policy lets this user list the names of interfaces alone.
device = conf.ifaces[IFACE]
assert (device.provider.name, device.mac, device.ips[4], device.is_valid()) == ("sockbroker", "", [], True)
assert device.index == socket.if_nametoindex(IFACE)


def send():
    """Sends a datagram, which needs no privileges."""
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"from a user", ("10.77.0.2", 9000))


found = sniff(iface=IFACE, filter="udp port 9000", count=1, timeout=LONGEST_WAIT, started_callback=send)
assert found[0].load == b"from a user", found

try:
    sendp(Ether() / b"x", iface=IFACE)
    raise SystemExit("the role lets its members send")
except sockbroker.Denied as denied:
    assert "inject" in denied.grant, denied.grant
