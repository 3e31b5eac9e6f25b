"""Starts a program with brokered sockets, in an environment that its child processes inherit."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .environment import environment
from .settings import (
    DIRECT,
    MODE_VARIABLE,
    NETNS_VARIABLE,
    PAIR_VARIABLE,
    PERSIST_VARIABLE,
    RECONNECT_VARIABLE,
    URL_VARIABLE,
    check_mode,
    check_netns,
    check_pair,
    check_seconds,
    endpoint,
    settings_of,
)

USAGE = """\
usage: python3 -m sockbroker [--mode MODE] [--broker URL] [--netns NAME] [--pair PAIR] [--persist]
                             [--reconnect-seconds SECONDS]
                             (SCRIPT | -m MODULE | -c CODE) [ARGUMENT ...]

Runs a Python program, and the Python programs that it starts, with brokered sockets.

  --mode MODE    direct (default): native sockets; the broker does what the kernel refuses to this user
                 mediated: the broker does every operation; a descriptor serves select and sharing
                 remote: no descriptors; for a broker on another machine, and the default for ssh: and exec:
                 channel: as remote, but connected streams have a descriptor with their data
  --broker URL   /path or unix:/path of the broker's socket, ssh://[USER@]HOST[:PORT][/PATH] of a socket on
                 another machine, or exec:COMMAND, whose standard streams lead to the broker. Default:
                 $SOCKBROKER, else this user's own broker, else /run/sockbroker/socket
  --netns NAME   the network namespace of all new sockets but Unix ones, and of names: one of `ip netns list`, or
                 caller for that of the connection to the broker. Default: $SOCKBROKER_NETNS. Selects mode
                 mediated unless another option or $SOCKBROKER_MODE selects remote
  --pair PAIR    what descriptors are in mode channel with ssh: and tls:, unix (default) or tcp, for programs that
                 need TCP sockets, such as uvloop. Default: $SOCKBROKER_PAIR
  --persist      sockets of the broker outlive its restart, upgrade and crash: calls wait until it returns. The policy
                 must grant persist. Default: $SOCKBROKER_PERSIST, which is 1 for this option
  --reconnect-seconds SECONDS
                 how long calls wait then (default 30). Default: $SOCKBROKER_RECONNECT_SECONDS
  --version      print the version and exit
  --help         print this text and exit

The interpreter gets all further arguments, its own options included.
"""


class UsageError(Exception):
    """The command line is wrong, as the text explains."""


def parse(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Splits the arguments into environment variables to set and arguments of the interpreter."""
    rest = list(arguments)
    variables = {}
    checks = {
        "--mode": (MODE_VARIABLE, check_mode),
        "--broker": (URL_VARIABLE, _check_url),
        "--netns": (NETNS_VARIABLE, check_netns),
        "--pair": (PAIR_VARIABLE, check_pair),
        "--reconnect-seconds": (RECONNECT_VARIABLE, _check_seconds),
    }
    while rest:
        if rest[0] == "--persist":
            del rest[0]
            variables[PERSIST_VARIABLE] = "1"
            continue
        name, equals, value = rest[0].partition("=")
        if name not in checks:
            break
        variable, check = checks[name]
        del rest[0]
        if not equals:
            if not rest:
                raise UsageError(f"option {name} needs a value")
            value = rest.pop(0)
        try:
            variables[variable] = check(value)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if URL_VARIABLE in variables and MODE_VARIABLE in variables:
        try:
            settings_of(
                variables[URL_VARIABLE],
                variables[MODE_VARIABLE],
                pair=variables.get(PAIR_VARIABLE),
                persist=PERSIST_VARIABLE in variables,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
    if NETNS_VARIABLE in variables and variables.get(MODE_VARIABLE) == DIRECT:
        raise UsageError("option --netns needs --mode mediated or remote: in mode direct a program makes its sockets itself")
    return variables, rest


def _check_url(url: str) -> str:
    endpoint(url)
    return url


def _check_seconds(text: str) -> str:
    check_seconds(text)
    return text


def interpreter_options() -> list[str]:
    """The interpreter's own options in front of `-m sockbroker`, which the program's interpreter gets too."""
    if getattr(sys, "orig_argv", [])[1:3] == ["-m", "sockbroker"]:
        return []
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # slow to import

    return _args_from_interpreter_flags()  # type: ignore[no-any-return]


def run(arguments: Sequence[str]) -> int:
    """Replaces this process by the program. Returns an exit code only if that is not possible."""
    if arguments[:1] in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    if arguments[:1] == ["--version"]:
        from . import __version__

        sys.stdout.write(f"sockbroker {__version__}\n")
        return 0
    try:
        variables, rest = parse(arguments)
        if sys.flags.ignore_environment or sys.flags.no_site:
            text = "cannot start a brokered interpreter with -E, -I or -S: it must read its environment; omit them"
            raise UsageError(text)
    except UsageError as error:
        sys.stderr.write(f"sockbroker: {error}\n")
        return 2
    command = [sys.executable, *interpreter_options(), *rest]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment(variables))
