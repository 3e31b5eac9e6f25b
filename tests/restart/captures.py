"""Captures of persistent sessions over the end of their reader, their worker and the service: each packet once."""

import array
import ctypes
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time

from harness import HANG, PERSIST, POLICY, Broker, Client, Failed

CAPTURES = """[[rule]]
name = "captures"
subject = { everyone = true }
allow = ["capture", "create"]
family = ["AF_PACKET"]
"""
DENIED = """[[rule]]
name = "no captures"
subject = { everyone = true }
deny = ["capture"]
"""
CLONE_NEWNET = 0x40000000
SECTION, PACKET, STATISTICS = 0x0A0D0D0A, 6, 5
CONTINUED = b"continued after the end of the process that wrote the capture"


class CaptureClient(Client):
    """A connection that carries descriptors."""

    def __init__(self, broker):
        super().__init__(broker)
        self.descriptors = []

    def answer(self):
        while b"\n" not in self.rest:
            space = socket.CMSG_SPACE(16 * 4)
            data, items, _, _ = self.socket.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
            if not data:
                raise ConnectionResetError("the broker has closed the connection")
            self.rest += data
            for _, _, numbers in items:
                found = array.array("i")
                found.frombytes(numbers)
                self.descriptors += found
        return super().answer()


class Stream:
    """Reads the stream of a capture to its end."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.data = bytearray()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def read(self):
        self.thread.start()
        return self

    def follow(self):
        while part := os.read(self.descriptor, 1 << 16):
            self.data += part
        os.close(self.descriptor)

    def blocks(self):
        """The blocks of the whole file."""
        self.thread.join(4 * HANG)
        assert not self.thread.is_alive(), "the stream does not end"
        rest = bytes(self.data)
        while rest:
            kind, length = struct.unpack_from("<II", rest)
            assert 12 <= length <= len(rest) and length % 4 == 0, (kind, length, len(rest))
            assert struct.unpack_from("<I", rest, length - 4)[0] == length
            yield kind, rest[8 : length - 4]
            rest = rest[length:]


class Sender:
    """Sends numbered datagrams over the loopback. Nobody reads them."""

    def __init__(self, size=64):
        self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sink.bind(("127.0.0.1", 0))
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(self.sink.getsockname())
        self.size = size
        self.sent = 0
        self.running = None

    def send(self, count):
        for _ in range(count):
            self.socket.send(struct.pack("!Q", self.sent).ljust(self.size, b"."))
            self.sent += 1

    def start(self):
        self.running = threading.Event()
        self.running.set()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        while self.running.is_set():
            self.send(5)
            time.sleep(0.0005)

    def stop(self):
        self.running.clear()
        self.thread.join()


def readers(broker):
    """The processes that read captures."""
    found = []
    for pid in broker.processes():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if any(b"reader" in word for word in words[:2]) and b"policy" not in b" ".join(words[:2]):
            found.append(pid)
    return found


def kill_reader(broker, client):
    for pid in readers(broker):
        os.kill(pid, signal.SIGKILL)


def kill_worker(broker, client):
    os.kill(client.worker(), signal.SIGKILL)


def kill_service(broker, client):
    broker.kill()
    broker.start()


def restart_service(broker, client):
    broker.terminate()
    broker.start()


CRASHES = [kill_reader, kill_worker, kill_service, restart_service]


def opened(broker, sender, **options):
    """A session with a capture, and its stream."""
    client = CaptureClient(broker)
    token = client.open(linger=60, descriptors=True)["token"]
    capture = client.call("capture.open", interfaces=["lo"], want_fd=True, options=options)
    (descriptor,) = client.descriptors
    return client, token, capture["handle"], Stream(descriptor)


def reattached(broker, token):
    """A connection to the session, whether or not its worker has ended already."""
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        client = CaptureClient(broker)
        try:
            client.call("session.attach", token=token, descriptors=True)
            return client
        except OSError:
            client.close()
    raise AssertionError("no worker recovers the session")


def numbers(blocks):
    """The numbers of the datagrams, and the comments of sections and statistics."""
    found, sections, ends = [], [], []
    for kind, body in blocks:
        if kind == PACKET:
            captured = struct.unpack_from("<I", body, 12)[0]
            frame = body[20 : 20 + captured]
            found.append(struct.unpack_from("!Q", frame, 14 + 20 + 8)[0])
        elif kind == SECTION:
            sections.append(CONTINUED in body)
        elif kind == STATISTICS:
            ends.append(body)
    return found, sections, ends


def check(stats, sender, stream, times):
    """Every packet is captured once, or counted as dropped."""
    found, sections, ends = numbers(stream.blocks())
    assert stats["seen"] == sender.sent, (stats, sender.sent)
    assert stats["captured"] + stats["dropped"] == sender.sent and stats["unread"] == 0, (stats, sender.sent)
    assert len(found) == stats["captured"] and found == sorted(set(found)), (len(found), stats)
    assert sections[0] is False and all(sections[1:]), sections
    assert times is None or len(sections) == 1 + times, sections
    assert b"stopped" in ends[-1]
    assert stats["complete"] is True and stats["ended"] == "stopped", stats
    return stats


def continues(program, crash, times, **options):
    """A capture under traffic, and crashes."""
    broker = Broker(program)
    broker.reload(POLICY + PERSIST + CAPTURES)
    try:
        sender = Sender()
        client, token, handle, stream = opened(broker, sender, **options)
        stream.read()
        sender.start()
        for _ in range(times):
            before = client.call("capture.stats", handle=handle)["seen"]
            crash(broker, client)
            client.close()
            client = reattached(broker, token)
            stats = client.call("capture.stats", handle=handle)
            assert stats["seen"] >= before, (stats, before)
            filtered = client.call("capture.set_filter", handle=handle)
            assert filtered["after"]["seconds"] > 0, filtered
        sender.stop()
        stats = client.call("capture.stop", handle=handle)
        check(stats, sender, stream, times)
        client.call("capture.close", handle=handle)
        assert client.call("session.handles") == []
        return stats
    finally:
        broker.close()


def random_crashes(program, rounds, seed):
    """Ends of all kinds at random instants, with a client that reads slowly, and with large packets."""
    random.seed(seed)
    broker = Broker(program)
    broker.reload(POLICY + PERSIST + CAPTURES)
    try:
        for mode in ["live", "bulk"]:
            sender = Sender(size=1400)
            client, token, handle, stream = opened(broker, sender, mode=mode, buffer_bytes=1 << 20)
            sender.start()
            # Parts of blocks are in the stream, because nobody reads at first.
            for number in range(rounds):
                if number == rounds // 3:
                    stream.read()
                threading.Event().wait(random.random() / 50)
                random.choice(CRASHES)(broker, client)
                client.close()
                client = reattached(broker, token)
            sender.stop()
            stats = client.call("capture.stop", handle=handle)
            stats = check(stats, sender, stream, None)
            print(mode, stats)
            client.call("capture.close", handle=handle)
            client.close()
    finally:
        broker.close()


def others_end_with_a_reason(program):
    """A capture of a session that is not persistent."""
    broker = Broker(program)
    broker.reload(POLICY + PERSIST + CAPTURES)
    try:
        sender = Sender()
        client = CaptureClient(broker)
        client.call("session.open", descriptors=True)
        client.call("capture.open", interfaces=["lo"], want_fd=True)
        stream = Stream(client.descriptors[0]).read()
        sender.send(3)
        kill_worker(broker, client)
        found, sections, ends = numbers(stream.blocks())
        assert found == [0, 1, 2] and sections == [False], (found, sections)
        assert b"interrupted" in ends[-1], ends
    finally:
        broker.close()


def later_persistence_and_limits(program):
    """`session.open` with `persist` after the capture was opened; captures count as handles."""
    broker = Broker(program, limits={"persistent_handles_per_user": 2})
    broker.reload(POLICY + PERSIST + CAPTURES)
    try:
        sender = Sender()
        client = CaptureClient(broker)
        client.call("session.open", descriptors=True)
        handle = client.call("capture.open", interfaces=["lo"], want_fd=True)["handle"]
        stream = Stream(client.descriptors[0]).read()
        sender.send(1)
        token = client.open(linger=60)["token"]
        try:
            client.call("capture.open", interfaces=["lo"], want_fd=True)
            raise AssertionError("a capture does not count")
        except Failed as failed:
            assert failed.data["limit"] == "persistent_handles_per_user", failed.data
        kill_worker(broker, client)
        client = reattached(broker, token)
        sender.send(1)
        assert client.call("capture.stats", handle=handle)["ended"] is None
        check(client.call("capture.stop", handle=handle), sender, stream, 1)
    finally:
        broker.close()


def revoked_while_down(program):
    """A capture that the policy no longer grants ends with this reason."""
    broker = Broker(program)
    broker.reload(POLICY + PERSIST + CAPTURES)
    try:
        sender = Sender()
        client, token, _, stream = opened(broker, sender)
        stream.read()
        sender.send(2)
        broker.kill()
        broker.write_policy(POLICY + PERSIST + CAPTURES + DENIED)
        broker.start()
        client = reattached(broker, token)
        found, sections, ends = numbers(stream.blocks())
        assert found == [0, 1] and sections == [False, True], (found, sections)
        assert b"policy" in ends[-1], ends
        assert client.call("session.handles") == []
    finally:
        broker.close()


def all_of_them(program, rounds, seed):
    for crash in CRASHES:
        continues(program, crash, 3)
    continues(program, kill_reader, 3, mode="bulk")
    later_persistence_and_limits(program)
    others_end_with_a_reason(program)
    revoked_while_down(program)
    random_crashes(program, rounds, seed)


def run(program, rounds, seed):
    """Runs all in a network namespace of its own."""
    if os.geteuid() != 0:
        print("SKIPPED (needs root): captures outlive workers and the service")
        return
    pid = os.fork()
    if pid == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            all_of_them(program, rounds, seed)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "captures do not outlive crashes"
