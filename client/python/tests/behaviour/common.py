"""Helpers of the behaviour tests."""

import contextlib
import os
import pathlib
import socket

MODE = os.environ["TEST_MODE"]
SECONDS = 180.0
BROKER = int(os.environ["TEST_BROKER_PID"])


def creators():
    """The processes that create AF_UNIX sockets: in remote mode the worker, and the process that acts as its caller."""
    if MODE != "remote":
        return [os.getpid()]
    processes = map(int, filter(str.isdigit, os.listdir("/proc")))
    return [BROKER, *filter(acts_as_caller, processes)]


def acts_as_caller(process):
    """Whether a process of the broker acts as a caller. The arguments name its parent, which is also the worker's."""
    own, worker = arguments(process), arguments(BROKER)
    return own[0].startswith("sockbrokerd: caller") and own[own.index("--parent") + 1] in worker


def arguments(process):
    """The arguments of a process; one empty one if it has ended."""
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return [""]


@contextlib.contextmanager
def tcp_pair(family=socket.AF_INET, host="127.0.0.1"):
    """Two ends of a TCP connection."""
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2], timeout=SECONDS)
        accepted, _ = server.accept()
    accepted.settimeout(SECONDS)
    with client, accepted:
        yield client, accepted


@contextlib.contextmanager
def udp_pair():
    """Two UDP sockets that are connected to each other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(SECONDS)
        a.connect(b.getsockname())
        b.connect(a.getsockname())
        yield a, b
