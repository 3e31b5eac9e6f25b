"""Crashes after each system call, of a worker and of the monitor, at work and during a recovery.

    steps.py PROGRAM POINTS [SEED]

POINTS is the number of system calls of each process after which it is killed, chosen at random; 0 stands for all.
"""

import os
import platform
import random
import socket
import stat
import sys

import harness
import tracer
from harness import Broker, Client, Failed, attached, kill_worker
from scenarios import received, refusal

# Handles of another session of the same user, which nobody changes. Each lot has several, so that closing a handle moves
# others.
STOCK = 260
# The numbers of sendto, recvfrom, sendmsg and recvmsg. Half of the chosen system calls are among these: they change the
# lots.
MESSAGES = {"x86_64": range(44, 48), "aarch64": (206, 207, 211, 212)}.get(platform.machine(), ())
FILTERS = [{"allow": ["create", "receive", "send", "option", "inspect"]}]


class Stock:
    """A session that must be the same after each crash."""

    def __init__(self, broker):
        self.broker = broker
        self.client = Client(broker)
        self.token = self.client.open(linger=600)["token"]
        self.timeouts = {}
        for number in range(STOCK):
            handle = self.client.call("socket.socket")["handle"]
            self.client.call("socket.settimeout", handle=handle, value=number)
            self.timeouts[handle] = number

    def check(self):
        self.client.close()
        self.client, _ = attached(self.broker, self.token)
        found = {handle: info["timeout"] for handle, info in self.client.handles().items()}
        assert found == self.timeouts, (found, self.timeouts)


