"""The plug-in for pytest: fixtures, marker, and the reports of failed tests.

The tests need root, for a network of their own, and the pytest that `.ci/pytest` installs.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest
import xml.etree.ElementTree

from process.common import BROKER, SECONDS, Broker, environment
from process.namespaces import enter_network
from sockbroker import pcapng

PYTEST = pathlib.Path(BROKER).parents[1] / "pytest/bin/python"
CAPTURE_READERS = PYTEST.parents[2] / "capture-readers/bin/python"
FULL = bool(os.environ.get("SOCKBROKER_FULL_COUNTS"))
# Captures of the fixture on a quiet machine, and on one whose processors are busy; and ports.
QUIET, LOADED = (8000, 2000) if FULL else (400, 100)
PORTS = 500 if FULL else 50
OWNED = """
version = 1

[[rule]]
name = "own networks"
subject = { everyone = true }
allow = ["create", "bind", "connect", "send", "receive", "capture", "handover", "inspect", "option"]
family = ["AF_INET", "AF_PACKET"]
netns = ["owned"]
"""
SEND = """
import socket
def send(data, port=9999):
    with socket.socket(type=socket.SOCK_DGRAM) as sock: sock.sendto(data, ("127.0.0.1", port))
def data(packet):
    return packet.data[42:]
