"""A client with a persistent session, and its peers: `persistent.py STEP ARGUMENT...`, where a step is a function below.

A step prints what it found. Steps share the folder /var/tmp/persistent.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

FOLDER = pathlib.Path("/var/tmp/persistent")
BROKER = "/run/sockbroker/socket"
HANG = 300
"""The time limit of each wait, in seconds."""
BLOCK = 1 << 16
LEAST = 100_000_000
"""The bytes of a transfer, at least."""
LINGER = 600


class Refused(Exception):
    """A response is an error."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.kind = error["data"]["kind"]


class Ended(Exception):
    """The connection ended before the response."""


class Received(io.RawIOBase):
    """What a connection receives. Keeps its descriptors."""

    def __init__(self, connection):
        self.socket = connection
        self.descriptors = []

    def readable(self):
        return True

    def readinto(self, buffer):
        data, descriptors, _, _ = socket.recv_fds(self.socket, len(buffer), 16)
        self.descriptors += descriptors
        buffer[: len(data)] = data
        return len(data)


class Connection:
    """A connection with LSP framing, which carries attachments. Its errors are `Ended`."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(HANG)
        self.socket.connect(BROKER)
        self.received = Received(self.socket)
        self.file = io.BufferedReader(self.received)
        self.number = 0

    def call(self, method, data=None, **params):
        """Makes a call. `data` is an attachment. Returns the result; received data is in `data` of it."""
        self.number += 1
        if data is not None:
            params["bytes"] = {"attachment": 0}
        text = json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}).encode()
        header = f"Content-Length: {len(text)}\r\nAttachments: {'' if data is None else len(data)}\r\n\r\n"
        try:
            self.socket.sendall(header.encode() + text + (data or b""))
            return self.response()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Ended(method) from error

    def response(self):
        """Reads a response."""
        fields = {}
        while line := self.file.readline().decode().strip():
            name, _, value = line.partition(": ")
            fields[name] = value
        if not fields:
            raise Ended("response")
        text = self.file.read(int(fields["Content-Length"]))
        parts = [self.file.read(int(length)) for length in fields.get("Attachments", "").split(",") if length]
        response = json.loads(text)
        if "error" in response:
            raise Refused(response["error"])
        result = response["result"]
        if isinstance(result, dict) and isinstance(result.get("data"), dict):
            result["data"] = parts[result["data"]["attachment"]]
        return result


def opened(name, linger=LINGER, **options):
    """Opens a persistent session, and stores its token. Returns the connection and the result."""
    FOLDER.mkdir(exist_ok=True)
    connection = Connection()
    result = connection.call("session.open", linger=linger, persist=True, **options)
    store(name, {"token": result["token"], "epoch": result["epoch"]})
    return connection, result


def attached(name):
    """Attaches a new connection to a stored session. Returns the connection and the result."""
    connection = Connection()
    return connection, connection.call("session.attach", token=stored(name)["token"])


def attached_again(name):
    """Attaches a new connection, as often as the broker ends it. The socket of the broker exists all the time."""
    deadline = time.monotonic() + HANG
    while True:
        try:
            return attached(name)[0]
        except Ended:
            if time.monotonic() > deadline:
                raise


def store(name, value):
    (FOLDER / name).write_text(json.dumps(value))


def stored(name):
    return json.loads((FOLDER / name).read_text())


# A session with a listener, a stream and a datagram socket, and its checks.


def begin():
    """Opens a session with sockets, whose peer is the process of `echo`."""
    connection, result = opened("session")
    peer = ["127.0.0.1", stored("echo")]
    server = connection.call("socket.create_server", address=["127.0.0.1", 0])["handle"]
    stream = connection.call("socket.create_connection", address=peer)["handle"]
    datagrams = connection.call("socket.socket", type="SOCK_DGRAM")["handle"]
    connection.call("socket.bind", handle=datagrams, address=["127.0.0.1", 0])
    closed = connection.call("socket.socket")["handle"]
    connection.call("socket.close", handle=closed)
    state = {"server": server, "stream": stream, "datagrams": datagrams}
    state["ports"] = [connection.call("socket.getsockname", handle=handle)[1] for handle in (server, datagrams)]
    store("sockets", state)
    store("epoch", result["epoch"])
    print(result["persist"])


def echo():
    """A native peer: sends back what it receives, and notes the end of each stream."""
    FOLDER.mkdir(exist_ok=True)
    server = socket.create_server(("127.0.0.1", 0))
    store("echo", server.getsockname()[1])
    print("begun", flush=True)

    def serve(peer):
        with peer:
            while data := peer.recv(BLOCK):
                peer.sendall(data)
            (FOLDER / "stream-ended").touch()

    while True:
        threading.Thread(target=serve, args=(server.accept()[0],)).start()


def knock(text):
    """Connects to the listener, and sends data and a datagram, which wait there. Keeps the connection open."""
    listener, datagrams = stored("sockets")["ports"]
    peer = socket.create_connection(("127.0.0.1", listener))
    peer.sendall(text.encode())
    socket.socket(type=socket.SOCK_DGRAM).sendto(text.encode(), ("127.0.0.1", datagrams))
    print("begun", flush=True)
    peer.settimeout(HANG)
    print(peer.recv(100).decode())


def check(text, epoch):
    """Checks that all sockets are as before, after `knock TEXT`. The epoch is `same` or `new`."""
    connection, result = attached("session")
    sockets = stored("sockets")
    assert (result["epoch"] == stored("epoch")) == (epoch == "same"), (result, stored("epoch"))
    store("epoch", result["epoch"])
    found = {handle["handle"] for handle in connection.call("session.handles")}
    assert found == {sockets[name] for name in ("server", "stream", "datagrams")}, (found, sockets)
    connection.call("socket.sendall", handle=sockets["stream"], data=text.encode())
    assert received(connection, sockets["stream"]) == text.encode()
    assert received(connection, sockets["datagrams"]) == text.encode()
    accepted = connection.call("socket.accept", handle=sockets["server"])["handle"]
    assert received(connection, accepted) == text.encode()
    connection.call("socket.sendall", handle=accepted, data=b"answered")
    connection.call("socket.close", handle=accepted)
    print("as before")


def received(connection, handle):
    connection.call("socket.settimeout", handle=handle, value=HANG)
    return connection.call("socket.recv", handle=handle, bufsize=BLOCK)["data"]


def gone():
    """Prints how the broker refuses the token, after the stream has ended."""
    deadline = time.monotonic() + HANG
    while not (FOLDER / "stream-ended").exists():
        assert time.monotonic() < deadline, "the stream has not ended"
        time.sleep(0.01)
    try:
        attached("session")
    except Refused as refused:
        print(refused.kind)


# Transfers.


def download():
    """Receives from a native peer by attachments until the peer ends, and compares the digests. Attaches again whenever
    the connection ends: a call that the broker did not answer has taken nothing.
    """
    connection, _ = opened("download")
    server, digest = socket.create_server(("127.0.0.1", 0)), []
    threading.Thread(target=source, args=(server, digest)).start()
    handle = connection.call("socket.create_connection", address=["127.0.0.1", server.getsockname()[1]])["handle"]
    connection.call("socket.settimeout", handle=handle, value=HANG)
    print("begun", flush=True)
    found, count, attachments = hashlib.sha256(), 0, 0
    while True:
        try:
            data = connection.call("socket.recv", handle=handle, bufsize=BLOCK)["data"]
        except Ended:
            connection, attachments = attached_again("download"), attachments + 1
            continue
        if not data:
            break
        found.update(data)
        count += len(data)
    report("download by attachments", found, digest, count, attachments)


def upload():
    """Sends to a native peer by attachments, and compares the digests."""
    connection, _ = opened("upload")
    server, digest = socket.create_server(("127.0.0.1", 0)), []
    reader = threading.Thread(target=sink, args=(server, digest))
    reader.start()
    handle = connection.call("socket.create_connection", address=["127.0.0.1", server.getsockname()[1]])["handle"]
    print("begun", flush=True)
    sent, count, attachments = hashlib.sha256(), 0, 0
    while goes_on(count):
        data = os.urandom(BLOCK)
        while data:
            try:
                done = connection.call("socket.send", handle=handle, data=data)
            except (Ended, Refused) as error:
                # The broker answers each call that it has begun before it ends, and begins no other.
                assert isinstance(error, Ended), error
                connection, attachments = attached_again("upload"), attachments + 1
                continue
            sent.update(data[:done])
            count, data = count + done, data[done:]
    connection.call("socket.close", handle=handle)
    reader.join(HANG)
    report("upload by attachments", sent, digest, count, attachments)


def descriptor():
    """Receives on the descriptor of a socket of the package."""
    package_download("descriptor", SOCKBROKER_MODE="direct")


def mediated_download():
    """Receives by the package, whose calls wait until the broker is back."""
    package_download("mode mediated", SOCKBROKER_MODE="mediated", SOCKBROKER_PERSIST="1")


def package_download(name, **variables):
    """Receives from a native peer by the package, and compares the digests."""
    os.environ.update(variables)
    from sockbroker import socket as brokered

    server, digest = socket.create_server(("127.0.0.1", 0)), []
    threading.Thread(target=source, args=(server, digest)).start()
    found, count = hashlib.sha256(), 0
    with brokered.create_connection(("127.0.0.1", server.getsockname()[1]), HANG) as sock:
        print("begun", flush=True)
        while data := sock.recv(BLOCK):
            found.update(data)
            count += len(data)
    report(f"download, {name}", found, digest, count, 0)


def mediated_upload():
    """Sends to a native peer by the package, and compares the digests."""
    os.environ.update(SOCKBROKER_MODE="mediated", SOCKBROKER_PERSIST="1")
    from sockbroker import socket as brokered

    server, digest = socket.create_server(("127.0.0.1", 0)), []
    reader = threading.Thread(target=sink, args=(server, digest))
    reader.start()
    sent, count = hashlib.sha256(), 0
    with brokered.create_connection(("127.0.0.1", server.getsockname()[1]), HANG) as sock:
        print("begun", flush=True)
        while goes_on(count):
            data = os.urandom(BLOCK)
            sock.sendall(data)
            sent.update(data)
            count += len(data)
    reader.join(HANG)
    report("upload, mode mediated", sent, digest, count, 0)


def source(server, digest):
    """Sends random data to one peer. Adds the digest to a list before the end."""
    peer, sent, count = server.accept()[0], hashlib.sha256(), 0
    with peer:
        while goes_on(count):
            data = os.urandom(BLOCK)
            sent.update(data)
            peer.sendall(data)
            count += len(data)
        digest.append(sent.hexdigest())


def goes_on(count):
    """Whether a transfer that has sent this number of bytes goes on: slowly, until a file exists."""
    if enough():
        return count < LEAST
    time.sleep(0.005)
    return True


def sink(server, digest):
    """Receives from one peer until its end."""
    peer, found = server.accept()[0], hashlib.sha256()
    with peer:
        while data := peer.recv(BLOCK):
            found.update(data)
    digest.append(found.hexdigest())


def report(name, digest, other, count, attachments):
    assert count >= LEAST, (name, count)
    assert other == [digest.hexdigest()], (name, count, other, digest.hexdigest())
    print(f"{name}: {count} bytes, equal digests, attached again {attachments} times")


# Captures.

SECTION, PACKET = 0x0A0D0D0A, 6
CONTINUED = b"continued after the end of the process that wrote the capture"


def capture():
    """Captures numbered datagrams of the loopback by the protocol, from begin to end: each is in the stream once, in
    order, or the stream has counted it as dropped.
    """
    connection, _ = opened("capture", descriptors=True)
    handle = connection.call("capture.open", interfaces=["lo"], want_fd=True)["handle"]
    (descriptor,) = connection.received.descriptors
    stream = bytearray()

    def read():
        while part := os.read(descriptor, BLOCK):
            stream.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    print("begun", flush=True)
    port, sent = send_numbers()
    # The connection has ended with its process.
    connection = attached_again("capture")
    stats = connection.call("capture.stop", handle=handle)
    reader.join(HANG)
    assert stats["complete"] and stats["ended"] == "stopped", stats
    report_capture("capture", bytes(stream), port, sent, stats["dropped"])


def sniff():
    """The same by the command line, which returns to its session by itself."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "sniff.pcapng"
    command = ["sockbroker", "--persist", "sniff", "lo", "-w", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        line = program.stderr.readline()
        assert line.startswith("listening"), line + program.stderr.read()
        print("begun", flush=True)
        port, sent = send_numbers()
        program.send_signal(signal.SIGINT)
        printed, errors = program.communicate(timeout=HANG)
    assert program.returncode == 0, (printed, errors)
    dropped = int(re.search(r"(\d+) packets? dropped by kernel", errors)[1])
    report_capture("sniff", path.read_bytes(), port, sent, dropped)


def send_numbers():
    """Sends numbered datagrams that nobody reads until a file exists. Returns their port and their number."""
    sink = socket.socket(type=socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    sender, sent = socket.socket(type=socket.SOCK_DGRAM), 0
    sender.connect(sink.getsockname())
    while not enough():
        for _ in range(5):
            sender.send(struct.pack("!Q", sent))
            sent += 1
        time.sleep(0.001)
    return sink.getsockname()[1], sent


def report_capture(name, file, port, sent, dropped):
    found, sections = [], []
    for kind, body in blocks(file):
        if kind == SECTION:
            sections.append(CONTINUED in body)
        elif kind == PACKET:
            datagram = body[20 + 14 + 20 :]
            if datagram[2:4] == struct.pack("!H", port):
                found.append(struct.unpack_from("!Q", datagram, 8)[0])
    assert sections == [False, True], sections
    assert found == sorted(set(found)), f"{name}: packets twice, or not in order"
    lost = sent - len(found)
    assert lost <= dropped, (name, sent, len(found), dropped)
    print(f"{name}: {sent} packets, {len(found)} captured once, {lost} lost and counted, continued once")


def blocks(file):
    """The blocks of a file of the format pcapng, in the byte order of this machine."""
    at = 0
    while at < len(file):
        kind, length = struct.unpack_from("=II", file, at)
        assert 12 <= length <= len(file) - at, (kind, length, len(file) - at)
        yield kind, file[at + 8 : at + length - 4]
        at += length


def enough():
    return os.path.exists("/tmp/enough")


# Connections to a persistent listener.


def serve():
    """Answers each connection to a listener of a session, until a file exists."""
    connection, _ = opened("serve")
    listener = connection.call("socket.create_server", address=["127.0.0.1", 0], backlog=128)["handle"]
    connection.call("socket.settimeout", handle=listener, value=0.2)
    store("listener", connection.call("socket.getsockname", handle=listener)[1])
    print("begun", flush=True)
    while not enough():
        try:
            # Also those whose accept was not answered.
            for handle in {found["handle"] for found in connection.call("session.handles")} - {listener}:
                answer(connection, handle)
            while not enough():
                with contextlib.suppress(TimeoutError):
                    answer(connection, accepted(connection, listener))
        except (Ended, Refused) as error:
            assert isinstance(error, Ended), error
            connection = attached_again("serve")


def accepted(connection, listener):
    try:
        return connection.call("socket.accept", handle=listener)["handle"]
    except Refused as refused:
        if refused.kind == "timeout":
            raise TimeoutError from refused
        raise


def answer(connection, handle):
    connection.call("socket.sendall", handle=handle, data=b"served")
    connection.call("socket.close", handle=handle)


def connect(least):
    """Connects to the listener until a file exists, at least as often as LEAST, and prints what happened."""
    outcomes, number = {"served": 0}, 0
    print("begun", flush=True)
    while number < int(least) or not (FOLDER / "restarted").exists():
        number += 1
        try:
            with socket.create_connection(("127.0.0.1", stored("listener")), HANG) as peer:
                outcome = peer.recv(10).decode() or "ended"
        except OSError as error:
            outcome = errno.errorcode.get(error.errno, repr(error))
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(json.dumps(outcomes))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
