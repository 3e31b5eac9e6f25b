"""Captures of a broker behind ssh. They need root, for a network of their own."""

import os
import subprocess
import sys
import textwrap
import unittest

from process.common import SECONDS, Broker, environment
from process.namespaces import enter_network
from process.sshd import NO_FORWARDING, Sshd, require_shell, require_ssh

TEXT = """
import socket, sockbroker, sys, threading

def send(data, port):
    with socket.socket(type=socket.SOCK_DGRAM) as sock: sock.sendto(data, ("127.0.0.1", port))

with sockbroker.connect(sys.argv[1]) as lab:
    missed = foreign = 0
    for number in range(int(sys.argv[2])):
        port = 10000 + number
        send(b"before", port)
        with lab.capture("lo", f"udp port {port}") as capture:
            send(b"other", 9)
            send(b"first", port)
            missed += capture.expect(timeout=120).data[42:] != b"first"
            send(b"last", port)
        foreign += [packet.data[42:] for packet in capture.packets()] != [b"first", b"last"]
    print("missed", missed, "foreign", foreign)

    # Other calls work while captures wait for packets.
    waiting = [lab.capture("lo", f"udp port {port}") for port in (7001, 7002, 7003)]
    with lab.socket.create_server(("127.0.0.1", 0)) as server, lab.socket.create_connection(server.getsockname()) as client:
        with server.accept()[0] as served:
            client.sendall(b"x" * 100000)
            with served.makefile("rb") as file: print(len(file.read(100000)))
    print([capture.stats().ended for capture in waiting])
    for port in (7003, 7001, 7002): send(b"%d" % port, port)
    print([capture.expect(timeout=120).data[42:].decode() for capture in waiting])
    capture = lab.capture("lo", "udp port 7004", snaplen=100)
    for number in range(2000): send(b"x" * 1000, 7004)
    stats = capture.stop()
    print(stats.seen, stats.captured + stats.dropped + stats.unread, len(list(capture.packets())) == stats.captured)
    print([capture.stop()[:2] for capture in waiting])
"""
EXPECTED = """missed 0 foreign 0
100000
[None, None, None]
['7001', '7002', '7003']
2000 2000 True
[(1, 1), (1, 1), (1, 1)]
"""


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class OverSsh(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        require_ssh()
        enter_network()
        cls.broker = Broker()
        cls.addClassCleanup(cls.broker.stop)

    def check(self, further):
        sshd = Sshd(further)
        self.addCleanup(sshd.stop)
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(TEXT), sshd.url(self.broker.path), "30"],
            env=environment(**sshd.variables), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS * 2,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.stderr), (EXPECTED, ""), sshd.log())

    def test_captures_use_a_forwarded_socket(self):
        self.check("")

    def test_captures_share_the_connection_of_a_server_without_forwarding(self):
        require_shell()
        self.check(NO_FORWARDING)


if __name__ == "__main__":
    unittest.main()
