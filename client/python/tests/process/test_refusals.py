"""The error of the kernel stays the same when the broker does not help, and its text has the reason."""

import os
import unittest

from process.common import Broker, code, program
from process.namespaces import enter_network

PYTHON = "/usr/bin/python3"
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-net_raw,-net_admin,-net_bind_service,-sys_admin"]
ALL = """
version = 1

[[rule]]
name = "all"
subject = { uids = [65534] }
allow = ["create", "adopt", "bind", "option", "sethostname", "handover"]
handover = "unrevocable"
"""
ANOTHER = """
version = 1

[[rule]]
name = "another"
subject = { uids = [65534] }
allow = ["resolve"]
"""
TEXT = """
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for call in (lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
             lambda: socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1),
             lambda: socket.socket().bind(("127.0.0.1", 81)), lambda: socket.sethostname("x")):
    try:
        call()
    except PermissionError as error:
        print(error.errno, getattr(error, "grant", None) is not None, error.strerror)
"""
CALLS = ["socket(AF_INET, SOCK_RAW, 1)", "setsockopt(1, 36, 1)", "bind(('127.0.0.1', 81))", "sethostname('x')"]
NUMBERS = [1, 1, 13, 1]


@unittest.skipUnless(os.geteuid() == 0, "needs root")
@unittest.skipUnless(os.path.exists(PYTHON), "the system has no python3")
class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        enter_network()

    def broker(self, **how):
        broker = Broker(**how)
        self.addCleanup(broker.stop)
        return broker

    def check(self, path, is_denied, *reasons):
        """Each error has the kernel's number. Its text names the call and one of these reasons."""
        done = program(path, *code(TEXT), mode="direct", prefix=["unshare", "--uts"], python=PYTHON, PYTHONWARNINGS="ignore")
        lines = done.stdout.splitlines()
        self.assertEqual((len(lines), done.stderr), (4, ""), done)
        for line, number, call in zip(lines, NUMBERS, CALLS):
            with self.subTest(call=call):
                self.assertTrue(line.startswith(f"{number} {is_denied} "), line)
                self.assertIn(f": the kernel refused {call}, and the broker did not do it: ", line)
                self.assertTrue(any(reason in line for reason in reasons), line)

    def test_refusal_without_a_broker(self):
        self.check("/nonexistent/socket", False, "cannot connect to the broker at /nonexistent/socket: No such file or directory")

    def test_refusal_with_a_control_socket_that_the_user_must_not_open(self):
        broker = self.broker()
        os.chmod(broker.path, 0o600)
        self.check(broker.path, False, f"cannot connect to the broker at {broker.path}: Permission denied")

    def test_refusal_with_a_policy_that_grants_nothing_or_something_else(self):
        for policy in ({}, {"policy": ANOTHER}):
            self.check(self.broker(**policy).path, True, "; missing grant: allow = [")

    def test_refusal_with_a_broker_that_lacks_the_capability(self):
        broker = self.broker(policy=ALL, prefix=WITHOUT_CAPABILITIES)
        self.check(broker.path, False, "the broker may lack CAP_")

    def test_refusal_in_a_root_without_the_package(self):
        text = """
import os, socket, tempfile
with tempfile.TemporaryDirectory() as folder:
    os.chroot(folder)
    os.chdir("/")
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    except PermissionError as error:
        print(error.errno, error.strerror)
    os._exit(0)
"""
        done = program("/nonexistent/socket", "-u", *code(text), mode="direct", python=PYTHON)
        self.assertEqual(done.stderr, "")
        self.assertRegex(done.stdout, "^1 .*: cannot load the module sockbroker.escalation: ")


if __name__ == "__main__":
    unittest.main()
