"""Captures: `sockbroker.capture`, and the same of a connected broker. They need root, for a network of their own."""

import fcntl
import gc
import itertools
import os
import pathlib
import shlex
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import unittest
import warnings

import sockbroker
from process.common import SECONDS, Broker, environment
from process.namespaces import enter_network
from sockbroker import bpf, capture_file, packet_filter, pcapng

FULL = bool(os.environ.get("SOCKBROKER_FULL_COUNTS"))
FLOOD = """
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    while True: sock.sendto(b"flood", ("127.0.0.1", 9))
"""
RELAY = """
import os, socket, sys, threading
broker, own = socket.socket(socket.AF_UNIX), socket.socket(fileno=0)
try: broker.connect(sys.argv[1])
except OSError: sys.exit(1)
def copy(source, target):
    while data := source.recv(65536): target.sendall(data)
    target.shutdown(socket.SHUT_WR)
threading.Thread(target=copy, args=(own, broker), daemon=True).start()
try: copy(broker, own)
except OSError: pass
"""
CALLER = """
version = 1

[[rule]]
name = "own network"
subject = { everyone = true }
allow = ["capture"]
family = ["AF_PACKET"]
netns = ["caller"]
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, stdin=subprocess.DEVNULL)


def send(data, port=9999):
    """Sends a datagram over the loopback."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(data, ("127.0.0.1", port))


def payload(packet):
    """The data of a datagram over the loopback."""
    return packet.data[42:]


