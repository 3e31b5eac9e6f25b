"""Makes attempts and prints one line for each: its name, and the name of its error or `done`.

It changes the machine that it runs on: for a guest only.
"""

import ctypes
import errno
import os
import socket

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p

# The numbers are the same on all architectures; the C library of Debian 12 lacks these functions.
OPEN_TREE, FSOPEN = 428, 430
CLONE_NEWUSER = 0x10000000
READ_WRITE, EXECUTE, PRIVATE_ANONYMOUS = 3, 4, 0x22
AT_FDCWD, AF_XDP = -100, 44


def checked(result):
    """Returns the result of a C function, or raises its error."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result


def apart(attempt):
    """Runs an attempt that cannot be undone in another process."""

    def run():
        child = os.fork()
        if child == 0:
            try:
                attempt()
            except OSError as error:
                os._exit(error.errno)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:
            raise OSError(status, "")

    return run


def file(path, mode):
    return lambda: open(path, mode).close()


def family(number, kind):
    return lambda: socket.socket(number, kind).close()


def executable_memory():
    page = libc.mmap(None, ctypes.c_size_t(4096), READ_WRITE, PRIVATE_ANONYMOUS, -1, ctypes.c_long(0))
    checked(libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(4096), READ_WRITE | EXECUTE))


ATTEMPTS = {
    "read /etc/hosts": file("/etc/hosts", "r"),
    "read /home/alice/file": file("/home/alice/file", "r"),
    "read /srv/file": file("/srv/file", "r"),
    "write /srv/new": file("/srv/new", "w"),
    "write /usr/new": file("/usr/new", "w"),
    "write /etc/sockbroker/policy.toml": file("/etc/sockbroker/policy.toml", "r+"),
    "execve": apart(lambda: os.execv("/bin/true", ["true"])),
    "ptrace": apart(lambda: checked(libc.ptrace(0, 0, 0, 0))),
    "new user namespace": apart(lambda: checked(libc.unshare(CLONE_NEWUSER))),
    "mount": lambda: checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "fsopen": lambda: checked(libc.syscall(FSOPEN, b"tmpfs", 0)),
    "open_tree": lambda: checked(libc.syscall(OPEN_TREE, AT_FDCWD, b"/etc", 1)),
    "executable memory": executable_memory,
    "AF_UNIX": family(socket.AF_UNIX, socket.SOCK_STREAM),
    "AF_INET": family(socket.AF_INET, socket.SOCK_STREAM),
    "AF_INET6": family(socket.AF_INET6, socket.SOCK_DGRAM),
    "AF_NETLINK": family(socket.AF_NETLINK, socket.SOCK_RAW),
    "AF_PACKET": family(socket.AF_PACKET, socket.SOCK_RAW),
    "AF_VSOCK": family(socket.AF_VSOCK, socket.SOCK_STREAM),
    "AF_XDP": family(AF_XDP, socket.SOCK_RAW),
}

for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        outcome = "done"
    except OSError as error:
        outcome = errno.errorcode[error.errno]
    print(f"{name}: {outcome}", flush=True)
