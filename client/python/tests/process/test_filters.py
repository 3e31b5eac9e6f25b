"""Filter expressions: what compiles them, what the programs select, and why an expression is refused."""

import os
import random
import signal
import struct
import unittest
from unittest import mock

from sockbroker import FilterError, bpf, bpf_run, libpcap, packet_filter, pcapng, tcpdump, vlan_tags
from sockbroker.bpf import ABS, ADD, ALU, DIV, H, IMM, IND, JA, JEQ, JMP, LD, LDX, LEN, LSH, MEM, MISC, MSH, RET, ST
from sockbroker.bpf import TAX, W, X, instruction

ACCEPT = instruction(RET, 1)
ADDRESSES = b"\x02" * 12
UDP = bytes.fromhex("4500001f000040004011000001020304050607080001004300 0b0000 616263")


def compilers():
    """The compilers that are installed, with their names."""
    found = {"libpcap": libpcap.load(), "tcpdump": tcpdump.find()}
    return {name: compiler for name, compiler in found.items() if compiler is not None}


class Compilers(unittest.TestCase):
    def setUp(self):
        packet_filter._compiler.cache_clear()
        self.addCleanup(packet_filter._compiler.cache_clear)

    def test_a_child_process_compiles_if_a_thread_of_its_parent_did_at_the_fork(self):
        library = libpcap.load()
        if library is None:
            self.skipTest("libpcap is not installed")
        with libpcap._compiling:
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # ends a child that waits for the lock
                os._exit(0 if library.compile("udp", 1) else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_libpcap_and_tcpdump_have_the_same_programs_and_messages(self):
        found = compilers()
        if len(found) < 2:
            self.skipTest("libpcap or tcpdump is not installed")
        for expression in ("", "udp port 67", "vlan 100 and tcp", "ip6 net 2001:db8::/32", "udp port", "foo bar", "tcp["):
            for link_type in (1, 12, 113, 276):
                results = []
                for compiler in found.values():
                    try:
                        results.append(compiler.compile(expression, link_type))
                    except ValueError as error:
                        results.append(str(error))
                self.assertEqual(results[0], results[1], (expression, link_type))

    def test_tcpdump_compiles_without_libpcap(self):
        if "tcpdump" not in compilers():
            self.skipTest("tcpdump is not installed")
        with mock.patch.object(libpcap, "load", lambda: None):
            self.assertIsInstance(packet_filter._compiler(), tcpdump.Tcpdump)
            packet_filter.CaptureFilter("udp port 67")
            with self.assertRaisesRegex(FilterError, "^cannot compile the filter \"udp port\": .*syntax error$"):
                packet_filter.CaptureFilter("udp port")

    def test_a_machine_without_both_is_reported_with_what_to_install(self):
        with mock.patch.object(libpcap, "load", lambda: None), mock.patch.object(tcpdump, "find", lambda: None):
            with self.assertRaisesRegex(FilterError, "neither libpcap nor tcpdump is installed; install libpcap"):
                packet_filter.CaptureFilter("udp")

    def test_output_of_tcpdump_is_read(self):
        self.assertEqual(tcpdump.parse("2\n40 0 0 12\n6 0 0 262144\n"), [instruction(40, 12), instruction(6, 262144)])
        for text in ("", "x\n", "2\n6 0 0 1\n", "1\n6 0 0\n", "1\n6 0 0 1 1\n", "1\n6 256 0 1\n", "1\n6 0 0 -1\n"):
            with self.assertRaisesRegex(RuntimeError, "is not a part of a program", msg=text):
                tcpdump.parse(text)


@unittest.skipUnless(compilers(), "neither libpcap nor tcpdump is installed")
class Expressions(unittest.TestCase):
    def test_wrong_expressions_are_refused_with_the_reason(self):
        for expression, part in (
            ("port 99999", "illegal port number 99999 > 65535"),
            ("vlan 5000", "VLAN tag 5000 greater than maximum 4095"),
            ("net 10.0.0.1/8", 'non-network bits set in "10.0.0.1/8"'),
            ("ip protochain 6", "the kernel does not run loops"),
            ("vlan and ether[13] = 1", "the kernel keeps the VLAN tag at 12 apart from the frame"),
            ("udp\0", "contains a null byte"),
            ("udp".ljust((64 << 10) + 1), "has 65537 bytes, the limit is 65536"),
        ):
            with self.assertRaises(FilterError) as caught:
                packet_filter.CaptureFilter(expression)
            self.assertIn(part, str(caught.exception))
        packet_filter.CaptureFilter("udp".ljust(64 << 10))

    def test_an_expression_for_one_link_type_is_refused_for_the_other(self):
        compiled = packet_filter.CaptureFilter("ether host 02:00:00:00:00:01")
        compiled.check(packet_filter.ETHERNET)
        for link_type in (packet_filter.RAW_IP, 147):
            with self.assertRaisesRegex(FilterError, "ether host 02:00:00:00:00:01"):
                compiled.check(link_type)

    def test_packets_are_selected_by_their_link_type(self):
        frame = ADDRESSES + b"\x08\x00" + UDP
        for expression, selected in (("udp port 67", True), ("udp port 68", False), ("len = 31 or len = 45", True)):
            compiled = packet_filter.PacketFilter(expression)
            self.assertEqual(compiled.matches(1, frame, len(frame)), selected, expression)
            self.assertEqual(compiled.matches(101, UDP, len(UDP)), selected, expression)
            self.assertFalse(compiled.matches(147, frame, len(frame)))
        tagged = ADDRESSES + b"\x81\x00\x00\x64\x08\x00" + UDP
        self.assertTrue(packet_filter.PacketFilter("vlan 100 and udp").matches(1, tagged, len(tagged)))
        self.assertFalse(packet_filter.PacketFilter("vlan 101 and udp").matches(1, tagged, len(tagged)))

    def test_what_only_the_kernel_knows_is_refused_for_captured_packets(self):
        with self.assertRaisesRegex(FilterError, "only the kernel knows"):
            packet_filter.PacketFilter("inbound")


class Programs(unittest.TestCase):
    def check_refused(self, program, text):
        with self.assertRaises(ValueError) as caught:
            bpf.check(program)
        self.assertIn(text, str(caught.exception))

    def test_programs_that_the_kernel_refuses_are_refused(self):
        self.check_refused([], "empty")
        bpf.check([ACCEPT] * bpf.MAX_INSTRUCTIONS)
        self.check_refused([ACCEPT] * (bpf.MAX_INSTRUCTIONS + 1), "4097 instructions")
        self.check_refused([instruction(0x17, 0), ACCEPT], "unknown code 0x17")
        self.check_refused([instruction(0x106, 0), ACCEPT], "unknown code 0x106")
        self.check_refused([instruction(JMP | JA, 1), ACCEPT], "jumps")
        self.check_refused([instruction(JMP | JA, 0xFFFFFFFC), ACCEPT], "jumps")
        self.check_refused([instruction(JMP | JEQ, 0, 0, 2), ACCEPT, ACCEPT], "jumps")
        self.check_refused([instruction(ALU | DIV, 0), ACCEPT], "divides by zero")
        self.check_refused([instruction(ALU | LSH, 32), ACCEPT], "shifts by 32")
        self.check_refused([instruction(ST, 16), ACCEPT], "word 16")
        self.check_refused([instruction(LD | MEM, 3), ACCEPT], "word 3 of the memory before it is stored")
        skipping = [instruction(JMP | JEQ, 0, 0, 1), instruction(ST, 3), instruction(LD | MEM, 3), ACCEPT]
        self.check_refused(skipping, "instruction 2 loads word 3")
        self.check_refused([instruction(LD | ABS, bpf.ANCILLARY + 1), ACCEPT], "ancillary offset")
        self.check_refused([instruction(LD, 0)], "does not return")

    def test_instructions_do_what_they_do_in_the_kernel(self):
        data = bytes(range(1, 40))

        def result(*program):
            program = [*program, instruction(RET | bpf.A, 0)]
            bpf.check(program)
            return bpf_run.run(program, data, 100)

        self.assertEqual(result(instruction(LD | W | ABS, 0)), 0x01020304)
        self.assertEqual(result(instruction(LD | H | ABS, 37)), 0x2627)
        self.assertEqual(result(instruction(LD | W | ABS, 37), instruction(LD, 9)), 0)  # beyond the end
        self.assertEqual(result(instruction(LD | LEN, 0)), 100)
        self.assertEqual(result(instruction(LDX | MSH | bpf.B, 4), instruction(MISC | bpf.TXA, 0)), 20)
        self.assertEqual(result(instruction(LDX | IMM, 2), instruction(LD | bpf.B | IND, 3)), 6)
        self.assertEqual(result(instruction(LD, 7), instruction(ST, 1), instruction(LD, 0), instruction(LD | MEM, 1)), 7)
        self.assertEqual(result(instruction(LD, 1), instruction(ALU | bpf.SUB, 2)), 0xFFFFFFFF)
        self.assertEqual(result(instruction(LD, 1), instruction(ALU | bpf.NEG, 0)), 0xFFFFFFFF)
        self.assertEqual(result(instruction(LD, 7), instruction(ALU | DIV | X, 0), instruction(LD, 1)), 0)
        for operation, wanted in (
            (ADD, 17), (bpf.MUL, 70), (DIV, 1), (bpf.MOD, 3), (LSH, 1280), (bpf.RSH, 0),
            (bpf.OR, 15), (bpf.AND, 2), (bpf.XOR, 13),
        ):  # fmt: skip
            self.assertEqual(result(instruction(LD, 10), instruction(ALU | operation, 7)), wanted, operation)
            numbers = [instruction(LD, 7), instruction(MISC | TAX, 0), instruction(LD, 10)]
            self.assertEqual(result(*numbers, instruction(ALU | operation | X, 0)), wanted, operation)
        for operation, numbers in (
            (JEQ, {7}), (bpf.JGT, {8, 15}), (bpf.JGE, {7, 8, 15}), (bpf.JSET, {1, 7, 15}),
        ):  # fmt: skip
            jump = [instruction(JMP | operation, 7, 0, 1), instruction(RET, 1), instruction(RET, 0)]
            found = {number for number in (0, 1, 7, 8, 15) if bpf_run.run([instruction(LD, number), *jump], b"", 0)}
            self.assertEqual(found, numbers, operation)

    def test_jumps_of_a_long_program_reach_their_targets_with_vlan_tags(self):
        generator = random.Random(1)
        for length in (10, 250, 256, 300, 900):
            # Each instruction is a test of a byte behind the tag; a hit returns its own number.
            program = []
            for at in range(length):
                program += [instruction(LD | bpf.B | ABS, 16 + at % 40)]
                left = 2 * (length - at) - 1
                program += [instruction(JMP | JEQ, generator.randrange(256), min(left, 255), 0)]
            program += [instruction(RET, 0), instruction(RET, 1)]
            adapted = vlan_tags.tags_in_metadata(program)
            bpf.check(adapted)
            # Without the test of the kernel's metadata: the part for frames with a tag.
            second = adapted[len(program) + 5 :]
            for _ in range(200):
                frame = generator.randbytes(60)
                self.assertEqual(bpf_run.run(second, frame[:12] + frame[16:], 56), bpf_run.run(program, frame, 60))


class Files(unittest.TestCase):
    def block(self, kind, body):
        size = len(body) + 12
        return struct.pack("<II", kind, size) + body + struct.pack("<I", size)

    def test_malformed_blocks_are_refused(self):
        interface = self.block(1, struct.pack("<HHIHHB3xHHI", 1, 0, 96, 9, 1, 9, 2, 2, 0x6F6C) + bytes(4))
        packet = self.block(6, struct.pack("<IIIII", 0, 0, 5, 2, 2) + b"ab\0\0")
        decoder = pcapng.Decoder()
        self.assertEqual(decoder.decode(interface), pcapng.Interface("lo", 1, 96))
        self.assertEqual(decoder.decode(packet), pcapng.Packet(5, b"ab", 2, "lo", None, 1, 0))
        self.assertIsNone(decoder.decode(self.block(99, b"")))
        for wrong in (
            self.block(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1)),
            self.block(1, b"\1\0"),
            self.block(1, struct.pack("<HHI", 1, 0, 96)),  # microseconds
            self.block(1, struct.pack("<HHIHHB3xHH", 1, 0, 96, 9, 1, 9, 2, 200)),
            self.block(6, struct.pack("<IIIII", 1, 0, 5, 2, 2) + b"ab\0\0"),
            self.block(6, struct.pack("<IIIII", 0, 0, 5, 200, 200) + b"ab\0\0"),
            self.block(6, b"abc\0"),
            self.block(5, b"abc\0"),
        ):
            with self.assertRaises(ValueError):
                decoder.decode(wrong)

    def test_a_file_is_split_into_whole_blocks(self):
        blocks = self.block(99, b"abcd") + self.block(98, b"")
        for end in range(len(blocks) + 1):
            self.assertEqual(pcapng.whole_blocks(blocks[:end]), 0 if end < 16 else 16 if end < 28 else 28)
        for size in (0, 8, 13, pcapng.MAX_BLOCK_BYTES + 4):
            with self.assertRaisesRegex(ValueError, f"has the length {size}"):
                pcapng.whole_blocks(struct.pack("<III", 6, size, 0))


if __name__ == "__main__":
    unittest.main()
