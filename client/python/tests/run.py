"""Runs the tests of the package: the behaviour of sockets, natively and in every mode, and of processes.

    run.py --broker sockbrokerd [--python INTERPRETER] [--mode MODE] [MODULE ...]

Modules of `behaviour` run four times: in each mode, and natively, where they must pass too because the interpreter
is the oracle. Modules of `process` run once and start the brokers and programs that they need. Each run has its own
process, and several run at the same time. A skipped test is reported as `SKIPPED (reason): test`. The exit code is 0 if
no test failed.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent / "src"
MODES = ("native", "direct", "mediated", "remote")
# For a module, in seconds. The full counts repeat what takes longest ten and twenty times as often.
LONGEST_WAIT = 7200 if os.environ.get("SOCKBROKER_FULL_COUNTS") else 600
START_SECONDS = END_SECONDS = 180
JOBS = 2 * (os.cpu_count() or 1)
"""Runs at the same time. Tests wait more than they compute."""


def start_broker(binary, folder, *options):
    """Starts a broker of this user. Returns its process and the path of its socket."""
    path = f"{folder}/broker.socket"
    process = start_and_wait([binary, "--socket", path, *options], path, pathlib.Path(folder, "broker.log"))
    return process, path


def start_and_wait(command, path, log):
    """Starts the command of a broker, which appends to the log, and waits until it accepts connections."""
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=file)
    deadline = time.monotonic() + START_SECONDS
    while not is_listening(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the broker did not start: {log.read_text()}")
        time.sleep(0.02)
    return process


def is_listening(path):
    """Whether a process listens on this Unix socket. A path exists earlier, from bind(2) on."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


def serving_process(path):
    """The number of the process that serves this user."""
    with socket.socket(socket.AF_UNIX) as connection:
        return served_by(connection, path)


def served_by(connection, path):
    """Connects this Unix socket to the broker. Returns the number of the process that serves the connection."""
    connection.connect(path)
    connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"broker.info"}\n')
    with connection.makefile() as answers:
        return json.loads(answers.readline())["result"]["process"]["pid"]


def inherited_environment():
    """The variables that programs of the tests get: none that configures them, but those of a run of the gate."""
    own, gate = ("PYTHON", "SOCKBROKER", "TEST_", "PYTEST_"), ("SOCKBROKER_GATE", "SOCKBROKER_FULL_COUNTS")
    return {name: value for name, value in os.environ.items() if name in gate or not name.startswith(own)}


def run_module(given, module, mode):
    """Runs one module in its own process and folder. Returns whether it passed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run_in_folder(given, module, mode, folder)


def run_in_folder(given, module, mode, folder):
    """Runs one module with files in this folder. Returns whether it passed."""
    broker, path = start_broker(given.broker, folder)
    environment = inherited_environment()
    environment.update(PYTHONPATH=str(PACKAGE), SOCKBROKERD=given.broker, TEST_BROKER=path, TEST_MODE=mode)
    environment.update(PYTHONDONTWRITEBYTECODE="1", TEST_BROKER_PID=str(serving_process(path)))
    prefix = [] if mode == "native" else ["-m", "sockbroker", "--mode", mode, "--broker", path]
    command = [given.python, "-W", "error::ResourceWarning", *prefix, "-m", "unittest", "-v", module]
    process = subprocess.Popen(
        command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=LONGEST_WAIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0] + f"\nkilled after {LONGEST_WAIT} s"
    finally:
        broker.terminate()
        status = broker.wait(END_SECONDS)
    count = int((re.search(r"^Ran (\d+) test", output, re.M) or [0, 0])[1])
    for name, reason in re.findall(r"^(\w+ \(.*?\)).* \.\.\. skipped ['\"](.*)['\"]$", output, re.M):
        print(f"SKIPPED ({reason}): {mode}: {name}", file=sys.stderr)
    good = process.returncode == 0 and count > 0 and status == 0
    print(f"{module} {mode}: {count} tests, {'passed' if good else 'FAILED'}", flush=True)
    if not good:
        log = pathlib.Path(folder, "broker.log").read_text()[-3000:]
        print(f"{output}\nthe broker ended with {status}:\n{log}")
    return good


def main():
    """Runs the modules that the command line names, else all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--jobs", type=int, default=JOBS, help="runs at the same time")
    parser.add_argument("modules", nargs="*")
    given = parser.parse_args()
    given.broker = os.path.abspath(given.broker)
    kinds = {"behaviour": MODES, "process": ("native",)}
    known = [f"{kind}.{file.stem}" for kind in kinds for file in sorted((HERE / kind).glob("test_*.py"))]
    if unknown := [module for module in given.modules if module not in known]:
        parser.error(f"no such module: {' '.join(unknown)}")
    runs = [
        (module, mode)
        for module in known
        if not given.modules or module in given.modules
        for mode in kinds[module.partition(".")[0]]
        if not given.mode or mode in given.mode
    ]
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda run: run_module(given, *run), runs))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
