"""Measures the restart of a service with persistent handles: the suite `restart` of the benchmark.

    measure.py PROGRAM

Prints a JSON array of figures: a name, a unit, and the figure of each round. The environment is that of the broker too.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time

from harness import Broker, Failed, client_of

HANDLES, OF_A_USER = 10_000, 5000
"""In all, and of one user at most. The broker allows a part of its open files."""
USERS = range(54321, 54337)
ROUNDS = 5
PIPELINED = 100
OPEN_FILES = 524_288
"""What systemd gives a service."""
LIMITS = {"persistent_handles_per_user": 7680, "persistent_handles_in_all": 100_000, "drain_seconds": 1}


class Session:
    """A session of one user."""

    def __init__(self, broker, uid, handles):
        self.broker, self.uid = broker, uid
        self.client = client_of(broker, uid)
        self.token = self.client.open(linger=600)["token"]
        self.handles = 0
        while self.handles < handles:
            some = min(PIPELINED, handles - self.handles)
            for _ in range(some):
                self.client.send("socket.socket", {"type": "SOCK_DGRAM"})
            made = sum(self.is_made() for _ in range(some))
            self.handles += made
            if made < some:
                break

    def is_made(self):
        try:
            return self.client.answer()["handle"] is not None
        except Failed as failed:
            assert failed.data["limit"] == "persistent_handles_per_user", failed
            return False

    def attach(self):
        self.client.close()
        self.client = client_of(self.broker, self.uid)
        self.client.send("session.attach", {"token": self.token})

    def check(self):
        assert self.client.answer()["persist"] == "service"
        found = self.client.call("session.info")
        assert found["handles"] == self.handles, found


def answers(sessions):
    """Attaches all sessions. Returns when the first and the last of them was answered."""
    for session in sessions:
        session.attach()
    waiting, times = {session.client.socket: session for session in sessions}, []
    while waiting:
        ready, _, _ = select.select(waiting, [], [])
        for socket in ready:
            times.append(time.monotonic())
            waiting.pop(socket)
    return times[0], times[-1]


def restart(broker, sessions, number):
    """Ends the service by a signal, and starts it. Returns the seconds from the signal to the answers."""
    begun = time.monotonic()
    os.kill(broker.pid, number)
    os.waitpid(broker.pid, 0)
    broker.sweep()
    ready = broker.launch()
    first, last = answers(sessions)
    broker.wait_until_up(ready)
    for session in sessions:
        session.check()
    return first - begun, last - begun


def opened(broker, handles):
    """Sessions of as many users as the handles need, or the broker allows."""
    sessions = []
    for uid in USERS:
        left = handles - sum(session.handles for session in sessions)
        if sessions and left == 0:
            break
        try:
            sessions.append(Session(broker, uid, min(left, OF_A_USER)))
        except Failed as failed:
            assert failed.data["limit"] == "persistent_handles_in_all", failed
            break
    return sessions


def measure(program, handles):
    broker = Broker(program, limits=LIMITS, environment=dict(os.environ))
    try:
        sessions = opened(broker, handles)
        total = sum(session.handles for session in sessions)
        for name, number in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
            rounds = [restart(broker, sessions, number) for _ in range(ROUNDS)]
            for which, times in zip(("first", "last"), zip(*rounds)):
                text = f"{name} to the {which} answer, {total} handles of {len(sessions)} users"
                yield {"name": text, "unit": "s", "rounds": times}
    finally:
        broker.close()


if __name__ == "__main__":
    with contextlib.suppress(ValueError):
        # Needs a capability. The figures name the number of handles.
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    print(json.dumps([figure for handles in (0, HANDLES) for figure in measure(sys.argv[1], handles)]))
