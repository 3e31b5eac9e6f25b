"""Warns of modules that create their sockets in C, which this package cannot replace."""

from __future__ import annotations

import sys

from .hints import Any

LIBRARIES = {
    "uvloop": "libuv",
    "grpc": "gRPC's core",
    "psycopg2": "libpq",
    "psycopg_c": "libpq",
    "psycopg_binary": "libpq",
    "MySQLdb": "the client library of MySQL",
    "pycurl": "libcurl",
    "zmq": "libzmq",
    "pcap": "libpcap",
    "pcapy": "libpcap",
}
"""The library that creates the sockets of each of these modules."""

_warned: set[str] = set()


def _warn(name: str, level: int) -> None:
    """Warns once of each module, at the line that is `level` frames above the caller."""
    if name in LIBRARIES and name not in _warned:
        import warnings

        _warned.add(name)
        text = (
            f"{LIBRARIES[name]} creates the sockets of {name}, which stay native: the broker does not serve them; "
            "what can use a SOCKS5 proxy reaches it by `sockbroker agent --socks`"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=level + 1)


class _Watcher:
    """Sees every import, as an entry of `sys.meta_path`. It finds no module itself."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Warns of the module. The finders after this one load it."""
        _warn(name, 2)


def watch() -> None:
    """Warns of these modules when they are imported, and of those that are loaded already."""
    for name in LIBRARIES:
        if name in sys.modules:
            _warn(name, 4)  # the caller of sockbroker.install()
    if _Watcher not in sys.meta_path:
        sys.meta_path.insert(0, _Watcher)
