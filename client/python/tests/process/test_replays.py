"""Replays: `sockbroker.replay`, and the same of a connected broker."""

import io
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest

import sockbroker
from process.common import SECONDS, Broker, environment
from process.namespaces import enter_network
from sockbroker.capture_parts import Divider, Malformed

HEADER = bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xB5])


def frame(number, length=60):
    return (HEADER + struct.pack("!Q", number)).ljust(length, b"x")


def pcap(packets, order="<", magic=0xA1B2C3D4, unit=1000):
    """A file of pairs: a time in nanoseconds and a frame."""
    file = [struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, 1)]
    for time, data in packets:
        file.append(struct.pack(order + "IIII", time // 10**9, time % 10**9 // unit, len(data), len(data)) + data)
    return b"".join(file)


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def pcapng(packets, order="<", resolution=None):
    """The same as pcapng, with times in microseconds or in the units of this option."""
    option = b"" if resolution is None else struct.pack(order + "HHB3x", 9, 1, resolution) + bytes(4)
    units = {None: 10**6, 9: 10**9, 0x8A: 2**10}[resolution]
    file = [block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))]
    file.append(block(order, 1, struct.pack(order + "HHI", 1, 0, 0) + option))
    for time, data in packets:
        ticks = time * units // 10**9
        fields = struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        file.append(block(order, 0x0BAD, b"unknown") + block(order, 6, fields + data))
    return b"".join(file)


