"""A temporary copy of this machine's files, to install packages in.

It is an overlay in a new mount namespace: changes do not reach the machine. Only the commands of the test run in
it. It has no service manager, and only a loopback interface.
"""

import os
import subprocess
import tempfile
from pathlib import Path

LAYERS = """
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/whole"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/whole"
mount -t tmpfs none "$1/whole/run"
mount -t proc proc "$1/whole/proc"
mount --bind /dev "$1/whole/dev"
mkdir "$1/whole/package"
cp "$2" "$1/whole/package/"
ip link set lo up
exec chroot "$1/whole" /bin/sh -eu -c "$3"
"""


def unavailable() -> str | None:
    """Returns why this machine cannot create such a copy; None if it can."""
    if os.geteuid() != 0:
        return "not root"
    with tempfile.TemporaryDirectory() as folder:
        done = run(folder, Path("/etc/hostname"), "true")
    return None if done.returncode == 0 else f"cannot mount an overlay: {done.stderr.strip()}"


def run(folder: str, package: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script as root in a new copy, with the package in /package."""
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private",
         "sh", "-c", LAYERS, "sh", folder, package, script],
        capture_output=True, text=True, timeout=300, check=False)


def sections(package: Path, script: str) -> dict[str, list[str]]:
    """Runs a script and returns its output by section. The script starts a section with `section NAME`."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(folder, package, 'section() { echo "== $1"; }\n' + script)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout}{done.stderr}"
    parts = done.stdout.split("== ")[1:]
    return {part.splitlines()[0]: part.splitlines()[1:] for part in parts}
