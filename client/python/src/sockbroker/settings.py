"""The mode of a process, and the address of its broker."""

from __future__ import annotations

import os
from collections import namedtuple

DIRECT, MEDIATED, REMOTE = "direct", "mediated", "remote"
MODES = (DIRECT, MEDIATED, REMOTE)

MODE_VARIABLE = "SOCKBROKER_MODE"
URL_VARIABLE = "SOCKBROKER"
NETNS_VARIABLE = "SOCKBROKER_NETNS"

CALLER = "caller"
"""The network namespace in which this process connected to the broker."""

_SYSTEM_SOCKET = "/run/sockbroker/socket"


class Endpoint(namedtuple("Endpoint", ("path", "command"))):
    """The path of a broker's Unix socket, or a command whose standard streams lead to the broker."""

    __slots__ = ()
    path: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        if self.path:
            return self.path
        import shlex  # for this form alone

        return "exec:" + shlex.join(self.command)


class Settings(namedtuple("Settings", ("mode", "endpoint", "netns"))):
    """How this process uses the broker."""

    __slots__ = ()
    mode: str
    endpoint: Endpoint
    netns: str | None
    """The network namespace of new sockets; `None` for that of the broker, and in direct mode for that of this process."""


def check_netns(name: str) -> str:
    """The name of a network namespace that a client can select. Raises `ValueError` or `TypeError` for anything else."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a network namespace is a str, not {type(name).__name__}")
    if not name or name == "owned" or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a network namespace: write caller, or a name of `ip netns list`")
    return name


def endpoint(url: str) -> Endpoint:
    """Parses a URL: `/path`, `unix:/path`, `unix:///path` or `exec:COMMAND ARGUMENT...`.

    The package runs the command of `exec:` once for each connection, with a Unix socket as its standard input
    and output: `exec:ssh HOST socat - UNIX-CONNECT:/run/sockbroker/socket`. Raises `ValueError` for any other URL.
    """
    scheme, colon, rest = url.partition(":")
    if url.startswith("/"):
        return Endpoint(url, ())
    if colon and scheme == "unix":
        path = rest[2:] if rest.startswith("//") else rest
        if path.startswith("/"):
            return Endpoint(path, ())
    if colon and scheme == "exec" and rest.strip():
        import shlex  # for this form alone

        return Endpoint("", tuple(shlex.split(rest)))
    if colon and scheme == "stdio":
        # A blocking client needs a connection for each call in progress, all of them to one broker.
        raise ValueError(
            f"cannot use the broker URL {url!r}: a stdio: broker serves one connection only, "
            "and this package opens several; use exec: with a command that connects to a broker's socket"
        )
    raise ValueError(f"cannot parse the broker URL {url!r}: use /path, unix:/path or exec:COMMAND")


def default_url() -> str:
    """The socket of this user's own broker if it exists, else the system's."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and folder:
        own = os.path.join(folder, "sockbroker.socket")
        if os.path.exists(own):
            return own
    return _SYSTEM_SOCKET


def check_mode(mode: str) -> str:
    """Returns the mode. Raises `ValueError` if there is no such mode."""
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: use one of {', '.join(MODES)}")
    return mode


def settings(mode: str | None = None, url: str | None = None) -> Settings:
    """The arguments; the environment where an argument is missing; else the defaults."""
    environment = os.environ
    netns = environment.get(NETNS_VARIABLE) or None
    mode = check_mode(mode or environment.get(MODE_VARIABLE) or (DIRECT if netns is None else MEDIATED))
    if netns is not None and mode == DIRECT:
        text = "in mode direct this process makes its sockets itself: use mediated or remote"
        raise ValueError(f"cannot use the network namespace {netns!r}: {text}")
    return Settings(mode, endpoint(url or environment.get(URL_VARIABLE) or default_url()), netns)
