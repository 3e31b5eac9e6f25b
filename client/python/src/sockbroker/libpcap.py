"""Compiles filter expressions with libpcap, loaded at run time."""

from __future__ import annotations

import ctypes
import os
import threading

from .bpf import Instruction
from .hints import Any

_NAMES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
"""The names of the library: of libpcap itself, of Debian, and of development packages."""
_SNAPLEN = 262144
"""The bytes of each packet that a program accepts, as in tcpdump."""
_NO_NETMASK = 0xFFFFFFFF
"""`PCAP_NETMASK_UNKNOWN`: `ip broadcast` is refused."""

_compiling = threading.Lock()
"""`pcap_compile` of libpcap before 1.8 has global state."""


def _in_child() -> None:
    """Replaces the lock: a thread that holds it exists in the parent alone."""
    global _compiling
    _compiling = threading.Lock()


os.register_at_fork(after_in_child=_in_child)


class _Instruction(ctypes.Structure):
    """`struct bpf_insn`."""

    _fields_ = (
        ("code", ctypes.c_ushort), ("jump_true", ctypes.c_ubyte), ("jump_false", ctypes.c_ubyte), ("k", ctypes.c_uint32),
    )  # fmt: skip


class _Program(ctypes.Structure):
    """`struct bpf_program`."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


class Libpcap:
    """The functions of the library."""

    def __init__(self, library: Any) -> None:
        """Raises `AttributeError` if the library lacks a function."""
        pointer = ctypes.c_void_p
        self._open_dead = library.pcap_open_dead
        self._open_dead.restype, self._open_dead.argtypes = pointer, (ctypes.c_int, ctypes.c_int)
        self._compile = library.pcap_compile
        self._compile.restype = ctypes.c_int
        self._compile.argtypes = (pointer, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint)
        self._free_code = library.pcap_freecode
        self._free_code.restype, self._free_code.argtypes = None, (ctypes.POINTER(_Program),)
        self._get_error = library.pcap_geterr
        self._get_error.restype, self._get_error.argtypes = ctypes.c_char_p, (pointer,)
        self._close = library.pcap_close
        self._close.restype, self._close.argtypes = None, (pointer,)

    def compile(self, expression: str, link_type: int) -> list[Instruction]:
        """The program for a link type (`DLT_`). Raises `ValueError` with the message of libpcap."""
        with _compiling:
            handle = self._open_dead(link_type, _SNAPLEN)
            if not handle:
                raise MemoryError("out of memory")
            try:
                made = _Program()
                text = expression.encode("utf-8", "surrogateescape")
                if self._compile(handle, ctypes.byref(made), text, 1, _NO_NETMASK) != 0:
                    raise ValueError((self._get_error(handle) or b"").decode(errors="replace"))
                try:
                    parts = (made.instructions[at] for at in range(made.length))
                    return [Instruction(each.code, each.jump_true, each.jump_false, each.k) for each in parts]
                finally:
                    self._free_code(ctypes.byref(made))
            finally:
                self._close(handle)


def load() -> Libpcap | None:
    """Loads the library; `None` if it is not installed."""
    for name in _NAMES:
        try:
            return Libpcap(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    return None
