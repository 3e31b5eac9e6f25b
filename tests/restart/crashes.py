"""A loop of crashes at random instants under one client that never stops."""

import collections
import os
import random
import signal
import socket
import threading
import time

from harness import HANG, Broker, Client, Failed

# Handles that are open at first, and at most. Each of the 128 lots has several, so that closing one moves others.
FIRST = 300
MOST = 380


class Loop:
    def __init__(self, program, seed):
        self.random = random.Random(seed)
        self.broker = Broker(program, limits={"persistent_handles_per_user": 1000})
        self.server = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.server.settimeout(HANG)
        self.port = self.server.getsockname()[1]
        self.counts = collections.Counter()
        self.known = {}  # handle: [timeout, the peer's end or None]
        self.used = set()
        self.lost = None
        self.longest = 0.0
        self.client = Client(self.broker)
        self.token = self.client.open(linger=60)["token"]
        for _ in range(FIRST):
            self.made(self.client.call("socket.socket")["handle"], None, None)

    def generation(self):
        """Operations until the crash."""
        service = self.random.random() < 0.5
        delay = self.random.random() * 0.02
        victim = self.broker.pid if service else self.client.worker()
        timer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
        timer.start()
        pending = None
        try:
            while True:
                pending = self.choose()
                self.perform(*pending)
                self.counts["operations"] += 1
        except OSError:
            pass
        timer.join()
        self.client.close()
        self.lost = Client.next_request
        if service:
            self.broker.kill()
            self.broker.start()
        self.recover(pending)
        self.counts["generations"] += 1

    def choose(self):
        kind = self.random.choice(["open", "open", "connect", "close", "close", "timeout", "timeout"])
        if len(self.known) >= MOST:
            kind = "close"
        elif not self.known and kind in ("close", "timeout"):
            kind = "open"
        handle = self.random.choice(list(self.known)) if kind in ("close", "timeout") else None
        return [kind, handle, self.random.randrange(1, 1000), None]

    def perform(self, kind, handle, value, _request):
        client = self.client
        if kind == "open":
            self.made(client.call("socket.socket")["handle"], None, None)
        elif kind == "connect":
            call = client.call("socket.create_connection", address=["127.0.0.1", self.port])
            peer, _ = self.server.accept()
            self.made(call["handle"], None, peer)
        elif kind == "close":
            client.call("socket.close", handle=handle)
            self.gone(handle)
        else:
            client.call("socket.settimeout", handle=handle, value=value)
            self.known[handle][0] = value

    def made(self, handle, timeout, peer):
        if handle in self.used:
            self.counts["twice"] += 1
        self.used.add(handle)
        self.known[handle] = [timeout, peer]

    def gone(self, handle):
        _, peer = self.known.pop(handle)
        if peer is not None:
            began = time.monotonic()
            peer.settimeout(HANG)
            try:
                if peer.recv(1) != b"":
                    self.counts["resurrected"] += 1
            except TimeoutError:
                self.counts["resurrected"] += 1
            self.longest = max(self.longest, time.monotonic() - began)
            peer.close()

    def recover(self, pending):
        self.client = Client(self.broker)
        self.client.attach(self.token)
        found = self.client.handles()
        kind, handle, value, _ = pending
        for number in list(self.known):
            if number not in found:
                if kind == "close" and number == handle:
                    self.gone(number)
                else:
                    self.counts["lost"] += 1
                    del self.known[number]
        for number, info in found.items():
            if number in self.known:
                allowed = [self.known[number][0]]
                if kind == "timeout" and number == handle:
                    allowed.append(value)
                if info["timeout"] not in allowed:
                    self.counts["wrong"] += 1
                self.known[number][0] = info["timeout"]
            elif kind in ("open", "connect") and info["maker"]["request"] == self.lost:
                # The answer was lost, and the handle says which request made it.
                self.counts["adopted"] += 1
                self.client.call("socket.close", handle=number)
                self.used.add(number)
            else:
                self.counts["resurrected"] += 1
                self.client.call("socket.close", handle=number)
        # Connections whose answer was lost.
        self.server.settimeout(0)
        try:
            while True:
                self.server.accept()[0].close()
        except BlockingIOError:
            pass
        self.server.settimeout(HANG)


def run(program, generations, seed):
    loop = Loop(program, seed)
    try:
        for _ in range(generations):
            loop.generation()
    finally:
        loop.broker.close()
    print(dict(loop.counts), f"longest wait for an end of stream: {loop.longest * 1000:.1f} ms")
    faults = {key: loop.counts[key] for key in ("lost", "resurrected", "wrong", "twice")}
    assert not any(faults.values()), (seed, faults)
    assert loop.counts["generations"] == generations and loop.counts["operations"] > generations
