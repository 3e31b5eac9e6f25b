"""Brokers and programs for tests that start them."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time

BROKER = os.environ["SOCKBROKERD"]
PACKAGE = str(pathlib.Path(__file__).resolve().parents[2] / "src")
SECONDS = 180


class Broker:
    """A broker in a folder that everybody may enter."""

    def __init__(self, *options, policy=None, prefix=()):
        self.folder = tempfile.mkdtemp(prefix="sockbroker-")
        os.chmod(self.folder, 0o755)
        self.path = f"{self.folder}/socket"
        if policy is not None:
            file = pathlib.Path(self.folder, "policy.toml")
            file.write_text(policy)
            options = (*options, "--policy", str(file))
        self.log = open(f"{self.folder}/log", "w+", encoding="utf-8")
        self._command = [*prefix, BROKER, "--socket", self.path, *options]
        self.start()

    def start(self):
        """Starts it, or starts it again."""
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + SECONDS
        while not os.path.exists(self.path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise AssertionError(f"the broker does not serve: {self.log.read()}")
            time.sleep(0.02)
        os.chmod(self.path, 0o666)

    def copy_package(self):
        """Puts the package where any user can read it; the folder."""
        package = f"{self.folder}/package"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        return package

    def descriptors(self):
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def kill(self):
        """Ends it without a farewell."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def stop(self):
        """Ends it and takes the folder away."""
        self.process.terminate()
        self.process.wait(SECONDS)
        self.log.close()
        subprocess.run(["rm", "-rf", self.folder], check=True)


def _is_inherited(variable):
    """Whether programs get a variable: nothing that configures them, but the mark of a run of the gate."""
    return variable == "SOCKBROKER_GATE" or not variable.startswith(("PYTHON", "SOCKBROKER", "TEST_"))


def environment(**more):
    """Without anything of the test's own."""
    kept = {key: value for key, value in os.environ.items() if _is_inherited(key)}
    return {**kept, "PYTHONPATH": PACKAGE, "PYTHONDONTWRITEBYTECODE": "1", **more}


def program(broker, *arguments, mode=None, prefix=(), python=None, **more):
    """Runs `python -m sockbroker` with these arguments; what became of it."""
    command = [*prefix, python or sys.executable, "-m", "sockbroker"]
    command += ["--mode", mode] if mode else []
    command += ["--broker", broker] if broker else []
    return subprocess.run(
        [*command, *arguments], env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, cwd="/",
    )  # fmt: skip


def code(text):
    """Arguments that run this text."""
    return ["-c", textwrap.dedent(text)]
