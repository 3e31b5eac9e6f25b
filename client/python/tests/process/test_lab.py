"""One program that drives two machines: one by ssh, and one by TLS."""

import os
import subprocess
import sys
import unittest

from process.common import SECONDS, Broker, environment
from process.namespaces import enter_network
from process.sshd import PROGRAM, Sshd, require_ssh
from process.tls import TlsBroker

NEW_NETWORK = ("unshare", "--net")
PROGRAM_OF_LAB = """
import sys, sockbroker
by_ssh, by_tls = sys.argv[1:]
with sockbroker.connect(by_ssh) as first, sockbroker.connect(by_tls) as second:
    # Captures on one machine, while the other sends.
    with second.capture("v2", "udp port 7000") as capture:
        with first.socket.socket(type=first.socket.SOCK_DGRAM) as sock:
            for number in range(3): sock.sendto(b"datagram %d" % number, ("10.8.0.2", 7000))
        print([capture.expect("udp", timeout=60).data[-10:].decode() for _ in range(3)], capture.stats().dropped)
    # A connection between them, with both ends in this program.
    with second.socket.create_server(("10.8.0.2", 0)) as server:
        client = first.socket.create_connection(server.getsockname())
        served, address = server.accept()
    client.sendall(b"from the first")
    print(served.recv(100), address[0])
"""


def ip(*words, inside=None):
    enter = [] if inside is None else ["nsenter", "-t", str(inside.process.pid), "-n"]
    subprocess.run([*enter, "ip", *words], check=True, stdin=subprocess.DEVNULL)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Lab(unittest.TestCase):
    def test_one_program_drives_two_machines(self):
        require_ssh()
        if not PROGRAM.exists():
            self.skipTest("the program sockbroker is not built")
        enter_network()
        first = Broker(prefix=NEW_NETWORK)
        self.addCleanup(first.stop)
        second = TlsBroker("10.9.0.2", prefix=NEW_NETWORK)
        self.addCleanup(second.stop)
        # The machines have a network of their own, and this one reaches the second.
        for name, peer, holder in (("v1", "v2", first), ("c1", "c2", None)):
            ip("link", "add", name, "type", "veth", "peer", "name", peer)
            ip("link", "set", peer, "netns", str(second.process.pid))
            if holder is not None:
                ip("link", "set", name, "netns", str(holder.process.pid))
        for name, address, broker in (
            ("v1", "10.8.0.1", first), ("v2", "10.8.0.2", second), ("c1", "10.9.0.1", None), ("c2", "10.9.0.2", second),
        ):  # fmt: skip
            ip("address", "add", f"{address}/24", "dev", name, inside=broker)
            ip("link", "set", name, "up", inside=broker)
        sshd = Sshd()
        self.addCleanup(sshd.stop)
        subprocess.run(["cp", "-r", f"{second.files}/sockbroker/.", f"{sshd.folder}/config/sockbroker"], check=True)
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM_OF_LAB, sshd.url(first.path), second.url],
            env=environment(**sshd.variables), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        expected = "['datagram 0', 'datagram 1', 'datagram 2'] 0\nb'from the first' 10.8.0.1\n"
        self.assertEqual((ended.stdout, ended.returncode), (expected, 0), ended.stderr)


if __name__ == "__main__":
    unittest.main()
