"""Modules that make their sockets in C, which this package does not see: a program is warned once of each."""

from __future__ import annotations

import sys
import warnings
from typing import Any

NATIVE = {
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
"""By the name of the module, what makes its sockets."""

_warned: set[str] = set()


def _warn(name: str, level: int) -> None:
    if name in NATIVE and name not in _warned:
        _warned.add(name)
        text = f"the sockets of {name} are made by {NATIVE[name]} and stay native: the broker does not serve them"
        warnings.warn(text, RuntimeWarning, stacklevel=level + 1)


class _Watcher:
    """Finds no module, and sees every import."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Warns of a module; the finders behind this one load it."""
        _warn(name, 2)


def watch() -> None:
    """Warns of such modules from now on, and of those that are here already."""
    for name in list(sys.modules):
        _warn(name, 3)
    if _Watcher not in sys.meta_path:
        sys.meta_path.insert(0, _Watcher)
