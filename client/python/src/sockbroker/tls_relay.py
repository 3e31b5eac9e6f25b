"""A program that carries one connection between standard input, a socket, and the TLS port of a broker.

Its arguments are host, port, and the files of authority, certificate, key and token; empty for none. It imports nothing
of the package, and writes one line to standard error if it fails.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import ssl
import sys

_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0


def _connect(host: str, port: str, authority: str, certificate: str, key: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate and key:
        context.load_cert_chain(certificate, key)
    stream = socket.create_connection((host, int(port)), _CONNECT_SECONDS)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(stream, server_hostname=host)


def _token(path: str) -> str:
    token = os.environ.get("SOCKBROKER_TOKEN") or ""
    if not token and path:
        with open(path, encoding="ascii") as file:
            token = file.read()
    token = token.strip()
    if len(token.split()) > 1:
        raise ValueError("the token has blanks")
    return token


class _Side:
    """One of the two ends, and the bytes that it has still to send."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.unsent = memoryview(b"")
        self.wants_write = False

    def receive(self) -> bytes | None:
        """What has arrived; empty at the end, `None` if there is nothing."""
        try:
            return self.stream.recv(_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return None

    def send(self) -> None:
        """Sends what the end takes now."""
        self.wants_write = False
        try:
            self.unsent = self.unsent[self.stream.send(self.unsent) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass


def _relay(local: socket.socket, remote: ssl.SSLSocket) -> None:
    """Copies both directions until one ends. Neither waits for the other one: the broker may wait for its reader."""
    here, there = _Side(local), _Side(remote)
    selector = selectors.DefaultSelector()
    for side in (here, there):
        selector.register(side.stream, selectors.EVENT_READ)
    last: _Side | None = None
    while last is None or last.unsent:
        for side, other in ((here, there), (there, here)):
            wanted = 0 if other.unsent or last is not None else selectors.EVENT_READ
            if side.unsent or side.wants_write:
                wanted |= selectors.EVENT_WRITE
            _watch(selector, side.stream, wanted)
        # What TLS has decrypted already does not show as readable.
        pending = last is None and not here.unsent and remote.pending() > 0
        selector.select(0 if pending else None)
        for side, other in ((here, there), (there, here)):
            if side.unsent:
                side.send()
            if last is None and not other.unsent:
                data = side.receive()
                if data is not None:
                    other.unsent = memoryview(data)
                    last = None if data else other
    if last is here:
        # The program may send before it reads the last bytes, and a failure would keep it from reading them.
        local.setblocking(True)
        local.shutdown(socket.SHUT_WR)
        while local.recv(_BYTES):
            pass


def _watch(selector: selectors.BaseSelector, stream: socket.socket, wanted: int) -> None:
    registered = selector.get_map().get(stream)
    if registered is not None and registered.events != wanted:
        selector.unregister(stream)
        registered = None
    if registered is None and wanted:
        selector.register(stream, wanted)


def _carry(local: socket.socket, arguments: list[str]) -> None:
    host, port, authority, certificate, key, token_file = arguments
    token = _token(token_file)
    with _connect(host, port, authority, certificate, key) as remote:
        if token:
            # The other fields of the first head follow.
            remote.sendall(f"Authorization: Bearer {token}\r\n".encode("ascii"))
        _relay(local, remote)


def main(arguments: list[str]) -> int:
    """Carries one connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the program that uses the connection
    with socket.socket(fileno=os.dup(0)) as local:
        os.close(0)
        try:
            _carry(local, arguments)
        except (OSError, ValueError) as error:
            # Before the connection ends, so that the program finds the reason.
            sys.stderr.write(f"TLS: {error}\n")
            sys.stderr.flush()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