class Walk:
    """A session from its opening to its end, and what the answers promise of it."""

    def __init__(self, broker, server):
        self.broker, self.server = broker, server
        self.port = server.getsockname()[1]
        self.client = Client(broker)
        self.token = self.request = self.pending = None
        self.over = self.restricted = False
        self.default = None
        self.known = {}
        self.peers = []

    # What a client does. `pending` is the call that is not answered.

    def call(self, pending, method, **params):
        self.pending = pending
        self.request = self.client.send(method, params)
        result = self.client.answer()
        self.pending = None
        return result

    def make(self, method, **params):
        handle = self.call(("make", None, None), method, **params)["handle"]
        self.known[handle] = {"timeout": self.default, "inheritable": False, "nodelay": 0}
        return handle

    def connect(self):
        handle = self.make("socket.create_connection", address=["127.0.0.1", self.port])
        peer, _ = self.server.accept()
        peer.settimeout(harness.HANG)
        self.peers.append((peer, {handle}))
        return handle

    def change(self, handle, field, value):
        method, params = {
            "timeout": ("settimeout", {"value": value}),
            "inheritable": ("set_inheritable", {"inheritable": value}),
            "nodelay": ("setsockopt", {"level": "IPPROTO_TCP", "optname": "TCP_NODELAY", "value": value}),
        }[field]
        self.call((field, handle, value), f"socket.{method}", handle=handle, **params)
        self.known[handle][field] = value

    def close(self, handle):
        self.call(("close", handle, None), "socket.close", handle=handle)
        del self.known[handle]
        self.check_ends()

    def begin(self):
        """All steps but the end."""
        early = self.make("socket.socket")
        self.token = self.call(("open", None, None), "session.open", persist=True, linger=600)["token"]
        self.connect()
        stream = self.connect()
        self.datagrams = self.make("socket.socket", type="SOCK_DGRAM")
        twin = self.make("socket.dup", handle=stream)
        self.peers[-1][1].add(twin)
        gone = self.make("socket.socket")
        self.change(stream, "nodelay", 1)
        self.known[twin]["nodelay"] = 1
        self.change(self.datagrams, "timeout", 12.5)
        self.change(twin, "inheritable", True)
        self.call(("default", None, 7), "socket.setdefaulttimeout", timeout=7)
        self.default = 7
        self.close(gone)
        self.close(early)
        self.call(("restrict", None, None), "session.restrict", filters=FILTERS)
        self.restricted = True
        first = self.client
        self.client = Client(self.broker)
        self.call(("attach", None, None), "session.attach", token=self.token)
        first.close()
        self.make("socket.socket")
        self.close(stream)
        self.close(twin)

    def end(self):
        self.call(("end", None, None), "session.close")
        self.known, self.over = {}, True
        self.check_ends()

    # What is true after a crash.

    def check_ends(self):
        """Each peer whose last handle is closed sees the end."""
        for peer, handles in list(self.peers):
            if not handles & self.known.keys():
                assert peer.recv(1) == b"", "a closed connection is still open"
                peer.close()
                self.peers.remove((peer, handles))

    def verify(self):
        """Compares the session that the broker recovered with what it promised, and closes it."""
        if self.token is None:
            # No answer promised anything. What is not over yet waits for its client.
            for peer, _ in self.peers:
                peer.close()
            return
        kind, at, value = self.pending or (None, None, None)
        try:
            self.client, _ = attached(self.broker, self.token)
        except Failed as failed:
            assert failed.kind == "session" and (self.over or kind == "end"), (failed, self.pending)
            self.known = {}
            return self.check_ends()
        assert not self.over, "a closed session has come back"
        found = self.client.handles()
        lost = self.known.keys() - found.keys()
        assert kind == "end" or lost <= ({at} if kind == "close" else set()), ("lost", lost)
        more = found.keys() - self.known.keys()
        makers = [found[handle]["maker"]["request"] for handle in more]
        assert makers == [] or (kind == "make" and makers == [self.request]), ("resurrected", more)
        self.known = {handle: facts for handle, facts in self.known.items() if handle in found}
        self.check_state(found, kind, at, value)
        self.check_ends()
        for peer, handles in self.peers:
            peer.sendall(b"x")
            assert received(self.client, min(handles & self.known.keys())) == b"x"
        self.pending = None
        self.end()
        assert refusal(lambda: attached(self.broker, self.token)).kind == "session"

    def check_state(self, found, kind, at, value):
        """Each answered change is in force; one without an answer may be."""
        get = self.client.call
        option = {"level": "IPPROTO_TCP", "optname": "TCP_NODELAY"}
        for handle, facts in self.known.items():
            is_stream = found[handle]["type"] == socket.SOCK_STREAM
            now = {
                "timeout": found[handle]["timeout"],
                "inheritable": get("socket.get_inheritable", handle=handle),
                "nodelay": get("socket.getsockopt", handle=handle, **option) if is_stream else 0,
            }
            for field, fact in facts.items():
                # Two handles of one connection share its options.
                is_changing = kind == field and (handle == at or field == "nodelay")
                assert now[field] == fact or (is_changing and now[field] == value), (field, handle, now, facts)
        default = get("socket.getdefaulttimeout")
        assert default == self.default or (kind == "default" and default == value), default
        if self.restricted and self.datagrams in self.known:
            bind = lambda: get("socket.bind", handle=self.datagrams, address=["127.0.0.1", 0])
            assert refusal(bind).kind == "denied"


