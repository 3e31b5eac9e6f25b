"""Scenarios on CPython's module and through a broker, one line each:

    compare.py --broker PATH --client CLIENT THEME...

The client `contract` speaks the protocol as it is written; `direct`, `mediated` and `remote` are the modes of
the Python package. Exit status 0 if every transcript is equal.
"""

import argparse
import contextlib
import importlib
import os
import re
import sys
import time

from oracle import judge, scenario, sessions

KEPT = re.compile(r"\d+ descriptors of this process were left open")
FIRST_SETTLE = 1.0
"""The time limit in seconds for the descriptors of a first run to close. It does not decide: a second run does."""
CLIENTS = ("contract", "mediated", "direct", "remote")


class Broker:
    """A broker that another process has started."""

    def __init__(self, path):
        self._path = path

    def session(self):
        """Opens a new session."""
        return sessions.PoolSession(self._path)


def package(path, mode):
    """Returns the `socket` module of the package, in one of its modes."""
    os.environ.update(SOCKBROKER=path, SOCKBROKER_MODE=mode)
    module = importlib.import_module("sockbroker.socket")
    return lambda _side: contextlib.nullcontext(module)


def judged(court, client, found):
    """Returns the verdict on a scenario.

    The package keeps as many connections as there were concurrent calls. Descriptors that it leaves open are therefore
    not waited for: the scenario runs again, and needs no new ones.
    """
    if client != "contract":
        verdict = court.judge(found, settle=FIRST_SETTLE)
        if not KEPT.fullmatch(verdict.text):
            return verdict
    return court.judge(found)


def main():
    """Runs the themes and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--client", required=True, choices=CLIENTS)
    parser.add_argument("--show", action="store_true", help="print what CPython gave")
    parser.add_argument("themes", nargs="+")
    given = parser.parse_args()
    second = None if given.client == "contract" else package(given.broker, given.client)
    court = judge.Judge(Broker(given.broker), frozenset(), {}, second)
    different = 0
    for theme in given.themes:
        importlib.import_module(f"oracle.scenarios.{theme}")
        for found in scenario.scenarios(theme):
            started = time.monotonic()
            verdict = judged(court, given.client, found)
            different += verdict.word != "equal"
            steps, seconds = len(verdict.native), time.monotonic() - started
            print(f"{verdict.word}: {given.client} {verdict.name} ({steps} steps, {seconds:.1f} s)", flush=True)
            if given.show:
                print(*(f"    {step}" for step in verdict.native), sep="\n", flush=True)
            if verdict.text:
                print(verdict.text, flush=True)
    court.close()
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
