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


def _relay(local: socket.socket, remote: ssl.SSLSocket) -> None:
    """Copies both directions until one ends. Each side sends whole messages, and reads while the other one waits."""
    remote.settimeout(None)
    selector = selectors.DefaultSelector()
    selector.register(local, selectors.EVENT_READ)
    selector.register(remote, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if remote in ready:
            data = remote.recv(_BYTES)
            if not data:
                return
            local.sendall(data)
            while remote.pending():
                local.sendall(remote.recv(_BYTES))
        if local in ready:
            data = local.recv(_BYTES)
            if not data:
                return
            remote.sendall(data)


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