class Crashes:
    """A broker whose processes are killed after one system call after the other."""

    def __init__(self, program, points, chance):
        self.program, self.points, self.chance = program, points, chance
        self.broker = Broker(program, limits={"persistent_sessions_per_user": 1000})
        self.server = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.server.settimeout(harness.HANG)
        self.stock = Stock(self.broker)

    def restart(self):
        self.broker.kill()
        self.broker.start()

    def all_points(self, name, crash):
        """Kills after each system call, or after some, until there is none left."""
        killed, calls = crash(None)
        assert not killed and calls, name
        chosen = self.choose(calls) if self.points else range(1, 10 * len(calls))
        done = missed = 0
        for point in chosen:
            try:
                killed, at = crash(point)
            except BaseException:
                print(f"{name}: after system call {point} of about {len(calls)}")
                raise
            done, missed = done + killed, 0 if killed else missed + 1
            # The number of system calls differs from run to run.
            if not self.points and missed == 3:
                break
        print(f"{name}: {done} crashes, each after one of about {len(calls)} system calls")
        assert done > 0, name

    def choose(self, calls):
        """Some of the system calls, by their position."""
        every = range(1, len(calls) + 1)
        messages = [position for position in every if calls[position - 1] in MESSAGES]
        chosen = self.chance.sample(messages, min(self.points // 2, len(messages)))
        return chosen + self.chance.sample(every, self.points - len(chosen))

    def check(self, walk):
        walk.verify()
        self.stock.check()
        # Connections whose answer was lost.
        self.server.settimeout(0)
        try:
            while True:
                self.server.accept()[0].close()
        except BlockingIOError:
            self.server.settimeout(harness.HANG)

    def attempt(self, process, point, which, act):
        """Acts until the process is killed. Returns whether it was, and its system calls."""
        crash, error = tracer.Crash(process, point, which), None
        try:
            act()
        except (OSError, Failed) as failure:
            error = failure
        killed, calls = crash.end()
        if error is not None and not killed:
            raise error
        return killed, calls

    def whole(self, walk):
        walk.begin()
        walk.end()

    def worker_at_work(self, point, by_service=False):
        walk = Walk(self.broker, self.server)
        outcome = self.attempt(walk.client.worker(), point, tracer.ALL, lambda: self.whole(walk))
        if by_service:
            self.restart()
        self.check(walk)
        return outcome

    def worker_before_restart(self, point):
        return self.worker_at_work(point, by_service=True)

    def monitor_at_work(self, point):
        walk = Walk(self.broker, self.server)
        outcome = self.attempt(self.broker.pid, point, tracer.ALL, lambda: self.whole(walk))
        if outcome[0]:
            self.restart()
        self.check(walk)
        return outcome

    def waiting(self):
        """A session that nobody serves."""
        walk = Walk(self.broker, self.server)
        walk.begin()
        kill_worker(walk.client)
        return walk

    def recovering_worker(self, point):
        walk = self.waiting()
        attach = lambda: attached(self.broker, walk.token)[0].close()
        outcome = self.attempt(self.broker.pid, point, tracer.OF_NEXT_WORKER, attach)
        self.check(walk)
        return outcome

    def starting_service(self, point):
        walk, broker = self.waiting(), self.broker
        broker.kill()
        gate = os.path.join(broker.folder.name, "gate")
        os.mkfifo(gate)
        program = os.path.join(broker.folder.name, "program")
        with open(program, "w") as file:
            file.write(f'#!/bin/sh\nread -r _ <{gate}\nexec {self.program} "$@"\n')
        os.chmod(program, stat.S_IRWXU)
        broker.program = program
        ready = broker.launch()
        broker.program = self.program
        # The shell has opened the other end, and waits.
        opened = open(gate, "w")
        os.unlink(gate)

        def start():
            opened.write("\n")
            opened.close()
            broker.wait_until_up(ready)

        outcome = self.attempt(broker.pid, point, tracer.AFTER_EXEC, start)
        if outcome[0]:
            self.restart()
        self.check(walk)
        return outcome


def run(program, points, seed):
    print("seed", seed)
    crashes = Crashes(program, points, random.Random(seed))
    try:
        for name in ("worker_at_work", "worker_before_restart", "recovering_worker", "monitor_at_work",
                     "starting_service"):
            crashes.all_points(name.replace("_", " "), getattr(crashes, name))
    except PermissionError as error:
        print(f"SKIPPED ({error}): crashes after each system call")
    finally:
        crashes.broker.close()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED (needs root): crashes after each system call")
        sys.exit()
    program, points = sys.argv[1], int(sys.argv[2])
    run(program, points, int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32))
