"""The package's tests: what a program sees, natively and in every mode; and what happens to processes.

    run.py --broker sockbrokerd [--python INTERPRETER] [--mode MODE] [MODULE ...]

Modules of `behaviour` run four times: natively, where they have to pass too since the interpreter is the
oracle, and in each mode. Modules of `process` run once and start what they need. Skipped tests are said as
`SKIPPED (reason): test`. Exit code 0 if nothing failed.
"""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent / "src"
MODES = ("native", "direct", "mediated", "remote")
LONGEST_WAIT = 600


def start_broker(binary, folder, *options):
    """A broker of this user; its process and the path of its socket."""
    path = f"{folder}/broker.socket"
    with open(f"{folder}/broker.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([binary, "--socket", path, *options], stdin=subprocess.DEVNULL, stderr=log)
    deadline = time.monotonic() + 180
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the broker does not serve: {pathlib.Path(folder, 'broker.log').read_text()}")
        time.sleep(0.02)
    return process, path


def _is_inherited(variable):
    """Whether programs get a variable: nothing that configures them, but the mark of a run of the gate."""
    return variable == "SOCKBROKER_GATE" or not variable.startswith(("PYTHON", "SOCKBROKER"))


def run_module(given, module, mode, folder):
    """One module in a process of its own; whether it passed, and how many tests it ran."""
    broker, path = start_broker(given.broker, folder)
    environment = {key: value for key, value in os.environ.items() if _is_inherited(key)}
    environment.update(PYTHONPATH=str(PACKAGE), SOCKBROKERD=given.broker, TEST_BROKER=path, TEST_MODE=mode)
    environment.update(PYTHONDONTWRITEBYTECODE="1", TEST_BROKER_PID=str(broker.pid))
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
        status = broker.wait(30)
    count = int((re.search(r"^Ran (\d+) test", output, re.M) or [0, 0])[1])
    for name, reason in re.findall(r"^(\w+ \(.*?\)).* \.\.\. skipped ['\"](.*)['\"]$", output, re.M):
        print(f"SKIPPED ({reason}): {mode}: {name}", file=sys.stderr)
    good = process.returncode == 0 and count > 0 and status == 0
    print(f"{module} {mode}: {count} tests, {'passed' if good else 'FAILED'}")
    if not good:
        log = pathlib.Path(folder, "broker.log").read_text()[-3000:]
        print(f"{output}\nthe broker ended with {status}:\n{log}")
    return good


def main():
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("modules", nargs="*")
    given = parser.parse_args()
    given.broker = os.path.abspath(given.broker)
    good = True
    for kind, modes in (("behaviour", MODES), ("process", ("native",))):
        for file in sorted((HERE / kind).glob("test_*.py")):
            module = f"{kind}.{file.stem}"
            if given.modules and module not in given.modules:
                continue
            for mode in modes:
                if not given.mode or mode in given.mode:
                    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                        good = run_module(given, module, mode, folder) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
