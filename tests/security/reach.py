"""Prints what this process can do to the process whose number is the argument, one word a line."""

import ctypes
import os
import resource
import sys

libc = ctypes.CDLL(None, use_errno=True)
number = int(sys.argv[1])


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def trace():
    call("ptrace", 16, number, None, None)  # PTRACE_ATTACH


def read_memory():
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    # An address without a page gives EFAULT to a process with the rights, and EPERM to another one.
    own = ctypes.create_string_buffer(1)
    local, remote = Part(ctypes.addressof(own), 1), Part(1, 1)
    got = libc.process_vm_readv(number, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    if got < 0 and ctypes.get_errno() != 14:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def take_descriptor():
    process = os.pidfd_open(number)
    call("syscall", 438, process, 0, 0)  # pidfd_getfd


def read(name):
    def attempt():
        with open(f"/proc/{number}/{name}", "rb") as file:
            file.read(1)

    return attempt


attempts = {
    "signal": lambda: os.kill(number, 0),
    "trace": trace,
    "read-memory": read_memory,
    "take-descriptor": take_descriptor,
    "limit": lambda: resource.prlimit(number, resource.RLIMIT_NOFILE, (16, 16)),
    "read-environment": read("environ"),
    "open-memory": read("mem"),
    "list-descriptors": lambda: os.listdir(f"/proc/{number}/fd"),
    "set-priority": lambda: os.setpriority(os.PRIO_PROCESS, number, 19),
    "set-affinity": lambda: os.sched_setaffinity(number, {0}),
}
for word, attempt in attempts.items():
    try:
        attempt()
    except OSError as error:
        if error.errno not in (1, 13):
            raise
    else:
        print(word)
