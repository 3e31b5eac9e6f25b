"""Runs the examples of the tutorial in the namespaces that `run` has made. The argument is the folder that it prepared."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "deploy/doc/from-tcpdump.md"
FOLDER = pathlib.Path(sys.argv[1])
NOBODY, SERVICE, CAPTURE, NETOPS = 65534, 4200, 4202, 4203
LONGEST_WAIT = 120
GROUPS = {"sh": CAPTURE, "python": CAPTURE, "pytest": CAPTURE, "netops": NETOPS}
EXPECTED = {"sh": 3, "python": 2, "pytest": 1, "netops": 2, "root": 1, "toml": 1, "": 1}
"""How many examples of each kind the tutorial has: a block of another kind would not run."""
TRAFFIC = """
import socket, subprocess, sys, time
command = [sys.argv[1], "--private", "ping", "-i", "0.05", "192.0.2.2"]
ping = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    while True:
        for port in (67, 53, 9):
            sock.sendto(b"traffic", ("192.0.2.2", port))
        time.sleep(0.02)
"""
"""Sends datagrams to several ports, and echo requests, until it is killed."""


def blocks():
    """The examples: pairs of a kind and a text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", TUTORIAL.read_text(), re.M | re.S)


def run(kind, text, work):
    """Runs an example. Returns what it printed. Fails if a command fails."""
    variables = {
        "PATH": f"{FOLDER}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SOCKBROKER": f"unix:{FOLDER}/socket", "HOME": str(work),
        "PYTHONPATH": f"{FOLDER}/lib", "PYTHONDONTWRITEBYTECODE": "1", "WIRESHARK_QUIT_AFTER_CAPTURE": "",
    }  # fmt: skip
    commands = {
        "python": ["/usr/bin/python3", "-W", "error", "-c", text],
        "pytest": ["/usr/bin/python3", "-m", "pytest", "-q", "-rs", "-p", "sockbroker.pytest_plugin", "test_it.py"],
    }
    command = commands.get(kind, ["bash", "-euo", "pipefail", "-c", text])
    if kind == "pytest":
        (work / "test_it.py").write_text(text)
    if kind in GROUPS:
        groups = f"--groups={SERVICE},{GROUPS[kind]}"
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", groups, "--inh-caps=-all", "--bounding-set=-all"]
        command = ["setpriv", *ids, "--", *command]
    done = subprocess.run(
        command, env=variables, cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=LONGEST_WAIT,
    )  # fmt: skip
    assert done.returncode == 0, f"{kind} example ended with {done.returncode}:\n{text}\nIt printed:\n{done.stdout}"
    return done.stdout


def start_broker():
    """Starts the broker with the shipped policy, the role, and the rules of the tutorial."""
    command = [FOLDER / "bin/sockbrokerd", "--socket", FOLDER / "socket", "--policy", FOLDER / "policy.toml"]
    with open(FOLDER / "log", "wb") as log:
        broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    with socket.socket(socket.AF_UNIX) as connection:
        while connection.connect_ex(str(FOLDER / "socket")) != 0:
            assert broker.poll() is None, (FOLDER / "log").read_text()
            time.sleep(0.02)
    os.chown(FOLDER / "socket", -1, SERVICE)
    os.chmod(FOLDER / "socket", 0o660)
    return broker


def check(kind, text, printed):
    """Checks what an example printed, beyond its success."""
    expected = {
        "sniff -D": ["eth0", "lo", "packets captured"], "-r trace.pcapng": ["192.0.2.2"], "-w - udp": ["UDP", "5 "],
        "capture.expect": ["eth0", "CaptureStats(seen=1, captured=1, dropped=0"], "scapy": ["9000"],
        "dhcp.pcapng": ["3 packets captured", "192.0.2.2:67"], "! sockbroker": ["interface = [\"lo\"]"],
        "curl": ["sockbroker_captures 0", "sockbroker_captured_packets_total"],
    }  # fmt: skip
    found = [words for part, words in expected.items() if part in text]
    if kind == "pytest":
        found = [["1 passed"]]
    assert found, f"nothing is known of this example:\n{text}"
    for words in found:
        for word in words:
            assert word in printed, f"{word!r} is not in what the example printed:\n{text}\n{printed}"
    if "dhcp" in text:
        others = [line for line in printed.splitlines() if " > 192.0.2." in line and not line.partition(" UDP ")[0].endswith(":67")]
        assert not others, f"packets that the rule excludes: {others}"


def main():
    """Runs all examples in their order."""
    examples = blocks()
    counts = {kind: sum(kind == other for other, _ in examples) for kind, _ in examples}
    assert counts == EXPECTED, f"the tutorial has {counts}"
    for kind, text in examples:
        if kind == "toml":
            (FOLDER / "policy.d/dhcp.toml").write_text(text)
        if kind == "":  # of systemd: the test of the service runs the same lines of the manual page
            page = (ROOT / "deploy/man/sockbrokerd.8").read_text().replace("\\e\n    ", "")
            for line in text.splitlines():
                assert f"\n# {line}\n" in page, f"{line!r} is not in sockbrokerd(8)"
    work = FOLDER / "work"
    work.mkdir()
    os.chown(work, NOBODY, NOBODY)
    broker = start_broker()
    command = [sys.executable, "-c", TRAFFIC, FOLDER / "bin/sockbroker"]
    traffic = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        for kind, text in examples:
            if kind in ("toml", ""):
                continue
            printed = run(kind, text, work)
            check(kind, text, printed)
        print(f"{len(examples)} examples of the tutorial work")
    finally:
        os.killpg(traffic.pid, signal.SIGKILL)
        traffic.wait()
        broker.terminate()
        broker.wait(LONGEST_WAIT)


main()
