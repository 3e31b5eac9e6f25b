"""`sendfile`: whole files, parts, positions, and what is refused."""

import io
import os
import tempfile

from oracle.common import pair, tcp_pair, udp_pair
from oracle.scenario import scenario

CONTENT = bytes(range(256)) * 40


def a_file(content=CONTENT):
    """A temporary file with content, at its beginning."""
    file = tempfile.TemporaryFile()
    file.write(content)
    file.seek(0)
    return file


def drain(sock, n):
    """Receives exactly this number of bytes."""
    got = bytearray()
    while len(got) < n:
        got += sock.recv(n - len(got))
    return bytes(got)


@scenario(descriptors=True)
def whole_file(s, t):
    """The whole file is sent, and the file's position is behind what was sent."""
    client, server = tcp_pair(s, t)
    with a_file() as file:
        t.note("sent", client.sendfile(file))
        t.note("position", file.tell())
    t.note("data", drain(server, len(CONTENT)))


@scenario(descriptors=True)
def parts_of_a_file(s, t):
    """Offset and count choose a part; the position follows."""
    for offset, count in ((0, 100), (100, None), (100, 50), (len(CONTENT), None), (len(CONTENT) - 5, 50), (50000, 10)):
        left, right = pair(s, t)
        with a_file() as file:
            sent = t.note(f"{offset} {count}", left.sendfile(file, offset, count))
            t.note("position", file.tell())
        t.note("data", drain(right, sent))


@scenario(descriptors=True)
def position_is_not_the_beginning(s, t):
    """The offset counts from the beginning of the file, wherever its position is."""
    left, right = pair(s, t)
    with a_file() as file:
        file.seek(1000)
        sent = t.note("sent", left.sendfile(file, 0, 10))
        t.note("position", file.tell())
    t.note("data", drain(right, sent))


@scenario(descriptors=True)
def empty_file(s, t):
    """An empty file sends nothing."""
    left, right = pair(s, t)
    with a_file(b"") as file:
        t.note("sent", left.sendfile(file))
    t.call("nothing", right.recv, 10, s.MSG_DONTWAIT)


@scenario(descriptors=True)
def wrong_counts(s, t):
    """A count is a positive integer."""
    left, _ = pair(s, t)
    with a_file() as file:
        for count in (0, -1, 1.5, "5"):
            t.call(f"count {count}", left.sendfile, file, 0, count)


@scenario(descriptors=True)
def only_blocking_streams(s, t):
    """Datagram sockets and non-blocking ones are ValueErrors."""
    here, _ = udp_pair(s, t)
    left, _ = pair(s, t)
    left.setblocking(False)
    with a_file() as file:
        t.call("datagrams", here.sendfile, file)
        t.call("non-blocking", left.sendfile, file)


@scenario(descriptors=True)
def with_a_timeout(s, t):
    """A reader that does not read makes `sendfile` run into its timeout."""
    left, _ = pair(s, t)
    left.settimeout(0.1)
    with a_file(bytes(8 << 20)) as file:
        t.call("sendfile", left.sendfile, file)


@scenario(descriptors=True)
def much(s, t):
    """Megabytes are sent while the peer reads."""
    client, server = tcp_pair(s, t)
    client.settimeout(120)
    content = os.urandom(16) * 200_000
    with a_file(content) as file:
        task = t.start(client.sendfile, file)
        t.note("data", drain(server, len(content)) == content)
        t.finish("sent", task)


@scenario
def a_file_in_memory(s, t):
    """A file without descriptor is read and sent."""
    left, right = pair(s, t)
    file = io.BytesIO(CONTENT)
    sent = t.note("sent", left.sendfile(file, 10, 500))
    t.note("position", file.tell())
    t.note("data", drain(right, sent))


@scenario(descriptors=True)
def after_the_end(s, t):
    """A closed connection, and an unconnected socket."""
    left, right = pair(s, t)
    right.close()
    with a_file() as file:
        t.call("gone", left.sendfile, file)
        t.call("unconnected", t.socket().sendfile, file)