"""
BUSY = "while True: pass"


@unittest.skipUnless(os.geteuid() == 0, "needs root")
@unittest.skipUnless(PYTEST.exists(), "pytest is not installed: run .ci/pytest")
class Plugin(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        enter_network()
        cls.broker = Broker(policy=OWNED)
        cls.addClassCleanup(cls.broker.stop)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def pytest(self, text, *options, url=None, plugin=True, **variables):
        """Runs the text as a test module. Returns the outcomes by the names of the tests, and the output."""
        file = self.folder / "test_it.py"
        file.write_text(SEND + textwrap.dedent(text))
        (self.folder / "pytest.ini").touch()
        results = self.folder / "results.xml"
        own = ["-p", "sockbroker.pytest_plugin"] if plugin else []
        broker = ["--sockbroker", self.broker.path if url is None else url] if plugin and url != "" else []
        arguments = ["-q", "-p", "no:cacheprovider", "--strict-markers", f"--basetemp={self.folder}/temporary"]
        done = subprocess.run(
            [PYTEST, "-X", "dev", "-W", "error::ResourceWarning", "-m", "pytest", *own, *broker, *arguments,
             f"--junitxml={results}", *options, str(file)],
            cwd=self.folder, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=SECONDS * (20 if FULL else 3),
        )  # fmt: skip
        self.output = done.stdout
        self.assertTrue(results.exists(), done.stdout)
        self.results = xml.etree.ElementTree.parse(results)
        outcomes = {}
        for case in self.results.iter("testcase"):
            kinds = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
            outcomes[case.get("name")] = "+".join(kinds) or "passed"
        return outcomes

    def check_all_pass(self, text, *options, **more):
        outcomes = self.pytest(text, *options, **more)
        self.assertEqual(set(outcomes.values()), {"passed"}, self.output)
        return len(outcomes)

    def test_a_capture_is_live_when_the_fixture_returns(self):
        text = """
            import pytest
            @pytest.mark.parametrize("number", range(RUNS))
            def test_it(sockbroker_capture, number):
                port = 10000 + number
                send(b"before", port)
                capture = sockbroker_capture("lo", f"udp port {port}")
                send(b"foreign", 9)
                send(b"first", port)
                assert data(capture.expect(timeout=120)) == b"first"
                send(b"second", port)
                capture.stop()
                assert [data(packet) for packet in capture.packets()] == [b"first", b"second"]
        """
        self.assertEqual(self.check_all_pass(text.replace("RUNS", str(QUIET)), "-n", "4"), QUIET)
        busy = [subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.DEVNULL) for _ in range(4)]
        try:
            self.assertEqual(self.check_all_pass(text.replace("RUNS", str(LOADED)), "-n", "4"), LOADED)
        finally:
            for process in busy:
                process.kill()
                process.wait()

    def test_a_failed_test_has_the_captured_packets_in_its_report(self):
        text = """
            import pytest
            def test_fails(sockbroker_capture):
                captures = [sockbroker_capture("lo", "udp port 9999"), sockbroker_capture("lo", "udp port 9998")]
                for number in range(25): send(b"packet %02d" % number)
                assert False
            def test_passes(sockbroker_capture):
                sockbroker_capture("lo")
                send(b"x")
            def test_does_not_see_it(sockbroker_capture):
                with pytest.raises(TimeoutError): sockbroker_capture("lo").expect("udp port 1", timeout=0)
            @pytest.fixture
            def broken(sockbroker_capture):
                sockbroker_capture("lo", "udp")
                send(b"x")
                yield
                raise OSError("broken")
            def test_with_broken_fixture(broken): pass
        """
        outcomes = self.pytest(text)
        expected = {"test_fails": "failure", "test_passes": "passed", "test_does_not_see_it": "passed"}
        self.assertEqual(outcomes, {**expected, "test_with_broken_fixture": "error"}, self.output)
        paths = sorted(re.findall(r"filter='(.*)'> in (/\S+\.pcapng)", self.output), reverse=True)
        self.assertEqual([text for text, _ in paths], ["udp port 9999", "udp port 9998", "udp"])
        self.assertIn("25 packets, 0 dropped, 0 unread\n... 5 packets\n", self.output)
        for number in range(25):
            shown = b"packet %02d" % number in bytes.fromhex("".join(re.findall(r"bytes: ([0-9a-f ]+)$", self.output, re.M)))
            self.assertEqual(shown, number >= 5)
        properties = [
            [part.get("value") for part in case.iter("property") if part.get("name") == "sockbroker_capture"]
            for case in self.results.iter("testcase")
        ]
        self.assertEqual(properties[:3], [[path for _, path in paths[:2]], [], []])
        counts = [self.packets_of(path) for _, path in paths]
        self.assertEqual(counts, [25, 0, 1])

    def test_a_report_has_what_can_be_read_of_a_file_that_was_changed(self):
        text = """
            import os
            def test_fails(sockbroker_capture):
                capture = sockbroker_capture("lo", "udp port 9999")
                for number in range(3): send(b"packet %02d" % number)
                capture.stop()
                os.truncate(capture.file, os.stat(capture.file).st_size - 100)
                assert False
        """
        self.assertEqual(self.pytest(text), {"test_fails": "failure"}, self.output)
        self.assertIn("3 packets, 0 dropped, 0 unread\n", self.output)
        self.assertRegex(self.output, r"the rest cannot be read: the capture file \S+ was changed")
        self.assertIn(b"packet 01".hex(" "), self.output)

    def packets_of(self, path):
        """The number of packets in a file, by dpkt if it is installed."""
        blocks, count, at = pathlib.Path(path).read_bytes(), 0, 0
        decoder = pcapng.Decoder()
        while size := pcapng.block_size(blocks, at):
            count += isinstance(decoder.decode(blocks[at : at + size]), pcapng.Packet)
            at += size
        self.assertEqual(at, len(blocks))
        if CAPTURE_READERS.exists():
            text = "import sys; from scapy.utils import rdpcap; print(len(rdpcap(sys.argv[1])))"
            done = subprocess.run(
                [CAPTURE_READERS, "-c", text, path], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                text=True, timeout=SECONDS, env=environment(HOME=str(self.folder)),
            )  # fmt: skip
            self.assertEqual(int(done.stdout), count)
        return count

    def test_the_report_of_a_worker_of_xdist_has_it_too(self):
        text = """
            def test_fails(sockbroker_capture):
                sockbroker_capture("lo", "udp")
                send(b"x")
                assert False
        """
        self.assertEqual(self.pytest(text, "-n", "2"), {"test_fails": "failure"})
        ((path),) = re.findall(r"in (/\S+\.pcapng)", self.output)
        self.assertEqual(self.packets_of(path), 1)

    def test_the_marker_skips_with_the_reason_of_the_policy(self):
        text = """
            import pytest
            @pytest.mark.sockbroker(grants=["create AF_INET SOCK_STREAM", "capture AF_PACKET SOCK_RAW interface=lo"])
            def test_granted(sockbroker_capture): sockbroker_capture("lo")
            @pytest.mark.sockbroker(grants=["create AF_INET SOCK_STREAM netns=lab1"])
            def test_denied(): assert False
            @pytest.mark.sockbroker(grants="create AF_INET SOCK_STREAM netns=lab1")
            class Test:
                def test_in_class(self): assert False
            @pytest.mark.sockbroker
            def test_needs_a_broker(): pass
            @pytest.mark.sockbroker(grants=["create SOCK_NOTHING"])
            def test_malformed(): pass
            @pytest.mark.sockbroker("create")
            def test_misused(): pass
            def test_plain(): pass
        """
        expected = {
            "test_granted": "passed", "test_denied": "skipped", "test_in_class": "skipped", "test_needs_a_broker": "passed",
            "test_malformed": "error", "test_misused": "error", "test_plain": "passed",
        }  # fmt: skip
        self.assertEqual(self.pytest(text, "-rs"), expected, self.output)
        self.assertRegex(self.output, r"SKIPPED .*denies 'create AF_INET SOCK_STREAM netns=lab1': .*missing grant: allow = ")
        self.assertIn("SOCK_NOTHING", self.output)
        self.assertIn("takes grants=[...] alone", self.output)

    def test_without_a_broker_the_tests_are_skipped_with_the_reason(self):
        text = """
            import pytest
            def test_client(sockbroker): pass
            def test_session(sockbroker_session): pass
            def test_capture(sockbroker_capture): pass
            def test_port(sockbroker_port): pass
            def test_netns(sockbroker_netns): pass
            @pytest.mark.sockbroker(grants=[])
            def test_marker(): pass
            def test_plain(): pass
        """
        missing = f"{self.folder}/nothing"
        reason = f"cannot connect to the broker at {missing}: No such file or directory"
        outcomes = self.pytest(text, "-rs", url="", SOCKBROKER=missing)
        self.assertEqual(outcomes.pop("test_plain"), "passed", self.output)
        self.assertEqual((len(outcomes), set(outcomes.values())), (6, {"skipped"}), self.output)
        self.assertIn(reason, self.output)
        # One that the command line names is meant.
        outcomes = self.pytest(text, url=missing)
        self.assertEqual(outcomes.pop("test_plain"), "passed", self.output)
        self.assertEqual((len(outcomes), set(outcomes.values())), (6, {"error"}), self.output)
        self.assertIn(f"--sockbroker: {reason}", self.output)

    def test_the_setting_of_the_project_names_the_broker(self):
        text = f"""
            def test_url(sockbroker): assert sockbroker.url == {self.broker.path!r}
        """
        self.check_all_pass(text, "-o", f"sockbroker={self.broker.path}", url="", SOCKBROKER="/nonexistent")
        self.check_all_pass(text, url="", SOCKBROKER=self.broker.path)

    def test_the_client_is_that_of_the_run_and_a_session_that_of_the_test(self):
        text = """
            import pytest
            seen = []
            @pytest.mark.parametrize("number", range(3))
            def test_clients(sockbroker, sockbroker_session, number):
                listener = sockbroker_session.socket.create_server(("127.0.0.1", 0))
                seen.append((sockbroker, sockbroker_session, listener))
                assert sockbroker is seen[0][0] and sockbroker is not sockbroker_session
                assert len({id(session) for _, session, _ in seen}) == number + 1
                for _, session, earlier in seen[:-1]:
                    with pytest.raises(OSError): session.socket.socket()
                    earlier.close()
            def test_the_last_one_is_closed_too(): seen[-1][2].close()
        """
        self.assertEqual(self.check_all_pass(text), 4)

    def test_a_port_is_bound_for_the_whole_test(self):
        text = f"""
            import pytest, socket
            ports = set()
            @pytest.mark.parametrize("number", range({PORTS}))
            def test_port(sockbroker_port, number):
                with socket.socket() as other, pytest.raises(OSError): other.bind(sockbroker_port.address)
                with socket.create_connection(("127.0.0.1", sockbroker_port.number)) as client:
                    accepted, _ = sockbroker_port.listener.accept()
                    with accepted:
                        client.sendall(b"x")
                        assert accepted.recv(1) == b"x" and sockbroker_port.address == ("127.0.0.1", int(sockbroker_port))
            @pytest.mark.parametrize("sockbroker_port", ["0.0.0.0", "::1"], indirect=True)
            def test_address(sockbroker_port, request):
                assert f"[{{sockbroker_port.host}}]" in request.node.name and sockbroker_port.number > 0
        """
        self.assertEqual(self.check_all_pass(text, "-n", "4"), PORTS + 2)

    def test_a_network_namespace_is_that_of_the_test(self):
        text = """
            import os, pytest, socket, subprocess, sys
            inodes = set()
            @pytest.mark.parametrize("number", range(5))
            def test_namespace(sockbroker_netns, number):
                inode = os.fstat(sockbroker_netns.fileno()).st_ino
                assert inode == os.stat(sockbroker_netns.path).st_ino != os.stat("/proc/self/ns/net").st_ino
                with sockbroker_netns.capture("lo", "udp port 7001") as capture:
                    send(b"outside", 7001)
                    with sockbroker_netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.sendto(b"socket", ("127.0.0.1", 7001))
                    program = "import socket; socket.socket(type=2).sendto(b'program', ('127.0.0.1', 7001))"
                    sockbroker_netns.run([sys.executable, "-c", program], check=True)
                assert [data(packet) for packet in capture.packets()] == [b"socket", b"program"]
        """
        self.assertEqual(self.check_all_pass(text), 5)

    def test_a_port_that_is_denied_skips_the_test(self):
        deny = '[[rule]]\nname = "no servers"\nsubject = { everyone = true }\ndeny = ["listen"]\n'
        broker = Broker(policy=f"version = 1\n{deny}")
        self.addCleanup(broker.stop)
        outcomes = self.pytest("def test_it(sockbroker_port): pass", "-rs", url=broker.path)
        self.assertEqual(outcomes, {"test_it": "skipped"})
        self.assertRegex(self.output, 'denies a listening socket: .*"no servers" denies it')

    def test_a_network_namespace_that_is_denied_skips_the_test(self):
        broker = Broker(policy="version = 1")
        self.addCleanup(broker.stop)
        outcomes = self.pytest("def test_it(sockbroker_netns): pass", "-rs", url=broker.path)
        self.assertEqual(outcomes, {"test_it": "skipped"})
        self.assertRegex(self.output, 'denies sockets in a network namespace of this user: .*netns = ."owned".')

    def test_pytest_loads_nothing_else_before_a_test_needs_it(self):
        text = """
            import sys
            def test_modules():
                loaded = {name.partition(".")[2] for name in sys.modules if name.startswith("sockbroker")}
                assert not loaded & {"client", "session", "broker", "packet_capture", "libpcap", "own_namespace"}, loaded
        """
        self.check_all_pass(text)


if __name__ == "__main__":
    unittest.main()
