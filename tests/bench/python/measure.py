"""Measures the cost in a Python program: the suite `python` of the benchmark.

    measure.py --broker PATH --process PID

Prints a JSON array of figures: a name, a unit, and the ratio of each round. Broker, echo and this program
share one CPU, so that the software is measured and not the wake-ups.
"""

import argparse
import binascii
import json
import os
import socket
import subprocess
import sys
import time

from sockbroker import process, socket_module
from sockbroker.route import UnixRoute
from sockbroker.connection import Connection
from sockbroker.settings import settings

ROUNDS = 15
KIB_64 = bytes(range(256)) * 256


def share_a_cpu(processes):
    """Pins every thread of these processes and of this one to one CPU."""
    cpu = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, cpu)
    for process in processes:
        for thread in os.listdir(f"/proc/{process}/task"):
            os.sched_setaffinity(int(thread), cpu)


def seconds(count, action):
    """Returns the median duration of an action."""
    durations = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        durations.append(time.perf_counter() - start)
    return sorted(durations)[count // 2]


def figure(name, unit, count, ours, peers):
    """Returns our time as a multiple of the reference, measured alternately after a warm-up round."""
    rounds = [seconds(count, ours) / seconds(count, peers) for _ in range(ROUNDS + 1)]
    return {"name": name, "unit": unit, "rounds": rounds[1:]}


def small_calls(mediated):
    """Measures a call without data against a C program that echoes messages of the same size."""
    ours, theirs = socket.socketpair()
    with subprocess.Popen(["cat"], stdin=theirs, stdout=theirs) as echo, ours:
        theirs.close()
        share_a_cpu([echo.pid])
        text = b"x" * 130

        def ping():
            ours.sendall(text)
            ours.recv(1000)

        with mediated.socket() as sock:
            option = (socket.SOL_SOCKET, socket.SO_TYPE)
            yield figure("getsockopt, mediated, one CPU", "x ping-pong", 500, lambda: sock.getsockopt(*option), ping)
        ours.shutdown(socket.SHUT_WR)


def payload(mediated):
    """Measures 64 KiB through a Unix socket pair of the broker, by attachment and in base64."""
    a, b = mediated.socketpair()
    plain = Connection(UnixRoute(process.default().settings.endpoint))

    def call(method, params, expected_bytes=0):
        plain.send(method, params)
        return plain.receive(expected_bytes).value

    made = call("socket.socketpair", [])
    sender, receiver = (one["handle"] for one in made)

    def by_attachment():
        a.sendall(KIB_64)
        left = len(KIB_64)
        while left:
            left -= len(b.recv(left))

    def in_base64():
        data = binascii.b2a_base64(KIB_64, newline=False).decode("ascii")
        call("socket.sendall", [sender, data])
        left = len(KIB_64)
        while left:
            left -= len(binascii.a2b_base64(call("socket.recv", [receiver, left], expected_bytes=100_000)["data"]))

    with a, b:
        yield figure("64 KiB sent and received, base64 in JSON", "x attachments", 60, in_base64, by_attachment)
    plain.close()


def bulk(direct):
    """Measures the same bytes through a TCP connection in direct mode and a native one."""

    def connected(make):
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = make(socket.AF_INET, socket.SOCK_STREAM, 0)
            client.connect(server.getsockname())
            accepted, _ = server.accept()
        return client, accepted

    def mover(client, accepted):
        buffer = bytearray(len(KIB_64))

        def move():
            client.sendall(KIB_64)
            left = len(KIB_64)
            while left:
                left -= accepted.recv_into(buffer, left)

        return move

    ours, native = connected(direct.socket), connected(socket.socket)
    yield figure("64 KiB over TCP, direct mode", "x native", 500, mover(*ours), mover(*native))
    for sock in (*ours, *native):
        sock.close()


def creation(mediated, direct):
    """Measures `socket()` and `close()`."""
    kind = (socket.AF_INET, socket.SOCK_DGRAM, 0)
    native = socket.SocketType
    yield figure("socket() and close() by the broker, with descriptor", "x native", 200,
                 lambda: mediated.socket(*kind).close(), lambda: native(*kind).close())  # fmt: skip
    yield figure("socket() and close(), direct mode", "x native", 1000,
                 lambda: direct.socket(*kind).close(), lambda: native(*kind).close())  # fmt: skip


def main():
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--process", type=int, required=True)
    given = parser.parse_args()
    clients = (process.configure(settings(mode, given.broker)) for mode in ("direct", "mediated"))
    direct, mediated = (_with(socket_module.build(client, "_socket")) for client in clients)
    share_a_cpu([given.process])
    figures = [*small_calls(mediated), *payload(mediated), *bulk(direct), *creation(mediated, direct)]
    json.dump(figures, sys.stdout)


def _with(below):
    """The `_socket` module with a class that supports `with`, like that of `socket.py`."""

    class Socket(below.socket):
        """The class of `_socket`, without the layer of `socket.py`, whose cost is always the same."""

        __slots__ = ()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

    made_pair = below.socketpair
    below.socketpair = lambda: [Socket(fileno=end.detach()) for end in made_pair()]
    below.socket = Socket
    return below


if __name__ == "__main__":
    main()