class Division(unittest.TestCase):
    def parts(self, file, speed=1.0, pps=None, limit=None):
        return list(Divider(speed, pps, limit).parts(io.BytesIO(file)))

    def test_parts_begin_with_the_context_and_are_due_by_the_times_of_the_file(self):
        start = 1_700_000_000 * 10**9
        packets = [(start + at * 2**-10 * 10**9, frame(at)) for at in (0, 64, 128, 512, 4096)]
        packets = [(int(time), data) for time, data in packets]
        files = [
            pcap(packets), pcap(packets, ">"), pcap(packets, "<", 0xA1B23C4D, 1), pcapng(packets), pcapng(packets, ">"),
            pcapng(packets, "<", 9), pcapng(packets, ">", 0x8A),
        ]  # fmt: skip
        for number, file in enumerate(files):
            with self.subTest(number):
                parts = self.parts(file)
                self.assertEqual([(part.first, part.packets) for part in parts], [(1, 3), (4, 1), (5, 1)])
                for part, due in zip(parts, (0, 0.5, 4)):
                    self.assertAlmostEqual(part.due, due, 5)
                    self.assertEqual(self.parts(part.data)[0].data, part.data)
                self.assertEqual([part.packets for part in self.parts(file, speed=0)], [5])
                self.assertEqual([part.packets for part in self.parts(file, None, 100)], [5])
                self.assertEqual([part.packets for part in self.parts(file, 1.0, None, 2)], [2])
                self.assertEqual([part.due for part in self.parts(file, None, 2)], [0, 0.5, 1, 1.5, 2])

    def test_parts_are_limited_and_have_every_packet(self):
        packets = [(0, frame(number, 1400)) for number in range(2000)] + [(0, frame(number)) for number in range(20000)]
        for file in (pcap(packets), pcapng(packets)):
            parts = self.parts(file, 0)
            self.assertEqual(sum(part.packets for part in parts), len(packets))
            self.assertTrue(all(len(part.data) <= 1 << 20 and part.packets <= 16384 for part in parts))
            self.assertEqual([part.first for part in parts[1:]], [part.first + part.packets for part in parts[:-1]])

    def test_what_is_before_a_damage_comes_first(self):
        packets = [(0, frame(1)), (0, frame(2))]
        for file in (pcap(packets), pcapng(packets)):
            for size in range(1, len(file)):
                divider, found = Divider(1.0, None, None), 0
                try:
                    for part in divider.parts(io.BytesIO(file[:size])):
                        found += part.packets
                except Malformed as error:
                    self.assertTrue(str(error).startswith(f"packet {found + 1}: "), error)
                self.assertEqual(found, divider.packets)
        for file, text in (
            (b"no capture", "packet 1: the file begins with 6e6f2063, which is neither pcapng nor pcap"),
            (pcapng([]) + struct.pack("<III", 6, 13, 0), "a block has the length 13"),
            (pcapng([]) + block("<", 6, struct.pack("<IIIII", 1, 0, 0, 0, 0)), "a block is malformed"),
            (pcap([]) + struct.pack("<IIII", 0, 0, 1 << 30, 60), "a packet has 1073741824 bytes"),
        ):
            with self.assertRaisesRegex(Malformed, text):
                self.parts(file)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Replays(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        enter_network()
        subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
        for name in ("v0", "v1"):
            subprocess.run(["ip", "link", "set", name, "addrgenmode", "none", "up"], check=True)
        cls.broker = Broker()
        cls.addClassCleanup(cls.broker.stop)

    def setUp(self):
        self.clients = [sockbroker.connect(self.broker.path, mode) for mode in ("mediated", "remote")]
        for client in self.clients:
            self.addCleanup(client.close)
        self.receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.addCleanup(self.receiver.close)
        self.receiver.bind(("v1", 0x88B5))
        self.receiver.settimeout(SECONDS)

    def arrived(self, count):
        return [self.receiver.recv(65536) for _ in range(count)]

    def test_packets_of_files_and_file_objects_arrive(self):
        packets = [(number * 10**6, frame(number, 60 + number)) for number in range(50)]
        sent = [data for _, data in packets]
        for client in self.clients:
            with tempfile.NamedTemporaryFile() as named:
                named.write(pcapng(packets))
                named.flush()
                result = client.replay(named.name, "v0", loop=2)
                self.assertEqual(self.arrived(100), sent * 2)
                self.assertEqual(result[:4], (100, 2 * sum(map(len, sent)), 0, []))
                self.assertGreater(result.seconds, 0)
                result = client.replay(pathlib.Path(named.name), "v0", pps=10000, limit=7)
                self.assertEqual((result.packets, self.arrived(7)), (7, sent[:7]))
            result = client.replay(io.BytesIO(pcap(packets)), "v0", speed=0)
            self.assertEqual((result.packets, self.arrived(50)), (50, sent))
            self.assertEqual(client.replay(io.BytesIO(), "v0").packets, 0)

    def test_failures_are_in_the_result_or_raised(self):
        for client in self.clients:
            packets = [(0, frame(1)), (0, frame(2, 4000)), (0, frame(3))]
            result = client.replay(io.BytesIO(pcap(packets)), "v0")
            self.assertEqual((result.packets, result.failed, self.arrived(2)), (2, 1, [frame(1), frame(3)]))
            (failure,) = result.failures
            self.assertEqual((failure.packet, failure.errno), (2, 90))
            self.assertIn("MTU", failure.reason)
            with self.assertRaisesRegex(ValueError, "packet 2: the file ends within a packet"):
                client.replay(io.BytesIO(pcap([(0, frame(5)), (0, frame(6))])[:-1]), "v0")
            self.assertEqual(self.arrived(1), [frame(5)])
            with self.assertRaisesRegex(TypeError, "binary mode"):
                client.replay(io.StringIO("text"), "v0")
            with self.assertRaises(OSError):
                client.replay(io.BytesIO(pcap(packets)), "missing0")
            with self.assertRaises(FileNotFoundError):
                client.replay("/missing", "v0")
            nan, inf = float("nan"), float("inf")
            for wrong in (
                {"speed": -1}, {"speed": nan}, {"speed": inf}, {"pps": 0}, {"pps": nan}, {"pps": inf}, {"loop": 0}, {"limit": 0},
            ):  # fmt: skip
                with self.assertRaises(ValueError):
                    client.replay(io.BytesIO(pcap(packets)), "v0", **wrong)

    def test_a_signal_ends_a_replay(self):
        text = """
            import os, signal, sys, threading, sockbroker
            threading.Thread(target=lambda: (sys.stdin.readline(), os.kill(os.getpid(), signal.SIGINT))).start()
            try: sockbroker.replay(sys.argv[1], "v0")
            except KeyboardInterrupt: print("interrupted")
        """
        with tempfile.NamedTemporaryFile() as named:
            named.write(pcap([(0, frame(1)), (3600 * 10**9, frame(2))]))
            named.flush()
            with subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(text), named.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env=environment(SOCKBROKER=self.broker.path),
            ) as running:  # fmt: skip
                self.assertEqual(self.arrived(1), [frame(1)])
                output, _ = running.communicate("\n", timeout=SECONDS)
                self.assertEqual((output, running.returncode), ("interrupted\n", 0))
