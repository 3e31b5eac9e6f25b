"""Programs of an unprivileged user with the roles that a policy grants.

The tests need root, for a broker with privileges, and run in their own network namespace. The user is nobody.
"""

import ctypes
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import unittest

from process import common
from process.common import Broker, code, environment

PYTHON = "/usr/bin/python3"
TESTS = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTATION = TESTS / "process" / "documentation"
NEW_NETWORK, NEW_MOUNTS = 0x40000000, 0x00020000
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
POLICY = """
version = 1

[[rule]]
name = "everybody"
subject = { users = ["nobody"] }
allow = ["session", "resolve", "hostname", "interfaces", "inspect"]

[[rule]]
name = "low ports"
subject = { users = ["nobody"] }
allow = ["create", "bind", "listen", "accept", "connect", "send", "receive", "option", "handover"]
family = ["AF_INET", "AF_INET6"]
type = ["SOCK_STREAM", "SOCK_DGRAM"]
option = ["ordinary"]

[[rule]]
name = "capture"
subject = { users = ["nobody"] }
allow = ["create", "bind", "capture", "inject", "receive", "send", "ioctl", "option"]
family = ["AF_PACKET"]
option = ["ordinary"]

[[rule]]
name = "rcvall"  # the broker emulates it with a packet socket
subject = { users = ["nobody"] }
allow = ["create"]
family = ["AF_INET"]
type = ["SOCK_RAW"]
protocol = ["IPPROTO_IP"]
"""


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
@unittest.skipUnless(os.path.exists(PYTHON), "the system has no python3")
class Roles(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK | NEW_MOUNTS) != 0:
            raise unittest.SkipTest(f"no namespaces here: {os.strerror(ctypes.get_errno())}")
        run("mount", "--make-rprivate", "/")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
        run("ip", "link", "set", "left", "up")
        run("ip", "link", "set", "right", "up")
        cls.broker = Broker(policy=POLICY)
        cls.addClassCleanup(cls.broker.stop)
        # The user nobody can read it there.
        cls.package = f"{cls.broker.folder}/package"
        shutil.copytree(common.PACKAGE, cls.package, ignore=shutil.ignore_patterns("__pycache__"))
        hosts = pathlib.Path(cls.broker.folder, "hosts")
        hosts.write_text(f"127.0.0.1 localhost daring.cwi.nl {socket.gethostname()}\n")
        run("mount", "--bind", str(hosts), "/etc/hosts")

    def start(self, *arguments, mode="direct"):
        """Starts a program as nobody."""
        command = [*AS_NOBODY, PYTHON, "-m", "sockbroker", "--mode", mode, "--broker", self.broker.path, *arguments]
        started = subprocess.Popen(
            command, env=environment(PYTHONPATH=self.package, PYTHONUNBUFFERED="1"), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip
        self.addCleanup(started.stdout.close)
        self.addCleanup(started.stderr.close)
        self.addCleanup(started.wait)
        self.addCleanup(started.kill)
        return started

    def finish(self, started):
        """The output of a program, which must succeed without errors."""
        output, errors = started.communicate(timeout=common.SECONDS)
        self.assertEqual((started.returncode, errors), (0, ""))
        return output

    def test_a_web_server_serves_port_80(self):
        for mode in ("direct", "mediated"):
            server = self.start("-m", "http.server", "80", "--bind", "127.0.0.1", mode=mode)
            self.assertIn("port 80", server.stdout.readline())
            with socket.create_connection(("127.0.0.1", 80), timeout=common.SECONDS) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                self.assertEqual(client.recv(15), b"HTTP/1.0 200 OK")
            server.kill()
            server.wait()

    def test_a_denial_names_the_missing_grant(self):
        text = """
            import socket
            try:
                socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).bind(("127.0.0.1", 0))
                socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            except PermissionError as error:
                print(type(error).__name__, error.errno, error.rule, error.grant)
        """
        output = self.finish(self.start(*code(text), mode="mediated"))
        self.assertTrue(output.startswith('Denied 1 no rule allow = ["create"] family = ["AF_INET'), output)

    def test_a_program_without_capabilities_sends_and_captures_frames(self):
        text = """
            import socket
            status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0, name
            kind = 0x88B5  # for experiments, IEEE 802
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            sender.bind(("left", kind))
            catcher = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            catcher.bind(("right", kind))
            catcher.settimeout(120)
            frame = b"\\xff" * 6 + b"\\x02" * 6 + b"\\x88\\xb5" + b"hello".ljust(50, b".")
            print(sender.send(frame))
            data, address = catcher.recvfrom(2000)
            print(data == frame, address[:3], sender.fileno() >= 2**30)
        """
        for mode in ("direct", "mediated"):
            output = self.finish(self.start("-W", "ignore", *code(text), mode=mode))
            self.assertEqual(output, "64\nTrue ('right', 34997, 1) True\n", mode)

    def test_select_waits_for_sockets_without_a_descriptor(self):
        text = """
            import asyncio, select, selectors, socket
            kind = 0x88B5
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            sender.bind(("left", kind))
            catcher = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            catcher.bind(("right", kind))
            frame = b"\\xff" * 6 + b"\\x02" * 6 + b"\\x88\\xb5" + b"hello".ljust(50, b".")
            def ready():
                yield select.select([catcher], [], [], 0)[0] == [catcher]
                for make in (select.poll, select.epoll):
                    poll = make()
                    poll.register(catcher, select.POLLIN)
                    yield poll.poll(0) == [(catcher.fileno(), select.POLLIN)]
                for make in (selectors.DefaultSelector, selectors.SelectSelector):
                    with make() as selector:
                        selector.register(catcher, selectors.EVENT_READ)
                        yield len(selector.select(0)) == 1
            print(any(ready()))
            sender.send(frame)
            select.select([catcher], [], [], 120)
            print(all(ready()))
            catcher.recv(2000)
            catcher.setblocking(False)
            async def catch():
                waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(catcher, 2000))
                await asyncio.sleep(0.05)
                sender.send(frame)
                return await asyncio.wait_for(waiting, 120)
            print(catcher.fileno() >= 2**30, asyncio.run(catch()) == frame)
        """
        for mode in ("direct", "mediated", "remote"):
            output = self.finish(self.start("-W", "ignore", *code(text), mode=mode))
            self.assertEqual(output, "False\nTrue\nTrue True\n", mode)

    def test_asyncio_needs_no_role_for_its_socket_pair(self):
        text = """
            import socket
            a, b = socket.socketpair()
            again = a.dup()
            again.send(b"local"); print(b.recv(10), a.gettimeout(), b.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
            c = socket.socket(fileno=b.detach())
            a.send(b"adopted"); print(c.recv(10))
            for sock in (a, again, c): sock.close()
        """
        for mode in ("direct", "mediated", "remote"):
            echo = self.finish(self.start(self.copy(TESTS / "asyncio_echo.py"), mode=mode))
            self.assertEqual(echo, "b'HELLO\\n'\n", mode)
            output = self.finish(self.start(*code(text), mode=mode))
            self.assertEqual(output, "b'local' None 1\nb'adopted'\n", mode)

    def test_the_programs_of_the_documentation_run_unchanged(self):
        for kind in ("echo", "dual"):
            for mode in ("direct", "mediated"):
                server = self.start("-W", "ignore", self.copy(DOCUMENTATION / f"{kind}_server.py"), mode=mode)
                self.wait_for_port(50007)
                client = self.start("-W", "ignore", self.copy(DOCUMENTATION / f"{kind}_client.py"), mode=mode)
                self.assertEqual(self.finish(client), "Received b'Hello, world'\n")
                self.assertTrue(self.finish(server).startswith("Connected by ("))
                self.forget_port()

    def test_the_sniffer_of_the_documentation_runs_unchanged(self):
        for mode in ("direct", "mediated"):
            sniffer = self.start("-W", "ignore", self.copy(DOCUMENTATION / "sniffer.py"), mode=mode)
            stop = threading.Event()

            def chatter(stop=stop):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    while not stop.wait(0.02):
                        sock.sendto(b"to be sniffed", ("127.0.0.1", 9))

            talker = threading.Thread(target=chatter)
            talker.start()
            try:
                output = self.finish(sniffer)
            finally:
                stop.set()
                talker.join()
            self.assertIn("to be sniffed", output)
            self.assertTrue(output.endswith("('127.0.0.1', 0))\n"), output)

    def copy(self, path):
        """Copies a program to a folder that the user nobody can read."""
        return shutil.copy(path, self.broker.folder)

    def wait_for_port(self, port):
        """Waits until a program listens on the port."""
        deadline = time.monotonic() + common.SECONDS
        listening = f":{port:04X} "
        while time.monotonic() < deadline:
            for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
                if any(listening in line and " 0A " in line for line in pathlib.Path(table).read_text().splitlines()):
                    return
            time.sleep(0.02)
        self.fail(f"no program listens on port {port}")

    def forget_port(self):
        """Closes connections in TIME-WAIT, because the programs do not set SO_REUSEADDR."""
        subprocess.run(["ss", "-K", "-t", "state", "time-wait"], capture_output=True, check=False)


if __name__ == "__main__":
    unittest.main()
