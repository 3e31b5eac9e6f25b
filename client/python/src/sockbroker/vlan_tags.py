"""VLAN tags: libpcap compiles for frames that contain their tags, and the kernel removes the outer tag before a filter
runs, and keeps it in the metadata of the packet.
"""

from __future__ import annotations

from collections.abc import Sequence

from .bpf import (
    ABS, ADD, ALU, H, IND, JA, JEQ, JMP, K, LD, LDX, LEN, MISC, MSH, TAX, VLAN_TAG, VLAN_TAG_PRESENT, VLAN_TPID, W,
    Instruction, Program, instruction,
)  # fmt: skip

_TAG, _TAG_BYTES = 12, 4
"""Where the outer tag stands in a frame, and its length."""
_REACH = 255
"""How many instructions a conditional jump can skip."""


def tags_in_metadata(program: Program) -> list[Instruction]:
    """Adapts a program for whole Ethernet frames to frames whose outer VLAN tag the kernel keeps apart.

    It selects the packets that the program selects in a capture file, where the tags are in the frames. Raises
    `ValueError` if an instruction cannot be adapted. The result is that of `tags_in_metadata` of the Rust client.
    """
    second = _joined([_adapted(at, each) for at, each in enumerate(program)])
    zero = [instruction(LD, 0), instruction(MISC | TAX, 0)]
    start = [
        instruction(LD | W | ABS, VLAN_TAG_PRESENT),
        instruction(JMP | JEQ | K, 0, 1, 0),  # a tag: behind the program for frames without one
        instruction(JMP | JA, len(program) + 2),
        *zero,  # registers are zero at the start of a program
    ]
    return [*start, *program, *zero, *second]


def _adapted(at: int, each: Instruction) -> list[Instruction]:
    """Adapts an instruction to a frame without its outer tag."""
    code, offset = each.code, each.k
    size = {0x10: 1, 0x08: 2}.get(code & 0x18, 4)
    kind, mode = code & 7, code & 0xE0
    if kind == LD and mode == LEN:
        return [each, instruction(ALU | ADD | K, _TAG_BYTES)]
    if kind == LDX and mode == LEN:
        raise ValueError(f"instruction {at} loads the length into X, which is not supported with VLAN tags")
    if not (kind == LD and mode in (ABS, IND)) and not (kind == LDX and mode == MSH):
        return [each]
    if kind == LD and mode == ABS:
        if offset >= 1 << 31 or offset + size <= _TAG:  # not in the frame, or in front of the tag
            return [each]
        if code == LD | H | ABS and offset in (_TAG, _TAG + 2):
            return [instruction(LD | W | ABS, VLAN_TPID if offset == _TAG else VLAN_TAG)]
    if offset >= _TAG + _TAG_BYTES:  # offsets to X are those of headers behind the tag: libpcap has no other
        return [each._replace(k=offset - _TAG_BYTES)]
    text = f"instruction {at} loads {size} bytes at {offset}"
    raise ValueError(f"{text}: the kernel keeps the VLAN tag at 12 apart from the frame")


def _joined(groups: Sequence[Sequence[Instruction]]) -> list[Instruction]:
    """Joins what the instructions have become. Their jumps skip instructions of the earlier program.

    A conditional jump that needs to reach further than it can gets an unconditional jump behind it.
    """
    far = [[False, False] for _ in groups]
    while True:
        starts = [0]
        for group, (holds, fails) in zip(groups, far):
            starts.append(starts[-1] + len(group) + holds + fails)
        changed = False
        for at, group in enumerate(groups):
            if _is_conditional(group[0]):
                for side, skipped in enumerate((group[0].jump_true, group[0].jump_false)):
                    # Without a further jump, the next instruction is where the jump is.
                    if _target(starts, at, skipped) - starts[at] - 1 > _REACH and not far[at][side]:
                        far[at][side] = changed = True
        if not changed:
            break
    made: list[Instruction] = []
    for at, group in enumerate(groups):
        code, jump_true, jump_false, k = group[0]
        if _is_conditional(group[0]):
            targets = [_target(starts, at, skipped) for skipped in (jump_true, jump_false)]
            holds, fails = far[at]
            near = [target - starts[at] - 1 for target in targets]
            made.append(Instruction(code, 0 if holds else near[0], int(holds) if fails else near[1], k))
            for target, is_far in zip(targets, far[at]):
                if is_far:
                    made.append(instruction(JMP | JA, target - len(made) - 1))
        elif code == JMP | JA:
            made.append(instruction(code, _target(starts, at, k) - len(made) - 1))
        else:
            made += group
    return made


def _is_conditional(each: Instruction) -> bool:
    return each.code & 7 == JMP and each.code != JMP | JA


def _target(starts: Sequence[int], at: int, skipped: int) -> int:
    """The place of an instruction of the earlier program. One that does not exist is the end: `bpf.check` refuses it."""
    return starts[min(at + skipped + 1, len(starts) - 1)]
