"""Runs scenarios twice and compares the transcripts."""

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import time
import traceback

from . import scenario as registry
from .brokered import BrokeredSocketModule
from .native import NativeModule
from .scenario import Transcript

DEADLINE = 300
"""The time limit of a scenario on one side, in seconds."""
SETTLE = 60.0
"""The time limit for descriptors to close after a scenario, in seconds."""


class Deadline(BaseException):
    """The time limit of a scenario has passed. Not an `Exception`, so that no scenario records it."""


class Side:
    """The result of a scenario on one side."""

    def __init__(self):
        self.lines = []
        self.problems = []


class Verdict:
    """`equal`, `different`, `gap` or `skipped`, with details."""

    def __init__(self, name, word, text="", native=()):
        self.name, self.word, self.text, self.native = name, word, text, native


class Judge:
    """Compares CPython with a broker, or with the module that `second` creates."""

    def __init__(self, daemon, offers, gaps, second=None):
        self._daemon, self._offers, self._gaps = daemon, offers, gaps
        self._second = second or self._brokered
        self._carries = None
        self._folder = tempfile.mkdtemp(prefix="cmp-", dir="/tmp")
        os.chmod(self._folder, 0o755)

    def close(self):
        """Removes the scenarios' folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def judge(self, found, settle=SETTLE):
        """Returns the verdict on one scenario. Waits at most `settle` seconds until its descriptors are closed."""
        missing = registry.applies(found, self._offers, self._carries_descriptors())
        if missing:
            return Verdict(found.name, "skipped", f"needs {missing}")
        before = _descriptors()
        native = self._side(found, self._native)
        brokered = self._side(found, self._second)
        problems = [f"native: {problem}" for problem in native.problems]
        problems += [f"brokered: {problem}" for problem in brokered.problems]
        if not native.lines:
            problems.append("the transcript is empty: nothing is compared")
        leaked = _settled_descriptors(before, within=settle) - before
        if leaked > 0:
            problems.append(f"{leaked} descriptors of this process were left open")
        verdict = self._verdict(found, native, brokered, problems)
        verdict.native = native.lines
        return verdict

    def _verdict(self, found, native, brokered, problems):
        same = native.lines == brokered.lines
        text = "" if same else _difference(native.lines, brokered.lines)
        if problems:
            return Verdict(found.name, "different", "\n".join([*problems, text]).strip())
        if found.name in self._gaps:
            if same:
                return Verdict(found.name, "different", "is listed in gaps.toml, but no longer differs")
            return Verdict(found.name, "gap", self._gaps[found.name])
        return Verdict(found.name, "equal" if same else "different", text)

    def _carries_descriptors(self):
        if self._carries is None:
            session = self._daemon.session() if self._daemon else None
            self._carries = session is None or session.carries_descriptors
            if session:
                session.end()
        return self._carries

    def _side(self, found, make):
        side = Side()
        folder = os.path.join(self._folder, "x")
        os.mkdir(folder)
        try:
            with make(side) as module:
                self._play(found, module, side, folder)
        except Exception as error:
            side.problems.append(f"the module could not be made or ended: {error!r}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            registry.reset_native()
            gc.collect()
        return side

    def _play(self, found, module, side, folder):
        transcript = Transcript(module, folder)
        try:
            with _deadline(DEADLINE):
                try:
                    found.function(module, transcript)
                finally:
                    waiting = transcript.clean_up()
            if waiting:
                side.problems.append(f"calls still wait: {', '.join(waiting)}")
        except Deadline:
            transcript.lines.append(("deadline", f"over {DEADLINE} s"))
            side.problems.append(f"took more than {DEADLINE} s")
        except Exception as error:
            transcript.lines.append(("aborted", transcript.failure(error)))
            place = traceback.extract_tb(error.__traceback__)
            rows = [f"{row.name}:{row.lineno}" for row in place if "scenarios" in row.filename]
            side.problems.append(f"aborted at {' < '.join(reversed(rows))}: {error!r}")
        side.lines = transcript.lines

    @contextlib.contextmanager
    def _native(self, _side):
        yield NativeModule()

    @contextlib.contextmanager
    def _brokered(self, side):
        session = self._daemon.session()
        yield BrokeredSocketModule(session)
        if session.calls == 0:
            side.problems.append("no call reached the broker")
        left = session.end()
        if left:
            side.problems.append(f"{left} handles were left open")


def native_again(_side):
    """Creates a second run on CPython, for the self-test: every scenario must give the same transcript twice."""
    return contextlib.nullcontext(NativeModule())


@contextlib.contextmanager
def _deadline(seconds):
    def over(*_):
        raise Deadline

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _descriptors(process="self"):
    return len(os.listdir(f"/proc/{process}/fd"))


def _settled_descriptors(wanted, process="self", within=SETTLE):
    """Returns the number of open descriptors. Waits at most `within` seconds until it is at most the wanted number."""
    deadline = time.monotonic() + within
    while (number := _descriptors(process)) > wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return number


class BrokerWatch:
    """Checks whether the broker has more descriptors at the end than after its first session."""

    def __init__(self, daemon):
        self._process = daemon.process.pid
        daemon.session().end()
        time.sleep(0.05)
        self._before = _descriptors(self._process)

    def leaked(self):
        """Returns how many more it has now."""
        return max(0, _settled_descriptors(self._before, self._process, 3.0) - self._before)


def _difference(native, brokered):
    rows = []
    for index in range(max(len(native), len(brokered))):
        left = native[index] if index < len(native) else "(nothing)"
        right = brokered[index] if index < len(brokered) else "(nothing)"
        if left != right:
            rows.append(f"line {index + 1}\n  native:   {left}\n  brokered: {right}")
    return "\n".join(rows)
