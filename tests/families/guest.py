"""The program of the guest:  guest.py SETTING PART... Prints one line for each case, and a last line with the counts.

A part is a theme of scenarios, `cpython` for CPython's own tests, `captures` for the rings of the kernel, or
`recovery` for persistent sockets.

The setting `root` is a broker of root and a client of root. In the setting `service` the broker is a user of
its own with one capability and a policy, as the service is, and the client another user with none.
"""

import errno
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import judge
import without_descriptor
from broker import Broker

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = pathlib.Path("/run/sockbroker")
BROKER_USER, CLIENT_USER = 990, 65534
CAPABILITIES = "net_raw"
CLASSES = "CAN|ISOTP|J1939|BasicRDS|QIPCRTR|VSOCK|Bluetooth|SCTP|TIPC|CryptoAPI"
"""Classes of CPython's tests, without RDSTest, which sometimes hangs natively, and without families of every kernel."""
LONGEST_WAIT = 180
TRIES = 3
CLIENTS = {"root": ("contract",), "service": ("contract", "mediated", "direct", "remote")}
MODES = ("mediated", "direct", "remote")


CONTROLLERS = 2
# ioctl requests of net/bluetooth/hci_sock.h.
HCIDEVUP, HCISETSCAN, SCAN_PAGE = 0x400448C9, 0x400448DD, 2


def as_user(user, capabilities=""):
    """Returns the prefix of a command that runs as another user with only these capabilities."""
    chosen = "-all" + "".join(f",+{name}" for name in capabilities.split())
    return [
        "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
        f"--inh-caps={chosen}", f"--ambient-caps={chosen}", f"--bounding-set={chosen}",
    ]  # fmt: skip


def broker_for(setting):
    """Starts a broker for one run."""
    command, owner = ["sockbrokerd"], 0
    if setting == "service":
        owner = BROKER_USER
        command = [*as_user(owner, CAPABILITIES), *command, "--policy", f"{HERE}/policy.toml"]
    FOLDER.mkdir(exist_ok=True)
    os.chown(FOLDER, owner, owner)
    return Broker(command, f"{FOLDER}/socket", "/tmp/broker.log")


class Counts:
    """Counts passed and failed cases."""

    def __init__(self):
        self.passed = self.failed = 0

    def say(self, good, text):
        """Counts a case and prints its line."""
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        print(f"{'ok' if good else 'FAILED'}: {text}", flush=True)


def program(setting, *words):
    """Returns a command of the client."""
    prefix = as_user(CLIENT_USER) if setting == "service" else []
    return [*prefix, "python3", *map(str, words)]


