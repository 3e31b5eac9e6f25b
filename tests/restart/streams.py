"""Received bytes of sessions with exactly_once: none is lost with a worker, and none comes twice."""

import base64
import collections
import os
import random
import signal
import socket
import struct
import threading
import time

from harness import HANG, Broker, Client, Failed, attached, kill_worker
from scenarios import connected, listener, refusal

BLOCK = 1 << 16


def content(first, length):
    """Bytes of the stream: each place has its own, as far as a whole period of 2^24 bytes goes."""
    words = range(first // 4, (first + length) // 4 + 1)
    data = b"".join((word * 2654435761 & 0xFFFFFFFF).to_bytes(4, "little") for word in words)
    return data[first % 4 : first % 4 + length]


def received(client, handle, length=100, **params):
    answer = client.call("socket.recv", handle=handle, bufsize=length, **params)
    return base64.b64decode(answer["data"])


def queue(client, handle, peer, data):
    """Sends data, and waits until all of it is in the queue."""
    peer.sendall(data)
    deadline = time.monotonic() + HANG
    while client.call("socket.ioctl", handle=handle, control="FIONREAD") < len(data):
        assert time.monotonic() < deadline, "the data does not arrive"


def again(broker, client, token):
    kill_worker(client)
    return attached(broker, token)[0]


def begun(broker):
    """A session whose receives are exact, its token, a connection, and its peer."""
    client = Client(broker)
    token = client.open(linger=60, exactly_once=True)["token"]
    return client, token, *connected(client, *listener())


def positions_are_resumed(program):
    broker = Broker(program)
    try:
        client, token, handle, peer = begun(broker)
        resume = lambda received: client.call("socket.resume", handle=handle, received=received)
        # While the process is the same, the call has no effect.
        queue(client, handle, peer, b"0123456789")
        assert received(client, handle, 3) == b"012"
        assert [resume(received) for received in (3, 9, None)] == [3, 3, 3]
        # What the client has received from the ended process does not come again.
        client = again(broker, client, token)
        refused = refusal(lambda: resume(11))
        assert refused.kind == "argument" and "only 10 bytes" in str(refused), refused
        assert resume(5) == 5
        assert resume(7) == 5
        assert received(client, handle) == b"56789"
        # A loss is reported once.
        client = again(broker, client, token)
        lost = refusal(lambda: resume(8))
        assert lost.kind == "interrupted" and lost.data["errno"] == 103 and "2 received bytes" in str(lost), lost
        assert resume(None) == 10
        # A client that does not know what it has received.
        client = again(broker, client, token)
        assert refusal(lambda: resume(None)).kind == "interrupted"
        assert resume(None) == 10
        # The end of the stream is not data.
        queue(client, handle, peer, b"end")
        peer.close()
        assert client.call("socket.recv", handle=handle, bufsize=2)["n"] == 2
        client = again(broker, client, token)
        assert resume(13) == 13
        assert received(client, handle) == b""
        client = again(broker, client, token)
        assert resume(13) == 13
        assert received(client, handle) == b""
        assert refusal(lambda: resume("x")).kind == "argument"
    finally:
        broker.close()


def responses_that_were_not_sent_lose_nothing(program, exactly_once):
    """The client does not read: the worker ends with a response that is not sent completely."""
    broker = Broker(program)
    try:
        client, slow = Client(broker), Client(broker)
        token = client.open(linger=60, exactly_once=exactly_once)["token"]
        slow.attach(token)
        server, port = listener()
        handle, peer = connected(client, server, port)
        client.call("socket.setsockopt", handle=handle, level="SOL_SOCKET", optname="SO_RCVBUF", value=4 << 20)
        length = 1 << 20
        sender = threading.Thread(target=peer.sendall, args=(content(0, length),), daemon=True)
        sender.start()
        deadline = time.monotonic() + HANG
        while client.call("socket.ioctl", handle=handle, control="FIONREAD") < length // 2:
            assert time.monotonic() < deadline, "the data does not arrive"
        slow.send("socket.recv", {"handle": handle, "bufsize": length})
        # The response is on its way.
        assert slow.socket.recv(1) == b"{"
        client = again(broker, client, token)
        slow.close()
        if exactly_once:
            assert client.call("socket.resume", handle=handle, received=0) == 0
            at = 0
        else:
            at = client.call("socket.position", handle=handle)["received"]
            assert at >= length // 2
        while at < length:
            data = received(client, handle, length)
            assert data == content(at, len(data))
            at += len(data)
        sender.join(HANG)
    finally:
        broker.close()


def a_reset_takes_no_byte(program, has_fin, is_reported):
    """The position of a connection that was reset, before or after a call has reported that."""
    broker = Broker(program)
    try:
        client, token, handle, peer = begun(broker)
        queue(client, handle, peer, b"0123456789")
        assert received(client, handle, 4) == b"0123"
        if has_fin:
            peer.shutdown(socket.SHUT_WR)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        if is_reported:
            error = lambda: client.call("socket.getsockopt", handle=handle, level="SOL_SOCKET", optname="SO_ERROR")
            deadline = time.monotonic() + HANG
            while not error():
                assert time.monotonic() < deadline, "no call reports the reset"
        client = again(broker, client, token)
        assert client.call("socket.resume", handle=handle, received=4) == 4
        assert received(client, handle) == b"456789"
    finally:
        broker.close()


def other_readers_get_nothing_twice(program):
    """What others can receive as well is not left in the queue."""
    broker = Broker(program)
    try:
        client = Client(broker)
        token = client.open(linger=60, exactly_once=True)["token"]
        server, port = listener()
        handle, peer = connected(client, server, port)
        twin = client.call("socket.dup", handle=handle)["handle"]
        # Two responses of one write: the second call comes before the first response is sent.
        queue(client, handle, peer, b"0123456789")
        requests = [("socket.recv", {"handle": one, "bufsize": 4}) for one in (handle, twin, handle)]
        for request in requests:
            client.send(*request)
        answers = [base64.b64decode(client.answer()["data"]) for _ in requests]
        assert answers == [b"0123", b"4567", b"89"], answers
        client = again(broker, client, token)
        # Nothing can be in the queue again.
        assert client.call("socket.resume", handle=handle, received=None) == 10
        alone, peer = connected(client, server, port)
        queue(client, alone, peer, b"0123456789")
        for _ in range(3):
            client.send("socket.recv", {"handle": alone, "bufsize": 4})
        assert [base64.b64decode(client.answer()["data"]) for _ in range(3)] == [b"0123", b"4567", b"89"]
        queue(client, alone, peer, b"ab")
        assert received(client, alone, flags="MSG_PEEK") == b"ab"
        assert client.call("socket.recvmsg", handle=alone, bufsize=1)["n"] == 1
        assert received(client, alone, 1, flags="MSG_WAITALL") == b"b"
        assert client.call("socket.poll", fds=[[alone, "POLLIN"]], timeout=0) == []
    finally:
        broker.close()


def only_persistent_sessions_have_it(program):
    broker = Broker(program)
    try:
        client = Client(broker)
        refused = refusal(lambda: client.call("session.open", exactly_once=True))
        assert refused.kind == "argument" and "persist" in str(refused), refused
    finally:
        broker.close()


class Stream:
    """A peer that sends without end, and a client that receives while its worker or the service is killed."""

    def __init__(self, program, seed):
        self.random = random.Random(seed)
        self.broker = Broker(program)
        self.counts = collections.Counter()
        self.client = Client(self.broker)
        self.token = self.client.open(linger=60, exactly_once=True)["token"]
        server, port = listener()
        self.handle, self.peer = connected(self.client, server, port)
        self.peer.settimeout(None)
        self.at = 0
        threading.Thread(target=self.send, daemon=True).start()

    def send(self):
        first = 0
        try:
            while True:
                self.peer.sendall(content(first, BLOCK))
                first += BLOCK
        except OSError:
            pass

    def generation(self):
        service = self.random.random() < 0.3
        victim = self.broker.pid if service else self.client.worker()
        delay = self.random.random() * 0.01
        timer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
        timer.start()
        try:
            while True:
                self.receive()
        except OSError:
            pass
        timer.join()
        self.client.close()
        if service:
            self.broker.kill()
            self.broker.start()
        self.client, _ = attached(self.broker, self.token)
        taken = self.client.call("socket.position", handle=self.handle)["received"]
        self.counts["twice without resume"] += taken < self.at
        try:
            assert self.client.call("socket.resume", handle=self.handle, received=self.at) == self.at
        except Failed as failed:
            assert failed.kind == "interrupted", failed
            self.counts["lost"] += 1
            self.at = self.client.call("socket.resume", handle=self.handle, received=None)
        self.receive()
        self.counts["generations"] += 1

    def receive(self):
        """Receives, and compares."""
        length = self.random.choice([1, 10, 100, 1000, 20000])
        data = received(self.client, self.handle, length)
        if data != content(self.at, len(data)):
            self.counts["wrong"] += 1
        self.at += len(data)
        self.counts["receives"] += 1


def run(program, generations, seed):
    positions_are_resumed(program)
    responses_that_were_not_sent_lose_nothing(program, True)
    responses_that_were_not_sent_lose_nothing(program, False)
    for has_fin in (False, True):
        a_reset_takes_no_byte(program, has_fin, False)
        a_reset_takes_no_byte(program, has_fin, True)
    other_readers_get_nothing_twice(program)
    only_persistent_sessions_have_it(program)
    stream = Stream(program, seed)
    try:
        for _ in range(generations):
            stream.generation()
    finally:
        stream.broker.close()
    print(dict(stream.counts), f"{stream.at} bytes")
    assert not stream.counts["lost"] and not stream.counts["wrong"], (seed, stream.counts)
    assert stream.counts["generations"] == generations and stream.counts["receives"] > generations
