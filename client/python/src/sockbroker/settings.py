"""The mode of sockets, and the address of their broker."""

from __future__ import annotations

import os
from collections import namedtuple

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from .ssh_target import SshTarget
    from .tls_target import TlsTarget

DIRECT, MEDIATED, REMOTE, CHANNEL = "direct", "mediated", "remote", "channel"
MODES = (DIRECT, MEDIATED, REMOTE, CHANNEL)
OF_BROKER = (REMOTE, CHANNEL)
"""The modes whose sockets are on the machine of the broker, which can be another one."""

UNIX, TCP = "unix", "tcp"
PAIRS = (UNIX, TCP)
"""What the descriptors of mode `channel` are: ends of pairs of Unix sockets, or of TCP connections of this machine."""

MODE_VARIABLE = "SOCKBROKER_MODE"
PAIR_VARIABLE = "SOCKBROKER_PAIR"
URL_VARIABLE = "SOCKBROKER"
NETNS_VARIABLE = "SOCKBROKER_NETNS"
PERSIST_VARIABLE = "SOCKBROKER_PERSIST"
RECONNECT_VARIABLE = "SOCKBROKER_RECONNECT_SECONDS"

_RECONNECT_SECONDS = 30.0

CALLER = "caller"
"""The network namespace in which this process connected to the broker."""

_SYSTEM_SOCKET = "/run/sockbroker/socket"


class Endpoint(namedtuple("Endpoint", ("path", "command", "ssh", "tls"), defaults=(None,))):
    """One of: the path of a broker's Unix socket, a command whose standard streams lead to the broker, a login by ssh, a
    TLS port."""

    __slots__ = ()
    path: str
    command: tuple[str, ...]
    ssh: SshTarget | None
    tls: TlsTarget | None

    @property
    def passes_descriptors(self) -> bool:
        """Whether descriptors reach the broker. A command may end in a pipe, and ssh and TLS carry bytes alone."""
        return bool(self.path)

    def __str__(self) -> str:
        if not self.command:
            return self.path or str(self.ssh or self.tls)
        import shlex  # for this form alone

        return "exec:" + shlex.join(self.command)


class Settings(
    namedtuple(
        "Settings",
        ("mode", "endpoint", "netns", "pair", "persist", "reconnect_seconds"),
        defaults=(UNIX, False, 30.0),
    )
):
    """How sockets use a broker."""

    __slots__ = ()
    mode: str
    endpoint: Endpoint
    netns: str | None
    """The network namespace of new sockets; `None` for that of the broker, and in direct mode for that of this process."""
    pair: str
    """What descriptors are in mode `channel`: `unix` or `tcp`."""
    persist: bool
    """Whether sockets outlive the processes of the broker."""
    reconnect_seconds: float
    """How long calls wait for the broker to return, with `persist`."""


def check_seconds(text: float | str) -> float:
    """A number of seconds. Raises `ValueError` for anything else."""
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"reconnect_seconds is {text}: use a number of seconds that is not negative")
    return seconds


