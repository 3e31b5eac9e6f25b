"""The policy of the README grants what scapy needs, and no more."""

import os
import pathlib
import re
import subprocess
import unittest

from process.common import Broker, code, program
from process.namespaces import enter_network

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
TEXT = r"""
import select, socket, struct

def dump(kind):  # the types of the messages of a dump of interfaces or routes
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((0, 0))
        sock.sendall(struct.pack("=IHHII16x", 32, kind, 0x301, 1, 0))
        found = set()
        while 3 not in found:
            data = sock.recv(1 << 16)
            while data:
                size, type_ = struct.unpack_from("=IH", data)
                found.add(type_)
                data = data[(size + 3) & ~3 :]
        return found

print(16 in dump(18), 24 in dump(26))
everything = 3
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything)) as catcher:
    catcher.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    catcher.setsockopt(263, 1, struct.pack("IHH8s", socket.if_nametoindex("right"), 1, 0, b""))  # promiscuous
    catcher.bind(("right", everything))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything)) as sender:
        sender.bind(("left", everything))
        sender.send(b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + b"scapy".ljust(50, b"."))
    while True:
        assert select.select([catcher], [], [], 120)[0]
        data, ancillary, _, _ = catcher.recvmsg(2000, 200)
        if data[14:19] == b"scapy":
            break
    print("caught", len(data), len(ancillary))
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, bytes((127, 0, 0, 9)), bytes((127, 0, 0, 1)))
    print("spoofed", sock.sendto(packet + struct.pack("!HHHH", 9, 9, 8, 0), ("127.0.0.1", 0)))
print(socket.getaddrinfo("127.0.0.1", None)[0][4][0], [name for _, name in socket.if_nameindex()])
for refused in (
    lambda: socket.create_server(("127.0.0.1", 8080)),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12),
):
    try:
        refused().close()
        print("granted")
    except PermissionError:
        print("refused")
"""


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Scapy(unittest.TestCase):
    def test_the_rules_of_the_readme_are_enough(self):
        enter_network()
        for command in (["link", "add", "left", "type", "veth", "peer", "name", "right"], ["link", "set", "left", "up"],
                        ["link", "set", "right", "up"]):  # fmt: skip
            subprocess.run(["ip", *command], check=True, stdin=subprocess.DEVNULL)
        (policy,) = re.findall(r"```toml\n(version = 1\n.*?)```", README.read_text(), re.S)
        broker = Broker(policy=policy.replace('groups = ["scapy"]', "uids = [65534]"))
        self.addCleanup(broker.stop)
        package = broker.copy_package()
        for mode in ("mediated", "remote"):
            with self.subTest(mode=mode):
                done = program(
                    broker.path, *code(TEXT), mode=mode, prefix=AS_NOBODY, python="/usr/bin/python3", PYTHONPATH=package
                )
                lines = done.stdout.splitlines()
                self.assertEqual(done.stderr, "")
                self.assertEqual(lines[:3], ["True True", "caught 64 1", "spoofed 28"])
                self.assertTrue(lines[3].startswith("127.0.0.1 ["), lines)
                self.assertEqual(lines[4:], ["refused", "refused"])


if __name__ == "__main__":
    unittest.main()
