"""Programs that change their user, groups or capabilities: new sockets, and sockets that were open before.

The tests of programs need root, and run in their own network namespace.
"""

import os
import unittest

from process.common import Broker, code, program
from process.namespaces import enter_network
from sockbroker.identity import Capabilities, Identity, current

PYTHON = "/usr/bin/python3"
BROKERED = ("mediated", "remote")
ORDINARY = """
version = 1

[[rule]]
name = "ordinary"
subject = { uids = [65534] }
allow = ["create", "adopt", "listen", "accept", "connect", "send", "receive", "option", "handover"]
family = ["AF_INET"]
type = ["SOCK_STREAM", "SOCK_DGRAM"]

[[rule]]
name = "ordinary ports"
subject = { uids = [65534] }
allow = ["bind"]
local_ports = ["0", "1024-65535"]
"""
BEGIN = """
import os, signal, socket, threading, time
def give_up():
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
def outcome(call):
    try:
        call()
    except OSError as error:
        return type(error).__name__ if not isinstance(error, PermissionError) else "refused"
    return "done"
def raw(): socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
def packet(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
def low_port(): socket.create_server(("127.0.0.1", 81)).close()
def udp():
    with socket.socket(type=socket.SOCK_DGRAM) as sock: sock.bind(("127.0.0.1", 0))
"""
ROOT = Identity((0, 0, 0), (0, 0, 0), (), Capabilities(0b1111, 0b1111))


class Comparison(unittest.TestCase):
    def test_is_same_compares_ids_and_capabilities(self):
        self.assertTrue(current().is_same(current()))
        self.assertFalse(ROOT.is_same(ROOT._replace(supplementary=(4,))))
        self.assertFalse(ROOT.is_same(ROOT._replace(capabilities=Capabilities(0b1111, 0b0111))))
        self.assertTrue(ROOT.is_same(ROOT._replace(capabilities=None)))

    def test_has_given_up_is_true_if_the_rights_cannot_be_regained(self):
        for now, expected in (
            (ROOT._replace(users=(1, 1, 1), capabilities=Capabilities(0, 0)), True),
            (ROOT._replace(users=(1, 1, 1), capabilities=None), True),
            (ROOT._replace(users=(0, 1, 0), capabilities=Capabilities(0b1111, 0)), False),
            (ROOT._replace(capabilities=Capabilities(0b1110, 0b1110)), True),
            (ROOT._replace(capabilities=Capabilities(0b1111, 0b1110)), False),
            (ROOT._replace(supplementary=(4,)), False),
        ):
            with self.subTest(now=now):
                self.assertEqual(now.has_given_up(ROOT), expected)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
