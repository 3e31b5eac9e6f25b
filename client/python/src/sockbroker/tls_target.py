"""The address of a broker with a TLS port: `tls://HOST[:PORT]`, and the files of the user for this host."""

from __future__ import annotations

import os
import re
from collections import namedtuple

DEFAULT_PORT = 7601

_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:\-]*", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


class TlsTarget(namedtuple("TlsTarget", ("host", "port"))):
    """A TLS port of another host."""

    __slots__ = ()
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tls://{host}:{self.port}"

    def file(self, name: str) -> str | None:
        """The path of a file in `$XDG_CONFIG_HOME/sockbroker/HOST` (`~/.config` is the default), if it exists."""
        folder = os.environ.get("XDG_CONFIG_HOME") or ""
        if not os.path.isabs(folder):
            folder = os.path.join(os.path.expanduser("~"), ".config")
        path = os.path.join(folder, "sockbroker", self.host, name)
        return path if os.path.isfile(path) else None


def parse(rest: str) -> TlsTarget:
    """Parses what follows `tls:`. Raises `ValueError`."""
    place = rest[2:] if rest.startswith("//") else ""
    place = place[:-1] if place.endswith("/") else place
    if place.startswith("["):
        host, _, after = place[1:].partition("]")
        colon, port = after[:1], after[1:]
    else:
        host, colon, port = place.partition(":")
    is_port = not colon or (colon == ":" and _PORT.fullmatch(port) and 0 < int(port) < 1 << 16)
    if not _HOST.fullmatch(host) or not is_port:
        raise ValueError(f"cannot use the broker URL {'tls:' + rest!r}: use tls://HOST or tls://HOST:PORT")
    return TlsTarget(host, int(port) if colon else DEFAULT_PORT)
