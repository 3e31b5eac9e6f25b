"""Compiles the filter expressions of tcpdump (`pcap-filter(7)`) for captures and for captured packets.

libpcap compiles. If it is not installed, `tcpdump -ddd` does. The compiler looks up the names of hosts and services in
this process, and can wait for a name server. The programs are those of the Rust client.
"""

from __future__ import annotations

import functools
import re

from . import bpf, bpf_run, libpcap, tcpdump, vlan_tags
from .bpf import Instruction, instruction
from .errors import FilterError

MAX_EXPRESSION_BYTES = 64 << 10

ETHERNET, RAW_IP = 1, 101
"""`LINKTYPE_` of tcpdump.org."""
_LINK_LAYERS = {ETHERNET: 1, RAW_IP: 12, 113: 113, 276: 276}
"""The number of each link type in libpcap on Linux (`DLT_`)."""
_OF_ETHERNET = (1, 772)
_OF_IP = (0xFFFE, 768, 769, 776, 778, 519)
"""Hardware types (`linux/if_arp.h`) whose packets begin with an Ethernet header, and with an IP header."""
_WORD = re.compile(r"[\w.-]+")


@functools.lru_cache(maxsize=None)
def _compiler() -> libpcap.Libpcap | tcpdump.Tcpdump:
    found = libpcap.load() or tcpdump.find()
    if found is None:
        raise FilterError(
            "cannot compile filter expressions: neither libpcap nor tcpdump is installed; "
            "install libpcap (package libpcap0.8 or libpcap) or tcpdump"
        )
    return found


def compile_for_file(expression: str, link_type: int = ETHERNET) -> list[Instruction]:
    """Compiles for packets of a capture file, which contain their VLAN tags. The kernel can refuse the program."""
    size = len(expression.encode("utf-8", "surrogateescape"))
    if size > MAX_EXPRESSION_BYTES:
        raise FilterError(f"the filter expression has {size} bytes, the limit is {MAX_EXPRESSION_BYTES}")
    if "\0" in expression:
        raise FilterError("the filter expression contains a null byte")
    if link_type not in _LINK_LAYERS:
        raise FilterError(f"cannot compile the filter {_quoted(expression)} for packets of the link type {link_type}")
    compiler = _compiler()
    try:
        return compiler.compile(expression, _LINK_LAYERS[link_type])
    except ValueError as error:
        raise FilterError(f"cannot compile the filter {_quoted(expression)}: {error}") from None


def compile_for_socket(expression: str, link_type: int = ETHERNET) -> list[Instruction]:
    """Compiles for packets as a socket receives them."""
    program = compile_for_file(expression, link_type)
    if link_type == ETHERNET and "vlan" in _WORD.findall(expression):
        try:
            program = vlan_tags.tags_in_metadata(program)
        except ValueError as error:
            raise FilterError(f"cannot use the filter {_quoted(expression)} on VLAN tags: {error}") from None
    return _checked(expression, program)


def _checked(expression: str, program: list[Instruction]) -> list[Instruction]:
    try:
        bpf.check(program)
    except ValueError as error:
        raise FilterError(f"the kernel cannot run the filter {_quoted(expression)}: {error}") from None
    return program


class CaptureFilter:
    """An expression for the interfaces of a capture, whose link types the client learns from the broker alone.

    The program has a part for each link type, and looks at the type of each packet's interface.
    """

    def __init__(self, expression: str) -> None:
        """Raises `FilterError` if the expression fits no link type."""
        self._expression = expression
        self._failures: dict[int, FilterError] = {}
        self._programs: dict[int, list[Instruction]] = {}
        for link_type in (ETHERNET, RAW_IP):
            try:
                self._programs[link_type] = compile_for_socket(expression, link_type)
            except FilterError as error:
                self._failures[link_type] = error
        if not self._programs:
            raise self._failures[ETHERNET]
        self.program = bpf.encode(_checked(expression, self._joined()))
        """The bytes for `capture.open`."""

    def check(self, link_type: int) -> None:
        """Raises `FilterError` if the expression has no meaning for packets of an interface of the capture."""
        if link_type in self._failures:
            raise self._failures[link_type]
        if link_type not in self._programs:
            text = f"cannot compile the filter {_quoted(self._expression)} for packets of the link type {link_type}"
            raise FilterError(text)

    def _joined(self) -> list[Instruction]:
        nothing = [instruction(bpf.RET | bpf.K, 0)]
        ethernet, ip = (self._programs.get(link_type, nothing) for link_type in (ETHERNET, RAW_IP))
        kinds = [*_OF_ETHERNET, *_OF_IP]
        made = [instruction(bpf.LD | bpf.W | bpf.ABS, bpf.HATYPE)]
        for at, kind in enumerate(kinds):
            left = len(kinds) - at - 1  # then `ret 0`, a jump for Ethernet, and one for IP
            made.append(instruction(bpf.JMP | bpf.JEQ | bpf.K, kind, left + (1 if kind in _OF_ETHERNET else 2)))
        made += [*nothing, instruction(bpf.JMP | bpf.JA, 1), instruction(bpf.JMP | bpf.JA, len(ethernet))]
        return [*made, *ethernet, *ip]


class PacketFilter:
    """An expression for packets that were captured."""

    def __init__(self, expression: str) -> None:
        """Raises `FilterError` if the expression fits no link type, or uses what only the kernel knows."""
        self._programs: dict[int, list[Instruction]] = {}
        failure: FilterError | None = None
        for link_type in (ETHERNET, RAW_IP):
            try:
                program = _checked(expression, compile_for_file(expression, link_type))
            except FilterError as error:
                failure = failure or error
                continue
            if bpf_run.needs_kernel(program):
                text = "it uses what only the kernel knows; use a callable, or the filter of the capture"
                raise FilterError(f"cannot use the filter {_quoted(expression)} on captured packets: {text}")
            self._programs[link_type] = program
        if not self._programs and failure is not None:
            raise failure

    def matches(self, link_type: int, data: bytes, length: int) -> bool:
        """Whether the expression selects the packet."""
        program = self._programs.get(link_type)
        return program is not None and bpf_run.run(program, data, length) > 0


def _quoted(expression: str) -> str:
    """The expression in quotation marks, as the Rust client prints it."""
    import json  # for errors alone

    return json.dumps(expression, ensure_ascii=False)
