"""Compiles filter expressions with `tcpdump -ddd`."""

from __future__ import annotations

import os
import subprocess

from .bpf import Instruction

_FOLDERS = ("/usr/sbin", "/sbin")
"""Where tcpdump is installed for administrators, also if `PATH` does not have these folders."""
_LINK_NAMES = {1: "EN10MB", 12: "RAW", 113: "LINUX_SLL", 276: "LINUX_SLL2"}
_RANGES = (0xFFFF, 0xFF, 0xFF, 0xFFFFFFFF)


class Tcpdump:
    """The program tcpdump."""

    def __init__(self, path: str) -> None:
        self._path = path

    def compile(self, expression: str, link_type: int) -> list[Instruction]:
        """The program for a link type (`DLT_`). Raises `ValueError` with the message of libpcap."""
        command = [self._path, "-ddd", "-y", _LINK_NAMES[link_type], "--", expression]
        done = subprocess.run(
            command, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line]
            last = lines[-1] if lines else "tcpdump failed without a message"
            raise ValueError(last[len("tcpdump: ") :] if last.startswith("tcpdump: ") else last)
        return parse(done.stdout.decode(errors="replace"))


def parse(text: str) -> list[Instruction]:
    """Reads the number of instructions, and an instruction in each line."""
    first, *lines = text.splitlines() or [""]
    program = [_instruction(line) for line in lines]
    if first.strip() != str(len(program)):
        raise _unexpected(first)
    return program


def _instruction(line: str) -> Instruction:
    try:
        made = Instruction(*map(int, line.split()))
    except (TypeError, ValueError):
        raise _unexpected(line) from None
    if not all(0 <= number <= most for number, most in zip(made, _RANGES)):
        raise _unexpected(line)
    return made


def _unexpected(line: str) -> RuntimeError:
    return RuntimeError(f"tcpdump -ddd printed {line!r}, which is not a part of a program")


def find() -> Tcpdump | None:
    """Finds it in `PATH` and in the folders of administrators."""
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *_FOLDERS):
        path = os.path.join(folder, "tcpdump")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return Tcpdump(path)
    return None
