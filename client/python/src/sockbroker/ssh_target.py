"""The address of a broker behind ssh: `ssh://[USER@]HOST[:PORT][/PATH]`."""

from __future__ import annotations

import re
from collections import namedtuple

DEFAULT_PATH = "/run/sockbroker/socket"
"""The socket of the system's broker."""

# Other characters have a meaning for ssh or for the shell of the other host.
_USER = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._\-\\+@]*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:\-]*", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9/._\-+,=@]*", re.ASCII)
_PORT = re.compile(r"\+?[0-9]+", re.ASCII)
_PORTS = range(1, 1 << 16)


class SshTarget(namedtuple("SshTarget", ("user", "host", "port", "path"))):
    """A socket on another host, and the login to reach it. `None` for what the address does not name."""

    __slots__ = ()
    user: str | None
    host: str
    port: int | None
    path: str | None

    @property
    def destination(self) -> str:
        """User and host as an argument of ssh."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{user}{host}{port}{self.path or ''}"


def parse(rest: str) -> SshTarget:
    """Parses what follows `ssh:`. Raises `ValueError`."""
    if not rest.startswith("//"):
        raise _wrong(rest, "does not begin with ssh://")
    authority, slash, path = rest[2:].partition("/")
    user, at, address = authority.rpartition("@")
    if address.startswith("["):
        host, bracket, after = address[1:].partition("]")
        if not bracket:
            raise _wrong(rest, "has no closing bracket")
        colon, port = after[:1], after[1:]
    else:
        host, colon, port = address.partition(":")
    if not _HOST.fullmatch(host):
        raise _wrong(rest, "has no valid host")
    if at and not _USER.fullmatch(user):
        raise _wrong(rest, "has no valid user")
    if colon and not (colon == ":" and _PORT.fullmatch(port) and len(port) < 8 and int(port) in _PORTS):
        raise _wrong(rest, "has no valid port")
    if not _PATH.fullmatch(path):
        raise _wrong(rest, "has a path with other characters than letters, digits and /._-+,=@")
    return SshTarget(user if at else None, host, int(port) if colon else None, slash + path if path else None)


def _wrong(rest: str, why: str) -> ValueError:
    return ValueError(f"cannot use the broker URL {'ssh:' + rest!r}: it {why}; use ssh://[USER@]HOST[:PORT][/PATH]")