def run(command):
    """Runs a command of the client to its end, and returns its status and output."""
    environment = {**os.environ, "PYTHONPATH": "/package", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace", env=environment, cwd="/tmp", start_new_session=True)
    try:
        output, _ = process.communicate(timeout=LONGEST_WAIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\nnothing after {LONGEST_WAIT} s"
    return process.returncode, output


def with_broker(setting, counts, name, use):
    """Runs a function with a new broker, and checks how the broker ended."""
    broker = broker_for(setting)
    use(broker)
    calls, wrong = broker.stop()
    enough = calls > 0 or "direct" in name
    counts.say(enough and not wrong, f"{name}: the broker served {calls} calls and ended well")
    for line in wrong:
        print(line)


def scenarios(setting, client, counts, themes):
    """Runs the scenarios with one client."""
    def use(broker):
        command = program(setting, HERE / "compare.py", "--broker", broker.path, "--client", client, *themes)
        status, output = run(command)
        found = re.findall(r"^(equal|different|skipped): (.*)((?:\n(?!equal: |different: |skipped: ).*)*)", output, re.M)
        for word, name, text in found:
            counts.say(word == "equal", f"{setting}, {name}{text if word != 'equal' else ''}")
        if not found or status not in (0, 1) or status != any(word != "equal" for word, _, _ in found):
            counts.say(False, f"{setting}, {client}: compare.py ended with {status}\n{output[-4000:]}")

    with_broker(setting, counts, f"{setting}, {client}, scenarios", use)


def suite(setting, prefix=(), only=()):
    """Runs CPython's tests of these families, or some of them, and returns their outcomes."""
    out = "/tmp/outcomes.json"
    pathlib.Path(out).unlink(missing_ok=True)
    chosen = [word for name in only for word in ("--only", name)]
    words = [*prefix, HERE / "suite.py", "--out", out, "--matching", CLASSES, *chosen, "test_socket"]
    status, output = run(program(setting, *words))
    if status != 0:
        raise SystemExit(f"CPython's tests ended with {status}:\n{output[-4000:]}")
    return json.loads(pathlib.Path(out).read_text(encoding="utf-8"))


def cpython(setting, counts):
    """Runs CPython's tests natively, then in each mode: a test that passes natively must pass."""
    native = suite(setting)
    passed, every = judge.passed(native), len(native["outcomes"])
    counts.say(len(passed) >= 80, f"{setting}, CPython's tests natively: {len(passed)} of {every} passed")
    for mode in MODES:
        def use(broker):
            prefix = ("-m", "sockbroker", "--mode", mode, "--broker", broker.path)
            brokered = suite(setting, prefix)
            for _ in range(TRIES):
                if again := judge.is_flaky(native, brokered):
                    brokered["outcomes"].update(suite(setting, prefix, again)["outcomes"])
            excused = without_descriptor.REASONS if mode == "remote" else {}
            faults = judge.faults(native, brokered, [name for name in excused if name in native["outcomes"]])
            for name in sorted(passed):
                if name not in excused:
                    mine = [fault for fault in faults if fault.startswith(f"{name}:")]
                    counts.say(not mine, f"{setting}, {mode} {name.removeprefix('test.test_socket.')}")
            for fault in faults:
                print(fault, flush=True)

        with_broker(setting, counts, f"{setting}, {mode}, CPython's tests", use)


def captures(setting, counts):
    """Captures in each mode. Only the setting root may."""
    def use(broker):
        status, output = run(program(setting, HERE / "captures.py", broker.path))
        found = re.findall(r"^captured: .*$", output, re.M)
        for line in found:
            counts.say(True, f"{setting}, {line}")
        if status != 0 or len(found) != 2:
            counts.say(False, f"{setting}, captures.py ended with {status}\n{output[-4000:]}")

    with_broker(setting, counts, f"{setting}, captures", use)


def recovery(setting, counts):
    """Persistent sockets over the end of their worker and of the service. Only the setting root may."""
    status, output = run(program(setting, HERE / "recovery.py", "/usr/bin/sockbrokerd"))
    found = re.findall(r"^(recovered: (\d+) of (\d+) .*)$", output, re.M)
    for line, count, whole in found:
        counts.say(count == whole, f"{setting}, {line}")
    if status != 0 or len(found) != 2:
        counts.say(False, f"{setting}, recovery.py ended with {status}\n{output[-4000:]}")


def start_controllers():
    """Starts two emulated Bluetooth controllers that can reach each other."""
    emulator = subprocess.Popen(["btvirt", f"-l{CONTROLLERS}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with socket.socket(socket.AF_BLUETOOTH, socket.SOCK_RAW, socket.BTPROTO_HCI) as sock:
        for number in range(CONTROLLERS):
            retried(lambda: switch_on(sock, number))
            retried(lambda: fcntl.ioctl(sock, HCISETSCAN, struct.pack("HxxI", number, SCAN_PAGE)))
    return emulator


def switch_on(sock, number):
    """Enables a controller. The kernel can enable it itself to identify it."""
    try:
        fcntl.ioctl(sock, HCIDEVUP, number)
    except OSError as error:
        if error.errno != errno.EALREADY:
            raise


def retried(call, within=120):
    """Repeats a call until it succeeds, with a time limit."""
    deadline = time.monotonic() + within
    while True:
        try:
            return call()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main():
    """Runs a setting and returns the exit status."""
    setting, *parts = sys.argv[1:]
    counts = Counts()
    start_controllers()
    themes = [part for part in parts if part not in ("captures", "cpython", "recovery")]
    for client in CLIENTS[setting] if themes else ():
        scenarios(setting, client, counts, themes)
    if "cpython" in parts:
        cpython(setting, counts)
    if "captures" in parts:
        captures(setting, counts)
    if "recovery" in parts:
        recovery(setting, counts)
    verdict = "FAILED" if counts.failed else "ok"
    print(f"test result: {verdict}. {counts.passed} passed; {counts.failed} failed; 0 ignored", flush=True)
    return 1 if counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