def check_netns(name: str) -> str:
    """The name of a network namespace that a client can select. Raises `ValueError` or `TypeError` for anything else."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a network namespace is a str, not {type(name).__name__}")
    if not name or name == "owned" or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a network namespace: write caller, or a name of `ip netns list`")
    return name


def endpoint(url: str) -> Endpoint:
    """Parses a URL: `/path`, `unix:/path`, `unix:///path`, `ssh://[USER@]HOST[:PORT][/PATH]`,
    `tls://HOST[:PORT]` or `exec:COMMAND ARGUMENT...`.

    The package runs the command of `exec:` once for each connection, with a Unix socket as its standard input
    and output: `exec:ssh HOST socat - UNIX-CONNECT:/run/sockbroker/socket`. Raises `ValueError` for any other URL.
    """
    scheme, colon, rest = url.partition(":")
    if url.startswith("/"):
        return Endpoint(url, (), None)
    if colon and scheme == "unix":
        path = rest[2:] if rest.startswith("//") else rest
        if path.startswith("/"):
            return Endpoint(path, (), None)
    if colon and scheme == "ssh":
        from .ssh_target import parse  # for this form alone

        return Endpoint("", (), parse(rest))
    if colon and scheme == "tls":
        from .tls_target import parse as parse_tls  # for this form alone

        return Endpoint("", (), None, parse_tls(rest))
    if colon and scheme == "exec" and rest.strip():
        import shlex  # for this form alone

        return Endpoint("", tuple(shlex.split(rest)), None)
    if colon and scheme == "stdio":
        # A blocking client needs a connection for each call in progress, all of them to one broker.
        raise ValueError(
            f"cannot use the broker URL {url!r}: a stdio: broker serves one connection only, "
            "and this package opens several; use exec: with a command that connects to a broker's socket"
        )
    raise ValueError(f"cannot parse the broker URL {url!r}: use /path, unix:/path, ssh://HOST, tls://HOST or exec:COMMAND")


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


def check_pair(pair: str) -> str:
    """Returns the kind of pairs. Raises `ValueError` if there is none of this name."""
    if pair not in PAIRS:
        raise ValueError(f"unknown pair {pair!r}: use one of {', '.join(PAIRS)}")
    return pair


def settings(
    mode: str | None = None,
    url: str | None = None,
    netns: str | None = None,
    pair: str | None = None,
    persist: bool | None = None,
    reconnect_seconds: float | None = None,
) -> Settings:
    """The arguments; the environment where an argument is missing; else the defaults."""
    environment = os.environ
    place = endpoint(url or environment.get(URL_VARIABLE) or default_url())
    netns = netns or environment.get(NETNS_VARIABLE) or None
    if persist is None:
        persist = environment.get(PERSIST_VARIABLE) == "1"
    if reconnect_seconds is None:
        reconnect_seconds = check_seconds(environment.get(RECONNECT_VARIABLE) or _RECONNECT_SECONDS)
    pair = pair or environment.get(PAIR_VARIABLE) or UNIX
    default = MEDIATED if netns is not None else DIRECT
    chosen = mode or environment.get(MODE_VARIABLE) or _mode_of(place, default)
    return _checked(Settings(chosen, place, netns, pair, persist, reconnect_seconds))


def settings_of(
    url: str,
    mode: str | None = None,
    netns: str | None = None,
    pair: str | None = None,
    persist: bool = False,
    reconnect_seconds: float = _RECONNECT_SECONDS,
) -> Settings:
    """The settings of another broker than that of the process. The environment has no effect."""
    place = endpoint(url)
    return _checked(Settings(mode or _mode_of(place, MEDIATED), place, netns, pair or UNIX, persist, reconnect_seconds))


def _mode_of(place: Endpoint, default: str) -> str:
    return default if place.passes_descriptors else REMOTE


def _checked(made: Settings) -> Settings:
    """Raises `ValueError` for settings that do not fit together."""
    mode, place, netns = made.mode, made.endpoint, made.netns
    has_agent = mode == CHANNEL and (place.ssh is not None or place.tls is not None)
    if check_mode(mode) != REMOTE and not place.passes_descriptors and not has_agent:
        way = "ssh" if place.ssh else "TLS" if place.tls else "a command"
        raise ValueError(f"cannot use mode {mode} with the broker at {place}: {way} passes no descriptors; use remote")
    if netns is not None and mode == DIRECT:
        text = "in mode direct this process makes its sockets itself: use mediated, remote or channel"
        raise ValueError(f"cannot use the network namespace {netns!r}: {text}")
    if check_pair(made.pair) != UNIX and not has_agent:
        text = "it is for mode channel with ssh: and tls:; a broker of this machine passes the sockets themselves in mode mediated"
        raise ValueError(f"cannot use pair {made.pair} with the broker at {place} in mode {mode}: {text}")
    if made.persist and mode == CHANNEL:
        raise ValueError("cannot use persist in mode channel: a channel ends with the process that serves it; use remote")
    if made.persist and place.command:
        raise ValueError("cannot use persist with exec: a command may not lead to the same broker again; use a path or ssh")
    return made._replace(reconnect_seconds=check_seconds(made.reconnect_seconds))
