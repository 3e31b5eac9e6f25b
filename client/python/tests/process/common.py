"""Starts brokers and programs for tests."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap

from run import inherited_environment, start_and_wait

BROKER = os.environ["SOCKBROKERD"]
PACKAGE = str(pathlib.Path(__file__).resolve().parents[2] / "src")
SECONDS = 180


class Broker:
    """A broker with a folder that every user can enter."""

    def __init__(self, *options, policy=None, prefix=()):
        self.folder = tempfile.mkdtemp(prefix="sockbroker-")
        os.chmod(self.folder, 0o755)
        self.path = f"{self.folder}/socket"
        if policy is not None:
            file = pathlib.Path(self.folder, "policy.toml")
            file.write_text(policy)
            options = (*options, "--policy", str(file))
        if "--config" not in options and os.geteuid() != 0:
            # Without root, the kernel shows the open files of a worker only if it can be traced.
            file = pathlib.Path(self.folder, "config.toml")
            file.write_text("[confine]\ntracing = true\n")
            options = (*options, "--config", str(file))
        self._command = [*prefix, BROKER, "--socket", self.path, *options]
        self.start()

    def start(self):
        """Starts or restarts the broker."""
        self.process = start_and_wait(self._command, self.path, pathlib.Path(self.folder, "log"))
        os.chmod(self.path, 0o666)

    def copy_package(self):
        """Copies the package to a folder that every user can read. Returns the folder."""
        package = f"{self.folder}/package"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        return package

    def kill(self):
        """Kills the broker, and removes its socket."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def stop(self):
        """Stops the broker, and removes its folder."""
        self.process.terminate()
        self.process.wait(SECONDS)
        subprocess.run(["rm", "-rf", self.folder], check=True)


def environment(**more):
    """The environment of a program, with these variables added."""
    return {**inherited_environment(), "PYTHONPATH": PACKAGE, "PYTHONDONTWRITEBYTECODE": "1", **more}


def program(broker, *arguments, mode=None, prefix=(), python=None, **more):
    """Runs `python -m sockbroker` with these arguments. Returns the completed process."""
    command = [*prefix, python or sys.executable, "-m", "sockbroker"]
    command += ["--mode", mode] if mode else []
    command += ["--broker", broker] if broker else []
    return subprocess.run(
        [*command, *arguments], env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, cwd="/",
    )  # fmt: skip


def code(text):
    """The arguments that run this text."""
    return ["-c", textwrap.dedent(text)]
