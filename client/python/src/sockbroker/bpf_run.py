"""Runs classic BPF on the bytes of a captured packet."""

from __future__ import annotations

from . import bpf
from .bpf import ABS, ALU, IMM, IND, JMP, LD, LDX, LEN, MEM, MISC, MSH, RET, ST, STX, Program

_MASK = 0xFFFFFFFF


def needs_kernel(program: Program) -> bool:
    """Whether the program loads facts that only the kernel has, such as the direction for `inbound`."""
    return any(code & 7 == LD and code & 0xE0 in (ABS, IND) and k >= 1 << 31 for code, _, _, k in program)


def run(program: Program, data: bytes, length: int) -> int:
    """What a program that `bpf.check` accepts returns: how many bytes of the packet to keep, 0 for none.

    `length` is the length on the wire. A load beyond the captured bytes ends the program with 0, as in the kernel.
    """
    a = x = at = 0
    memory = [0] * bpf.MEMORY_WORDS
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        kind = code & 7
        if kind in (LD, LDX):
            mode = code & 0xE0
            if mode == IMM:
                value = k
            elif mode == LEN:
                value = length
            elif mode == MEM:
                value = memory[k]
            else:
                start = k + x if mode == IND else k
                size = 1 if mode == MSH else {bpf.W: 4, bpf.H: 2, bpf.B: 1}[code & 0x18]
                part = data[start : start + size]
                if len(part) < size:
                    return 0
                value = int.from_bytes(part, "big")
                if mode == MSH:
                    value = 4 * (value & 15)
            if kind == LD:
                a = value
            else:
                x = value
        elif kind == ST:
            memory[k] = a
        elif kind == STX:
            memory[k] = x
        elif kind == ALU:
            operand = x if code & bpf.X else k
            if code & 0xF0 in (bpf.DIV, bpf.MOD) and operand == 0:
                return 0
            a = _calculate(code & 0xF0, a, operand)
        elif kind == JMP:
            operation = code & 0xF0
            if operation == bpf.JA:
                at += k
            else:
                at += jump_true if _holds(operation, a, x if code & bpf.X else k) else jump_false
        elif kind == RET:
            return a if code & bpf.A else k
        elif kind == MISC:
            if code & bpf.TXA:
                a = x
            else:
                x = a


def _calculate(operation: int, a: int, operand: int) -> int:
    results = {
        bpf.ADD: lambda: a + operand,
        bpf.SUB: lambda: a - operand,
        bpf.MUL: lambda: a * operand,
        bpf.DIV: lambda: a // operand,
        bpf.MOD: lambda: a % operand,
        bpf.OR: lambda: a | operand,
        bpf.AND: lambda: a & operand,
        bpf.XOR: lambda: a ^ operand,
        bpf.LSH: lambda: a << (operand & 31),
        bpf.RSH: lambda: a >> (operand & 31),
        bpf.NEG: lambda: -a,
    }
    return results[operation]() & _MASK


def _holds(operation: int, a: int, operand: int) -> bool:
    if operation == bpf.JEQ:
        return a == operand
    if operation == bpf.JGT:
        return a > operand
    if operation == bpf.JGE:
        return a >= operand
    return bool(a & operand)
