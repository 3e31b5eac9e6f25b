"""What a program is told about its broker: the mode, and where the broker is."""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

DIRECT, MEDIATED, REMOTE = "direct", "mediated", "remote"
MODES = (DIRECT, MEDIATED, REMOTE)

MODE_VARIABLE = "SOCKBROKER_MODE"
URL_VARIABLE = "SOCKBROKER"

_SYSTEM_SOCKET = "/run/sockbroker/socket"


class Endpoint(NamedTuple):
    """Where a broker is: the path of its Unix socket, or a command whose standard streams lead to it."""

    path: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return self.path or "exec:" + shlex.join(self.command)


class Settings(NamedTuple):
    """How this process uses the broker."""

    mode: str
    endpoint: Endpoint


def endpoint(url: str) -> Endpoint:
    """The endpoint that a URL names: `/path`, `unix:/path`, `unix:///path` or `exec:COMMAND ARGUMENT...`.

    `exec:` runs the command once for each connection, with a Unix socket as its standard input and
    output: `exec:ssh HOST socat - UNIX-CONNECT:/run/sockbroker/socket`. `ValueError` for anything else.
    """
    scheme, colon, rest = url.partition(":")
    if url.startswith("/"):
        return Endpoint(url, ())
    if colon and scheme == "unix":
        path = rest[2:] if rest.startswith("//") else rest
        if path.startswith("/"):
            return Endpoint(path, ())
    if colon and scheme == "exec" and rest.strip():
        return Endpoint("", tuple(shlex.split(rest)))
    if colon and scheme == "stdio":
        # A blocking client needs a connection for each call in progress, and all in one broker.
        raise ValueError(f"{url!r} is a broker of one connection: use exec: with a command that leads to a socket")
    raise ValueError(f"not the URL of a broker: {url!r}: use /path, unix:/path or exec:COMMAND")


def default_url() -> str:
    """Where a broker of this user is: its own one if it runs, else the system's."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and folder:
        own = os.path.join(folder, "sockbroker.socket")
        if os.path.exists(own):
            return own
    return _SYSTEM_SOCKET


def check_mode(mode: str) -> str:
    """The mode, if there is such a one; `ValueError` if not."""
    if mode not in MODES:
        raise ValueError(f"not a mode: {mode!r}: use one of {', '.join(MODES)}")
    return mode


def settings(mode: str | None = None, url: str | None = None) -> Settings:
    """What was asked for; where nothing was, what the environment says; else the defaults."""
    environment = os.environ
    mode = check_mode(mode or environment.get(MODE_VARIABLE) or DIRECT)
    return Settings(mode, endpoint(url or environment.get(URL_VARIABLE) or default_url()))
