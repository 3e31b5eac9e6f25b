"""Programs of classic BPF: what the kernel runs on each packet of a capture, and what selects packets here."""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterable, Sequence

MAX_INSTRUCTIONS = 4096

# Codes of instructions (linux/filter.h, linux/bpf_common.h).
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0x00, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = range(0x00, 0x50, 0x10)
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80

ANCILLARY = 0xFFFFF000
"""Where the facts of the kernel about a packet begin (`SKF_AD_OFF`), as offsets of loads."""
ANCILLARY_END = ANCILLARY + 64
HATYPE = ANCILLARY + 28
"""The type of the interface (`SKF_AD_HATYPE`)."""
VLAN_TAG = ANCILLARY + 44
"""The VLAN tag that the kernel has removed from the frame (`SKF_AD_VLAN_TAG`)."""
VLAN_TAG_PRESENT = ANCILLARY + 48
VLAN_TPID = ANCILLARY + 60
MEMORY_WORDS = 16

_INSTRUCTION = struct.Struct("=HBBI")
_OPERATIONS = frozenset((ADD, SUB, MUL, DIV, MOD, AND, OR, XOR, LSH, RSH))


class Instruction(namedtuple("Instruction", ("code", "jump_true", "jump_false", "k"))):
    """`struct sock_filter`."""

    __slots__ = ()
    code: int
    jump_true: int
    jump_false: int
    k: int


Program = Sequence[Instruction]


def instruction(code: int, k: int, jump_true: int = 0, jump_false: int = 0) -> Instruction:
    """An instruction, by default one that does not jump by a condition."""
    return Instruction(code, jump_true, jump_false, k)


def encode(program: Iterable[Instruction]) -> bytes:
    """The bytes that `SO_ATTACH_FILTER` and `capture.open` take."""
    return b"".join(_INSTRUCTION.pack(*each) for each in program)


def check(program: Program) -> None:
    """Checks that the kernel takes the program (`bpf_check_classic`). Raises `ValueError` with the reason.

    Its messages are those of the Rust client.
    """
    count = len(program)
    if count > MAX_INSTRUCTIONS:
        raise ValueError(f"the program has {count} instructions, the kernel accepts at most {MAX_INSTRUCTIONS}")
    for at, each in enumerate(program):
        _check_instruction(at, each, count - at - 1)
    _check_memory(program)
    if not program:
        raise ValueError("the program is empty")
    if program[-1].code not in (RET | K, RET | A):
        raise ValueError("the last instruction does not return")


def _is_known(code: int) -> bool:
    kind, operation, size, mode = code & 7, code & 0xF0, code & 0x18, code & 0xE0
    if code > 0xFF:
        return False
    if kind == LD:
        return (mode in (ABS, IND) and size in (W, H, B)) or (mode in (IMM, MEM, LEN) and size == W)
    if kind == LDX:
        return (mode in (IMM, MEM, LEN) and size == W) or (mode == MSH and size == B)
    if kind == ALU:
        return operation in _OPERATIONS or code == ALU | NEG
    if kind == JMP:
        return operation in (JEQ, JGT, JGE, JSET) or code == JMP | JA
    return code in (ST, STX, RET | K, RET | A, MISC | TAX, MISC | TXA)


def _check_instruction(at: int, each: Instruction, behind: int) -> None:
    """Checks an instruction that `behind` others follow."""
    code, k = each.code, each.k
    if not _is_known(code):
        raise ValueError(f"instruction {at} has the unknown code {code:#x}")
    kind, operation = code & 7, code & 0xF0
    if kind == ALU and code & X == K:
        if operation in (DIV, MOD) and k == 0:
            raise ValueError(f"instruction {at} divides by zero")
        if operation in (LSH, RSH) and k >= 32:
            raise ValueError(f"instruction {at} shifts by {k} bits")
    elif kind == JMP:
        farthest = k if operation == JA else max(each.jump_true, each.jump_false)
        if farthest >= behind:
            text = "jumps backward or beyond the end: the kernel does not run loops"
            raise ValueError(f"instruction {at} {text}")
    elif _uses_memory(code) and k >= MEMORY_WORDS:
        raise ValueError(f"instruction {at} uses word {k} of the memory, which has {MEMORY_WORDS} words")
    elif kind == LD and code & 0xE0 == ABS and k >= ANCILLARY and (k >= ANCILLARY_END or k % 4):
        raise ValueError(f"instruction {at} loads from the ancillary offset {k:#x}, which does not exist")


def _uses_memory(code: int) -> bool:
    return code in (ST, STX, LD | MEM, LDX | MEM)


def _check_memory(program: Program) -> None:
    """Checks that each word of the memory is stored on every path to its loads."""
    everything = 0xFFFF
    stored = [everything] * (len(program) + 1)
    now = 0
    for at, (code, jump_true, jump_false, k) in enumerate(program):
        now &= stored[at]
        kind = code & 7
        if kind in (ST, STX):
            now |= 1 << k
        elif kind in (LD, LDX) and _uses_memory(code) and not now & 1 << k:
            raise ValueError(f"instruction {at} loads word {k} of the memory before it is stored")
        elif kind == JMP:
            for skipped in (k,) if code & 0xF0 == JA else (jump_true, jump_false):
                stored[at + skipped + 1] &= now
            now = everything
