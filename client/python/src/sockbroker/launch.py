"""Starts a program with brokered sockets: an environment that it and its children inherit."""

from __future__ import annotations

import os
import sys
from typing import Sequence

from .settings import MODE_VARIABLE, URL_VARIABLE, check_mode, endpoint

INHERITED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inherit")
"""The folder with the `sitecustomize` that installs the broker in every interpreter of the environment."""

USAGE = """\
usage: python3 -m sockbroker [--mode MODE] [--broker URL] (SCRIPT | -m MODULE | -c CODE) [ARGUMENT ...]

Runs a Python program, and the Python programs that it starts, with sockets of a broker.

  --mode MODE    direct (default): native, with the broker for what this user may not do
                 mediated: every operation is the broker's; a descriptor serves select and sharing
                 remote: no descriptor; for a broker on another machine
  --broker URL   /path or unix:/path of the broker's socket, or exec:COMMAND whose standard streams
                 lead to it; default: $SOCKBROKER, a broker of this user's, /run/sockbroker/socket
  --version      tells the version
  --help         this text

What follows is for the interpreter, which takes its own options too.
"""


class UsageError(Exception):
    """The command line is wrong; the text says how."""


def parse(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Variables to set, and what is for the interpreter."""
    rest = list(arguments)
    variables = {}
    checks = {"--mode": (MODE_VARIABLE, check_mode), "--broker": (URL_VARIABLE, _check_url)}
    while rest:
        name, equals, value = rest[0].partition("=")
        if name not in checks:
            break
        variable, check = checks[name]
        del rest[0]
        if not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        try:
            variables[variable] = check(value)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return variables, rest


def _check_url(url: str) -> str:
    endpoint(url)
    return url


def environment(variables: dict[str, str]) -> dict[str, str]:
    """The present environment with these variables, and the folder that every interpreter looks into."""
    made = {**os.environ, **variables}
    paths = [path for path in made.get("PYTHONPATH", "").split(os.pathsep) if path and path != INHERITED]
    made["PYTHONPATH"] = os.pathsep.join([INHERITED, *paths])
    return made


def run(arguments: Sequence[str]) -> int:
    """Becomes the program. Returns an exit code only if it cannot."""
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
            raise UsageError("the interpreter must see its environment: leave out -E, -I and -S")
    except UsageError as error:
        sys.stderr.write(f"sockbroker: {error}\n")
        return 2
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    command = [sys.executable, *_args_from_interpreter_flags(), *rest]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment(variables))