@unittest.skipUnless(os.path.exists(PYTHON), "the system has no python3")
class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        enter_network()

    def broker(self, policy=None):
        broker = Broker("--built-in-policy") if policy is None else Broker(policy=policy)
        self.addCleanup(broker.stop)
        return broker

    def check(self, text, expected, broker, modes=BROKERED):
        for mode in modes:
            with self.subTest(mode=mode):
                done = program(broker.path, *code(BEGIN + text), mode=mode, python=PYTHON)
                self.assertEqual((done.stdout.strip(), done.stderr), (expected, ""))

    def test_privileges_are_refused_after_setuid(self):
        text = "first = socket.socket(); give_up(); print(*map(outcome, (raw, packet, low_port, udp)))\nfirst.close()"
        for policy in (None, ORDINARY):
            self.check(text, "refused refused refused done", self.broker(policy))

    def test_a_new_user_needs_no_access_to_the_control_socket(self):
        broker = self.broker()
        os.chmod(broker.path, 0o600)
        text = "first = socket.socket(); give_up(); print(*map(outcome, (raw, low_port, udp)))\nfirst.close()"
        self.check(text, "refused refused done", broker)

    def test_bind_after_setuid_has_the_rights_of_the_new_user(self):
        text = """
with socket.socket() as old:
    udp()
    give_up()
    print(outcome(lambda: old.bind(("127.0.0.1", 82))), outcome(lambda: old.bind(("127.0.0.1", 0))))
"""
        self.check(text, "refused done", self.broker())

    def test_rights_return_with_seteuid(self):
        text = """
old = socket.socket()
os.seteuid(65534)
print(*map(outcome, (raw, low_port)), outcome(lambda: old.bind(("127.0.0.1", 82))))
os.seteuid(0)
print(*map(outcome, (raw, low_port)), outcome(lambda: old.bind(("127.0.0.1", 82))))
old.close()
"""
        self.check(text, "refused refused refused\ndone done done", self.broker(), ["mediated"])

    def test_open_packet_and_netlink_sockets_work_after_setuid(self):
        text = """
import struct
catcher = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
first = socket.socket()
give_up()
udp()
catcher.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
catcher.bind(("lo", 3))
catcher.settimeout(120)
catcher.send(b"\\0" * 12 + b"\\x88\\xb5" + b"still".ljust(50, b"."))
while b"still" not in catcher.recv(100): pass
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as routes:
    routes.sendto(struct.pack("=IHHII16x", 32, 18, 0x301, 1, 0), (0, 0))
    print(struct.unpack_from("=IH", routes.recv(1 << 16))[1])
    change = struct.pack("=IHHIIBxHiII", 32, 16, 5, 2, 0, 0, 0, 1, 0, 1)
    print(outcome(lambda: routes.sendto(change, (0, 0))) == "refused" or struct.unpack_from("=i", routes.recv(1 << 16), 16)[0] < 0)
first.close(); catcher.close()
"""
        self.check(text, "16\nTrue", self.broker())

    def test_open_sockets_work_in_threads_after_setuid(self):
        text = """
pairs = [socket.socketpair() for _ in range(40)]
got = []
give_up()
readers = [threading.Thread(target=lambda end=end: got.append(end.recv(9))) for end, _ in pairs]
for reader in readers: reader.start()
for number, (_, end) in enumerate(pairs): end.sendall(b"%d" % number)
for reader in readers: reader.join(120)
print(sorted(map(int, got)) == list(range(40)))
for pair in pairs:
    for end in pair: end.close()
"""
        self.check(text, "True", self.broker())

    def test_inherited_sockets_work_in_a_child_with_another_user(self):
        text = """
listener = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    give_up()
    served, _ = listener.accept()
    got = []
    reader = threading.Thread(target=lambda: got.append(served.recv(10)))
    reader.start()
    served.sendall(b"served")
    reader.join(120)
    served.sendall(b" " + got[0])
    os._exit(0)
with socket.create_connection(listener.getsockname()) as peer, listener:
    peer.settimeout(120)
    data = peer.recv(6); peer.sendall(b"answer")
    while piece := peer.recv(100): data += piece
print(data.decode())
os.wait()
"""
        self.check(text, "served answer", self.broker())

    def test_inherited_sockets_work_in_a_child_forked_after_setuid(self):
        text = """
listener = socket.create_server(("127.0.0.1", 80))
with socket.create_connection(listener.getsockname()) as peer: listener.accept()[0].close()
give_up()
if os.fork() == 0:
    served, _ = listener.accept()
    served.sendall(b"from the child")
    os._exit(0)
with socket.create_connection(("127.0.0.1", 80)) as peer, listener:
    peer.settimeout(120)
    print(peer.recv(100).decode())
os.wait()
"""
        self.check(text, "from the child", self.broker())

    def test_a_signal_interrupts_a_call_on_a_shared_connection_without_loss(self):
        text = """
a, b = socket.socketpair()
child = os.fork()
if child == 0:
    give_up()
    class Interrupted(Exception): pass
    def raising(*_): raise Interrupted
    signal.signal(signal.SIGALRM, raising)
    rounds = []
    for number in range(20):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            b.recv(100)
        except Interrupted:
            a.sendall(b"%d" % number)
            rounds.append(b.recv(100) == b"%d" % number)
    os.write(1, b"%d %d" % (len(rounds), all(rounds)))
    os._exit(0)
os.waitpid(child, 0)
a.close(); b.close()
"""
        self.check(text, "20 1", self.broker())

    def test_a_dropped_capability_changes_the_identity(self):
        text = """
import ctypes
from sockbroker import process
first = process.default().current()
assert process.default().current() is first
# PR_CAPBSET_DROP concerns programs that are started, not this one; capset() the thread.
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
sets = (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.capget(header, sets) == 0
for word in (0, 1): sets[word] &= ~(1 << 13)  # CAP_NET_RAW: effective, permitted
assert libc.capset(header, sets) == 0
print(process.default().current() is first)
"""
        self.check(text, "False", self.broker())


if __name__ == "__main__":
    unittest.main()