def payloads(capture):
    return [payload(packet) for packet in capture.packets()]


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Captures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        enter_network()
        cls.broker = Broker()
        cls.addClassCleanup(cls.broker.stop)
        relay = pathlib.Path(cls.broker.folder, "relay.py")
        relay.write_text(RELAY)
        cls.remote = "exec:" + shlex.join([sys.executable, "-S", str(relay), cls.broker.path])

    def setUp(self):
        self.clients = [self.connect(self.broker.path), self.connect(self.broker.path, "remote"), self.connect(self.remote)]

    def connect(self, *arguments):
        client = sockbroker.connect(*arguments)
        self.addCleanup(client.close)
        return client

    def test_every_packet_between_start_and_stop_is_captured(self):
        for client in self.clients:
            for number in range(5):
                send(b"before")
                before = time.time_ns()
                with client.capture("lo", "udp port 9999") as capture:
                    sent = [b"%d of %d" % (part, number) for part in range(50)]
                    for data in sent:
                        send(data)
                    send(b"other", 9998)
                    self.assertEqual(payload(capture.expect(timeout=SECONDS)), sent[0])
                    self.assertEqual(capture.interfaces, [(1, "lo", 1)])
                    self.assertTrue(before <= capture.started_ns <= time.time_ns())
                send(b"after")
                self.assertEqual(payloads(capture), sent)
                size = sum(len(packet.data) for packet in capture.packets())
                self.assertEqual(capture.stats(), (50, 50, 0, 0, size, "stopped", True))
                self.assertEqual(capture.stop(), capture.stats())

    def test_a_packet_has_its_facts(self):
        with self.clients[0].capture("lo", snaplen=60) as capture:
            before = time.time()
            send(b"x" * 100)
            packet = capture.expect("udp", timeout=SECONDS)
        self.assertEqual((len(packet.data), packet.length), (60, 142))
        self.assertEqual((packet.interface, packet.direction, packet.link_type, packet.dropped), ("lo", "in", 1, 0))
        self.assertEqual(bytes(packet), packet.data)
        self.assertTrue(before - 0.001 <= packet.time <= time.time(), packet)
        self.assertIn("in lo at", repr(packet))

    def test_300_starts_under_a_flood_miss_nothing_and_see_nothing_else(self):
        flood = subprocess.Popen([sys.executable, "-c", FLOOD], stdin=subprocess.DEVNULL)
        self.addCleanup(flood.wait)
        self.addCleanup(flood.kill)
        missed = foreign = early = 0
        counts = (3000, 300, 50) if FULL else (300, 60, 20)
        for client, count in zip(self.clients, counts):
            for number in range(count):
                port = 10000 + number % 100
                send(b"before", port)
                began = time.time_ns()
                with client.capture("lo", f"udp port {port}") as capture:
                    data = b"packet %d" % number
                    send(data, port)
                    first = capture.expect(timeout=SECONDS)
                found = list(capture.packets())
                missed += payload(first) != data
                foreign += len(found) - 1
                early += not began <= capture.started_ns <= first.time_ns
        self.assertIsNone(flood.poll())
        self.assertEqual((missed, foreign, early), (0, 0, 0))

    def test_expect_returns_each_match_once_and_in_order(self):
        for client in self.clients:
            with client.capture("lo", "udp") as capture:
                for port, data in ((7001, b"a"), (7002, b"b"), (7001, b"c"), (7001, b"d")):
                    send(data, port)
                self.assertEqual(payload(capture.expect("udp port 7001", timeout=SECONDS)), b"a")
                self.assertEqual(payload(capture.expect("udp port 7001", timeout=SECONDS)), b"c")
                self.assertEqual(payload(capture.expect(lambda packet: payload(packet) == b"d", timeout=SECONDS)), b"d")
                with self.assertRaisesRegex(TimeoutError, r"no packet matched 'udp port 7002' within 0 s, and 0 others"):
                    capture.expect("udp port 7002", timeout=0)
                threading.Timer(0.05, send, [b"later"]).start()
                self.assertEqual(payload(capture.expect(timeout=SECONDS)), b"later")
                for wrong in ("udp port", "inbound"):
                    with self.assertRaises(sockbroker.FilterError):
                        capture.expect(wrong)
                with self.assertRaises(ZeroDivisionError):
                    send(b"e")
                    capture.expect(lambda packet: 1 / 0, timeout=SECONDS)
            with self.assertRaisesRegex(EOFError, "no packet came before the end of the capture"):
                capture.expect(timeout=None)

    def test_a_timeout_counts_also_while_other_packets_come(self):
        flood = subprocess.Popen([sys.executable, "-c", FLOOD], stdin=subprocess.DEVNULL)
        self.addCleanup(flood.wait)
        self.addCleanup(flood.kill)
        with self.clients[0].capture("lo", "udp") as capture:
            capture.expect(timeout=SECONDS)

            def slow(packet):  # so that packets come faster than they are read
                time.sleep(0.0002)

            with self.assertRaisesRegex(TimeoutError, r"within 0\.02 s, and \d+ others came"):
                capture.expect(slow, timeout=0.02)

    def test_a_timeout_counts_also_while_another_thread_expects(self):
        with self.clients[0].capture("lo", "udp") as capture:
            thread = threading.Thread(target=lambda: capture.expect(timeout=SECONDS))
            thread.start()
            text = ""
            while "another thread expects" not in text:  # until the thread has begun
                with self.assertRaises(TimeoutError) as caught:
                    capture.expect(timeout=0.01)
                text = str(caught.exception)
            send(b"x")
            thread.join(SECONDS)
            self.assertFalse(thread.is_alive())

    def test_a_signal_interrupts_every_wait(self):
        text = """
            import signal, sys, time, sockbroker
            class Interrupted(Exception): pass
            def handler(*_): raise Interrupted
            signal.signal(signal.SIGALRM, handler)
            with sockbroker.connect(*sys.argv[1:]) as client, client.capture("lo", "udp port 1") as capture:
                for wait in (lambda: capture.expect(timeout=None), lambda: next(capture.packets()), lambda: capture.stop(100)):
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0.05)
                        wait()
                    except Interrupted: print("interrupted")
            """
        for arguments in ((self.broker.path,), (self.broker.path, "remote")):
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments], env=environment(),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
            self.assertEqual((done.stdout, done.stderr), ("interrupted\n" * 3, ""))

    def test_packets_come_while_the_capture_runs(self):
        for client in self.clients:
            with client.capture("lo", "udp") as capture:
                self.assertEqual(list(capture.packets(timeout=0)), [])
                thread = threading.Thread(target=lambda: [send(b"%d" % number) for number in range(20)])
                thread.start()
                found = [payload(packet) for packet in itertools.islice(capture.packets(), 20)]
                thread.join()
                self.assertEqual(found, [b"%d" % number for number in range(20)])
                self.assertEqual([payload(packet) for packet in capture.packets(timeout=0)], found)

                waiting = threading.Thread(target=lambda: found.extend(map(payload, capture.packets())))
                waiting.start()
                capture.stop()
                waiting.join(SECONDS)
                self.assertEqual(len(found), 40)

    def test_the_file_has_whole_packets_at_any_time(self):
        with self.clients[0].capture("lo", "udp") as capture:
            for number in range(10):
                send(b"x" * number * 100)
                capture.expect(timeout=SECONDS)
                blocks = pathlib.Path(capture.file).read_bytes()
                self.assertEqual(pcapng.whole_blocks(blocks), len(blocks))
        self.assertEqual(os.stat(capture.file).st_mode & 0o777, 0o600)

    def test_a_temporary_file_is_removed_with_the_capture_and_another_one_stays(self):
        own = f"{self.broker.folder}/own.pcapng"
        with self.clients[0].capture("lo", "udp") as temporary, self.clients[0].capture("lo", "udp", file=own) as kept:
            send(b"x")
        path = temporary.file
        self.assertEqual((kept.file, len(payloads(temporary)), len(payloads(kept))), (own, 1, 1))
        del temporary, kept
        gc.collect()
        self.assertEqual((os.path.exists(path), os.path.exists(own)), (False, True))
        text = """
            import sockbroker, sys
            capture = sockbroker.capture("lo", "udp")
            print(capture.file)
            sys.exit(0 if capture.stats().ended is None else 1)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(text)], env=environment(SOCKBROKER=self.broker.path), check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=SECONDS,
        )  # fmt: skip
        self.assertFalse(os.path.exists(done.stdout.strip()), done.stdout)

    def test_a_capture_that_nobody_stops_ends_when_it_is_collected(self):
        for client in self.clients:
            for _ in range(20):  # more than one user can have
                capture = client.capture("lo")
                with self.assertWarnsRegex(ResourceWarning, "unclosed <sockbroker.Capture of lo"):
                    del capture
                    gc.collect()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with client.capture("lo"):
                    pass
                gc.collect()

    def test_more_captures_than_the_limit_are_refused(self):
        client = self.clients[0]
        captures = [client.capture("lo", buffer_bytes=1 << 20) for _ in range(8)]
        with self.assertRaisesRegex(OSError, "captures_per_user"):
            client.capture("lo", buffer_bytes=1 << 20)
        for capture in captures:
            capture.stop()
        captures = [client.capture("lo") for _ in range(4)]
        with self.assertRaisesRegex(OSError, "capture_bytes_per_user"):
            client.capture("lo")
        for capture in captures:
            capture.stop()
        client.capture("lo").stop()

    def test_a_capture_ends_by_itself_at_its_limits(self):
        for client in self.clients:
            for options in ({"max_packets": 3}, {"max_bytes": 3 * 43}):
                capture = client.capture("lo", "udp", **options)
                for _ in range(5):
                    send(b"x")
                self.assertEqual(len(payloads(capture)), 3)
                stats = capture.stop()
                self.assertEqual((stats.captured, stats.ended, stats.complete), (3, "limit", True))
            for wrong in (float("nan"), float("inf")):
                with self.assertRaises(ValueError):
                    client.capture("lo", "udp", max_seconds=wrong)
            capture = client.capture("lo", "udp", max_seconds=0.05)
            self.assertEqual((payloads(capture), capture.stop().ended), ([], "limit"))

    def test_another_filter_is_exact(self):
        with self.clients[0].capture("lo", "udp port 7001") as capture:
            send(b"a", 7001)
            send(b"b", 7002)
            self.assertGreater(capture.set_filter("udp port 7002"), capture.started_ns)
            send(b"c", 7001)
            send(b"d", 7002)
            with self.assertRaises(sockbroker.FilterError):
                capture.set_filter("udp port")
            capture.set_filter(b"")
            send(b"e", 7003)
        self.assertEqual([payload(one) for one in capture.packets() if one.data[23] == 17], [b"a", b"d", b"e"])

    def test_a_program_is_a_filter(self):
        nothing = bpf.encode([bpf.instruction(bpf.RET, 0)])
        with self.clients[0].capture("lo", nothing) as capture:
            send(b"x")
        self.assertEqual(payloads(capture), [])

    def test_interfaces_are_named_or_all(self):
        ip("link", "add", "left", "type", "veth", "peer", "name", "right")
        self.addCleanup(ip, "link", "delete", "left")
        for name in ("left", "right"):
            ip("link", "set", name, "up")
        frame = b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + b"hello".ljust(50, b".")
        for client in self.clients:
            captures = [client.capture(names, "ether proto 0x88b5 or udp") for names in (["left", "right"], "any", None, "left")]
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind(("left", 0x88B5))
                sock.send(frame)
            send(b"x")
            for capture in captures:
                capture.stop()
            found = [{(one.interface, one.direction) for one in capture.packets()} for capture in captures]
            both = {("left", "out"), ("right", "in")}
            self.assertEqual(found, [both, both | {("lo", "in")}, both | {("lo", "in")}, {("left", "out")}])
            self.assertEqual([one.name for one in captures[0].interfaces], ["left", "right"])
            with client.capture("left", direction="in") as capture, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind(("left", 0x88B5))
                sock.send(frame)
            self.assertNotIn(frame, [one.data for one in capture.packets()])

    def test_filters_fit_the_packets_of_an_interface_without_ethernet(self):
        if not os.path.exists("/dev/net/tun"):
            self.skipTest("the system has no /dev/net/tun")
        ip("tuntap", "add", "dev", "tunnel", "mode", "tun")
        self.addCleanup(ip, "tuntap", "delete", "dev", "tunnel", "mode", "tun")
        ip("address", "add", "10.99.0.1/24", "dev", "tunnel")
        with open("/dev/net/tun", "r+b", buffering=0) as end:
            fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22x", b"tunnel", 0x1001))  # TUNSETIFF
            ip("link", "set", "tunnel", "up")
            for client in self.clients:
                with client.capture("tunnel", "udp port 7001") as capture, client.capture(filter="udp") as everything:
                    with socket.socket(type=socket.SOCK_DGRAM) as sock:
                        sock.sendto(b"x", ("10.99.0.2", 7000))
                        sock.sendto(b"y", ("10.99.0.2", 7001))
                    send(b"z")
                    packet = capture.expect("udp port 7001", timeout=SECONDS)
                self.assertEqual((packet.data[28:], packet.link_type, packet.interface), (b"y", 101, "tunnel"))
                self.assertEqual(len(payloads(capture)), 1)
                self.assertEqual([one.link_type for one in everything.packets()], [101, 101, 1])
                with self.assertRaisesRegex(sockbroker.FilterError, "ether host 02:00:00:00:00:01"):
                    client.capture("tunnel", "ether host 02:00:00:00:00:01")

    def test_vlan_expressions_select_the_same_packets_live_and_in_the_file(self):
        ip("link", "add", "left", "type", "veth", "peer", "name", "right")
        self.addCleanup(ip, "link", "delete", "left")
        for name in ("left", "right"):
            ip("link", "set", name, "up")
        header = b"\xff" * 6 + b"\x02" * 6
        tags = (b"", b"\x81\x00\x00\x64", b"\x81\x00\x00\xc8", b"\x88\xa8\x00\xc8\x81\x00\x00\x64")
        frames = [header + tag + kind + bytes(50) for tag in tags for kind in (b"\x08\x06", b"\x88\xb5")]
        for expression in ("vlan", "vlan 100", "vlan 200 and vlan 100", "vlan 100 and arp", "not vlan"):
            with self.clients[0].capture("right", expression) as live, self.clients[0].capture("right") as file:
                with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                    sock.bind(("left", 0x88B5))
                    for frame in frames:
                        sock.send(frame)
            matches = packet_filter.PacketFilter(expression).matches
            wanted = [frame for frame in frames if matches(1, frame, len(frame))]
            found = [[one.data for one in capture.packets() if one.data in frames] for capture in (live, file)]
            self.assertEqual(found, [wanted, frames], expression)
            self.assertTrue(0 < len(wanted) < len(frames))

    def test_what_is_wrong_is_refused_at_once(self):
        for client in self.clients:
            for arguments, kind, text in (
                (("lo", "udp port"), sockbroker.FilterError, "syntax error"),
                (("nowhere",), OSError, "No such device"),
                (([],), ValueError, "no interface is named"),
                ((5,), TypeError, "an interface is a name, several names or None, not int"),
                (([f"lo{number}" for number in range(17)],), ValueError, "at most 16 interfaces"),
                (("lo", b"\0" * 8), (ValueError, OSError), ""),
                (("lo", b"\0" * 7), (ValueError, OSError, TypeError), ""),
            ):
                with self.assertRaisesRegex(kind, text):
                    client.capture(*arguments)
            with self.assertRaises(OSError):
                client.capture("lo", file="/nonexistent/file")
            with self.assertRaises(TypeError):
                client.capture("lo", direction="sideways")
        for _ in range(20):  # no capture is left
            self.clients[0].capture("lo").stop()

    def test_a_full_disk_ends_the_capture_with_its_error(self):
        for client in self.clients:
            capture = client.capture("lo", "udp", file="/dev/full")
            with self.assertRaisesRegex(OSError, "No space left on device"):
                send(b"x")
                capture.expect(timeout=SECONDS)
            with self.assertRaisesRegex(OSError, "No space left on device"):
                capture.stop()

    def test_a_child_process_cannot_use_the_capture_and_leaves_it_alone(self):
        for client in self.clients:
            with client.capture("lo", "udp") as capture:
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        with capture:
                            capture.stats()
                    except sockbroker.BrokerError:
                        del capture
                        status = 0
                    finally:
                        os._exit(status)
                self.assertEqual(os.waitpid(child, 0)[1], 0)
                send(b"x")
                self.assertEqual(payload(capture.expect(timeout=SECONDS)), b"x")

    def test_the_end_of_the_broker_is_an_error(self):
        for number in range(3):
            broker = Broker()
            self.addCleanup(broker.stop)
            remote = self.remote.replace(self.broker.path, broker.path)
            client = self.connect(*((broker.path,), (broker.path, "remote"), (remote,))[number])
            capture = client.capture("lo", "udp")
            send(b"x")
            capture.expect(timeout=SECONDS)
            broker.kill()
            with self.assertRaises((EOFError, sockbroker.BrokerError)):
                capture.expect(timeout=SECONDS)
            for call in (capture.stats, capture.stop):
                with self.assertRaises(sockbroker.BrokerError):
                    call()
            with self.assertRaises(ZeroDivisionError), capture:
                raise ZeroDivisionError
            self.assertEqual([payload(one) for one in itertools.islice(capture.packets(), 1)], [b"x"])

    def test_a_stream_without_its_last_block_is_an_error_and_not_the_end(self):
        with self.clients[0].capture("lo", "udp") as capture:
            send(b"x")
        whole = pathlib.Path(capture.file).read_bytes()
        last = len(whole) - int.from_bytes(whole[-4:], "little")
        for stream, expected in ((whole, None), (whole[:last], sockbroker.BrokerError)):
            parts = iter([stream[:100], stream[100:], b""])
            file = capture_file.CaptureFile(os.path.join(self.broker.folder, "file"))
            file.write_all(lambda parts=parts: next(parts))
            reader = capture_file.PacketReader(file)
            self.assertEqual(payload(reader.next(None)), b"x")
            for _ in range(2):
                if expected is None:
                    self.assertIsNone(reader.next(None))
                else:
                    self.assertRaisesRegex(expected, "without its last block", reader.next, None)

    def in_another_network(self, text, broker):
        """The output of a program in a network namespace of its own, which the broker calls `caller`."""
        source = 'import socket, sockbroker, subprocess, sys\nsubprocess.run(["ip", "link", "set", "lo", "up"], check=True)\n'
        done = subprocess.run(
            ["unshare", "--net", sys.executable, "-c", source + textwrap.dedent(text), broker.path], env=environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        self.assertEqual(done.stderr, "")
        return done.stdout

    def test_a_denial_names_the_missing_grant(self):
        text = """
            for mode in ("mediated", "remote"):
                with sockbroker.connect(sys.argv[1], mode) as lab:
                    try: lab.capture("lo", netns="caller")
                    except sockbroker.Denied as denied: print(denied.grant)
        """
        grant = 'allow = ["capture"] family = ["AF_PACKET"] type = ["SOCK_RAW"] interface = ["lo"] netns = ["caller"]\n'
        self.assertEqual(self.in_another_network(text, self.broker), grant * 2)

    def test_captures_are_in_the_network_that_the_program_selects(self):
        broker = Broker(policy=CALLER)
        self.addCleanup(broker.stop)
        text = """
            with sockbroker.connect(sys.argv[1]) as other, sockbroker.connect(sys.argv[1], netns="caller") as lab:
                captures = [
                    lab.capture("lo", "udp"), other.namespace("caller").capture("lo", "udp"),
                    other.capture("lo", "udp", netns="caller"), other.capture("lo", "udp"),
                ]
                with socket.socket(type=socket.SOCK_DGRAM) as sock: sock.sendto(b"x", ("127.0.0.1", 9))
                for capture in captures: capture.stop()
                print([len(list(capture.packets())) for capture in captures])
        """
        self.assertEqual(self.in_another_network(text, broker), "[1, 1, 1, 0]\n")


if __name__ == "__main__":
    unittest.main()
