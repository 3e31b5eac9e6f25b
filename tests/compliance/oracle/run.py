"""The runner: `run.py --broker TARGET/sockbrokerd --all`, or `--theme NAME` for one theme.

It moves into namespaces of its own where it can (see `world.py`), runs every scenario on CPython's
`socket` and on the broker, and closes with one line of counts. Exit status 0 means no difference.
"""

import argparse
import collections
import importlib
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

if sys.version_info < (3, 11):
    raise SystemExit("the compliance suite needs Python 3.11 or newer")

import tomllib  # noqa: E402

_NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--uts", "--mount"]
_MARK = "SOCKBROKER_COMPLIANCE_NAMESPACE"
WORDS = ("equal", "gap", "skipped", "different")


def themes():
    """Returns every theme: the files of `scenarios/`."""
    files = sorted(os.listdir(os.path.join(HERE, "scenarios")))
    return [name[:-3] for name in files if name.endswith(".py") and name != "__init__.py"]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", help="the sockbrokerd binary")
    parser.add_argument("--theme", action="append", choices=themes(), help="only this theme; may be repeated")
    parser.add_argument("--all", action="store_true", help="every theme, then the check of coverage")
    parser.add_argument("--only", help="only scenarios with this text in their name")
    parser.add_argument("--stdio", action="store_true", help="speak over --stdio, all calls on one connection")
    parser.add_argument("--base64", action="store_true", help="send and receive bytes as base64, not as attachments")
    parser.add_argument("--self-test", action="store_true",
                        help="show that the suite notices: twice native must be equal, tampered answers not")
    parser.add_argument("--coverage", metavar="FOLDER", help="check the calls recorded there against rpc.discover")
    parser.add_argument("--called", metavar="FILE", help="record the methods that were called")
    parser.add_argument("--jobs", type=int, default=4, help="themes at once with --all")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--show", action="store_true", help="print what CPython gave, line by line")
    parser.add_argument("-v", "--verbose", action="store_true", help="one line for each scenario")
    return parser.parse_args()


def enter_namespaces():
    """Starts this program again in new namespaces, if the machine allows it."""
    if os.environ.get(_MARK):
        return
    os.environ[_MARK] = "1"
    try:
        allowed = subprocess.run([*_NAMESPACES, "true"], capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        allowed = False
    if allowed:
        os.execvp(_NAMESPACES[0], [*_NAMESPACES, sys.executable, *sys.argv])
    print("no namespaces here: what needs privileges is skipped", flush=True)


def gaps():
    """The known differences with their reasons."""
    with open(os.path.join(HERE, "..", "gaps.toml"), "rb") as file:
        rows = tomllib.load(file).get("gap", [])
    return {row["scenario"]: row["reason"] for row in rows}


def load(names):
    """The scenarios of these themes."""
    from oracle.scenario import scenarios
    for name in names:
        importlib.import_module(f"oracle.scenarios.{name}")
    return [found for name in names for found in scenarios(name)]


def run_themes(options, names):
    """Runs the scenarios of these themes in this process, and returns the counts."""
    from oracle import judge, selftest, sessions, wire, world
    chosen = [found for found in load(names) if not options.only or options.only in found.name]
    known = gaps()
    wire.only_base64 = options.base64
    with tempfile.TemporaryDirectory(prefix="cmp-broker-", dir="/tmp") as folder:
        offers = world.prepare()
        make = sessions.StdioDaemon if options.stdio else sessions.Daemon
        daemon = make(options.broker, folder) if options.broker else None
        if options.self_test:
            return selftest.run(chosen, daemon, offers, options.show)
        if daemon is None:
            raise SystemExit("--broker is missing")
        counts = judge_all(options, chosen, judge.Judge(daemon, offers, known), daemon)
    if options.called:
        with open(options.called, "w", encoding="utf-8") as file:
            json.dump(sorted(wire.called), file)
    return counts


def judge_all(options, chosen, court, daemon):
    """Yields the verdict on each scenario, and prints it immediately."""
    from oracle import judge
    counts = collections.Counter()
    watch = None if options.stdio else judge.BrokerWatch(daemon)
    for found in chosen:
        verdict = court.judge(found)
        counts[verdict.word] += 1
        if options.show:
            print(verdict.name, *verdict.native, sep="\n    ")
        if options.verbose or verdict.word in ("different", "skipped"):
            print(f"{verdict.word}: {verdict.name}" + (f"\n{verdict.text}" if verdict.text else ""), flush=True)
    court.close()
    if leaked := watch.leaked() if watch else 0:
        counts["different"] += 1
        print(f"different: the broker holds {leaked} descriptors more than at the beginning")
    log = daemon.log()
    if daemon.stop() not in (0, -15) or "panicked" in log:
        counts["different"] += 1
        print(f"different: the broker ended badly:\n{log}")
    return counts


def run_all(options):
    """Runs every theme in its own process, several concurrently; then checks the coverage."""
    from concurrent.futures import ThreadPoolExecutor
    counts = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="cmp-called-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        for output, status in pool.map(lambda name: _spawn(options, name, folder), themes()):
            *rows, closing = output.rstrip("\n").split("\n")
            print("\n".join(rows), end="\n" if rows else "")
            counts += _counts_of(closing) if closing.startswith("compliance: ") else {"different": 1}
            if status and not closing.startswith("compliance: "):
                print(closing)
        if not options.stdio and not coverage(options.broker, folder):
            counts["different"] += 1
    return counts


def _spawn(options, name, folder):
    command = [sys.executable, __file__, "--broker", options.broker, "--theme", name,
               "--called", os.path.join(folder, name)]
    command += [flag for flag, on in (("--stdio", options.stdio), ("--base64", options.base64),
                                              ("-v", options.verbose)) if on]
    environment = {key: value for key, value in os.environ.items() if key != _MARK}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    return done.stdout, done.returncode


def _counts_of(closing):
    numbers = [int(word) for word in closing.replace(",", "").split() if word.isdigit()]
    return collections.Counter(dict(zip(WORDS, numbers)))


def coverage(broker, folder):
    """Checks whether scenarios have called every method of the broker for Python's module."""
    from oracle import sessions
    called = set()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            called.update(json.load(file))
    with tempfile.TemporaryDirectory(prefix="cmp-broker-", dir="/tmp") as place:
        daemon = sessions.Daemon(broker, place)
        try:
            document = daemon.session().call("rpc.discover", None).value
        finally:
            daemon.stop()
    offered = {method["name"] for method in document["methods"] if method["name"].startswith("socket.")}
    missing = sorted(offered - called)
    unknown = sorted(name for name in called - offered if name.startswith("socket."))
    print(f"coverage: {len(offered & called)} of {len(offered)} socket methods called", flush=True)
    for name in missing:
        print(f"never called by a scenario: {name}")
    for name in unknown:
        print(f"called, but not in rpc.discover: {name}")
    return not missing and not unknown and bool(offered)


def main():
    """Runs the command line and returns the exit status."""
    options = arguments()
    if options.list:
        for found in load(options.theme or themes()):
            print(f"{found.name}: {' '.join(found.function.__doc__.split())}")
        return 0
    if options.coverage:
        return 0 if coverage(options.broker, options.coverage) else 1
    if options.all and not options.self_test:
        counts = run_all(options)
    else:
        enter_namespaces()
        counts = run_themes(options, options.theme or themes())
    print(f"compliance: {counts['equal']} equal, {counts['gap']} known gaps, {counts['skipped']} skipped, "
          f"{counts['different']} different", flush=True)
    return 1 if counts["different"] or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
