"""Helpers of the behaviour tests."""

import contextlib
import os
import pathlib
import socket

MODE = os.environ["TEST_MODE"]
SECONDS = 180.0
BROKER = int(os.environ["TEST_BROKER_PID"])


def creator():
    """The process that creates sockets: in remote mode the worker of the broker."""
    if MODE != "remote":
        return os.getpid()
    processes = map(int, filter(str.isdigit, os.listdir("/proc")))
    return next(filter(is_worker, processes))


def is_worker(process):
    """Whether a process is a worker of the broker. The arguments of a worker name its parent."""
    try:
        arguments = pathlib.Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")
    except OSError:
        return False
    return arguments[0].startswith("sockbrokerd: worker") and str(BROKER) in arguments


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
