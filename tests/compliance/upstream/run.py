"""Runs CPython's own tests natively and through a broker: a test that passes natively must pass.

    run.py --broker sockbrokerd [--python /usr/bin/python3] [--suite test_socket] [--mode mediated] [--nobody]

Without a suite or mode all are run: `test_socket` in every mode, the others in mediated mode. Exit code 0 if
nothing is worse than natively, 1 if something is, 77 if the interpreter has no tests of its own, 78 if mode tls lacks
the program sockbroker beside the broker.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import judge
import with_channels
import without_descriptor
from broker import Broker, TlsBroker

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parents[2] / "client" / "python" / "src"
MODES = ("direct", "mediated", "remote")
FURTHER_MODES = ("channel", "tls")
"""`tls` is mode `channel` through `sockbroker agent` and the TLS port of a broker."""
OTHERS = (
    "test_selectors",
    "test_asyncio.test_sock_lowlevel",
    "test_asyncio.test_streams",
    "test_socketserver",
    "test_httplib",
    "test_ssl",
)
FURTHER_SUITES = (
    "test_asyncio.test_events",
    "test_asyncio.test_sendfile",
    "test_asyncio.test_server",
    "test_asyncio.test_ssl",
    "test_asyncio.test_unix_events",
    "test_epoll",
    "test_ftplib",
)
"""Suites that run only on request."""
EXCUSED = {"remote": without_descriptor.REASONS}
# A run that is native by mistake would pass every test.
LEAST_CALLS = {
    ("test_socket", "mediated"): 40_000,
    ("test_socket", "remote"): 40_000,
    ("test_asyncio.test_streams", "tls"): 200,
    ("test_epoll", "tls"): 50,
    ("test_httplib", "tls"): 300,
    ("test_ssl", "tls"): 2000,
}
LEAST_PASSED = {("test_socket", "remote"): 560}
NO_TESTS = 77
NO_PROGRAM = 78
LONGEST_WAIT = 900


AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
POLICY = """
version = 1

[[rule]]
name = "the user of the tested programs"
subject = { uids = [65534] }
allow = [
    "create", "adopt", "bind", "listen", "accept", "connect", "send", "receive", "option", "ioctl", "inspect",
    "handover", "session", "resolve", "interfaces", "hostname",
]
"""


def broker_for(binary, folder, others):
    """Returns a broker of this user, or one that serves other users by a policy."""
    command = [binary]
    if others:
        policy = pathlib.Path(folder, "policy.toml")
        policy.write_text(POLICY)
        command += ["--policy", str(policy)]
    return Broker(command, f"{folder}/broker.socket", f"{folder}/broker.log")


def _is_inherited(variable):
    """Whether programs get a variable: nothing that configures them, but the mark of a run of the gate."""
    return variable == "SOCKBROKER_GATE" or not variable.startswith(("PYTHON", "SOCKBROKER"))


def run_suite(given, suite, folder, prefix=(), only=(), variables=None):
    """Runs the tests once in a new process, as nobody on request, and returns the record."""
    out = f"{folder}/outcomes.json"
    package, program = PACKAGE, HERE / "suite.py"
    if given.nobody:
        # A folder that the user nobody can read and write.
        os.chmod(folder, 0o777)
        package = shutil.copytree(PACKAGE, f"{folder}/package", dirs_exist_ok=True)
        program = shutil.copy(program, folder)
    command = [*(AS_NOBODY if given.nobody else ()), given.python, *prefix, str(program), "--out", out]
    command += [word for name in only for word in ("--only", name)]
    environment = {key: value for key, value in os.environ.items() if _is_inherited(key)}
    environment.update(PYTHONPATH=str(package), TMPDIR=folder, PYTHONDONTWRITEBYTECODE="1", **(variables or {}))
    with open(f"{folder}/output", "w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            [*command, suite], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
        try:
            status = process.wait(LONGEST_WAIT)
        except subprocess.TimeoutExpired:
            status = f"nothing after {LONGEST_WAIT} s"
        finally:
            kill_group(process)
        if status != 0:
            output.seek(0)
            tail = output.read()[-4000:]
            raise SystemExit(f"{suite} in {' '.join(prefix) or 'a native run'} ended with {status}:\n{tail}")
    with open(out, encoding="utf-8") as file:
        return json.load(file)


def kill_group(process):
    """Ends processes that the suite can leave."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def compare(given, suite, mode, native, folder):
    """Compares one brokered run with the native one, and returns the faults."""
    if mode == "tls":
        broker = TlsBroker(given.broker, given.program, folder)
    else:
        broker = broker_for(given.broker, folder, given.nobody)
    prefix = ("-m", "sockbroker", "--mode", "channel" if mode == "tls" else mode, "--broker", broker.url)
    brokered = run_suite(given, suite, folder, prefix, variables=broker.variables)
    again = judge.is_flaky(native, brokered)
    if again:
        retried = run_suite(given, suite, folder, prefix, again, broker.variables)
        brokered["outcomes"].update(retried["outcomes"])
    calls, found = broker.stop()
    found = [f"{suite} {mode}: {line}" for line in found]
    found += judge.faults(native, brokered, EXCUSED.get(mode, ()), with_channels.UNSTABLE if mode in FURTHER_MODES else ())
    count, least = len(judge.passed(brokered)), LEAST_PASSED.get((suite, mode), 0)
    print(
        f"{suite} {mode}: {count} passed, {len(judge.passed(native))} natively; {calls} calls of the broker; "
        f"{brokered['seconds']:.0f} s, {native['seconds']:.0f} s natively; tried again: {len(again)}",
        flush=True,
    )
    if count < least:
        found.append(f"{suite} {mode}: {count} passed, fewer than {least}")
    if mode != "direct" and calls <= LEAST_CALLS.get((suite, mode), 0):
        found.append(f"{suite} {mode}: {calls} calls of the broker are too few for a brokered run")
    return found


def has_tests(python, suite):
    """Whether the interpreter has CPython's tests."""
    probe = f"import test.{suite}"
    return subprocess.run([python, "-c", probe], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--nobody", action="store_true", help="run as nobody, with a policy; needs root")
    parser.add_argument("--suite", action="append", choices=["test_socket", *OTHERS, *FURTHER_SUITES])
    parser.add_argument("--mode", action="append", choices=(*MODES, *FURTHER_MODES))
    given = parser.parse_args()
    given.broker = os.path.abspath(given.broker)
    given.program = os.path.join(os.path.dirname(given.broker), "sockbroker")
    if not has_tests(given.python, "test_socket"):
        print(f"{given.python} has no tests of its own: install libpython3-testsuite")
        return NO_TESTS
    if "tls" in (given.mode or ()) and not os.path.exists(given.program):
        print(f"{given.program} is not built")
        return NO_PROGRAM
    found = []
    for suite in given.suite or ["test_socket", *OTHERS]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            native = run_suite(given, suite, folder)
        print(f"{suite}: {native['version'].split()[0]}, as {'nobody' if given.nobody else os.geteuid()}")
        for mode in given.mode or (MODES if suite == "test_socket" else ("mediated",)):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                found += compare(given, suite, mode, native, folder)
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
