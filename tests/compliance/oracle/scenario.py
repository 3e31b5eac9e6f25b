"""Scenarios and their transcripts.

A scenario is `def name(s, t)`: `s` is the module under test, `t` records what happened. It runs twice,
with CPython's module and with the broker's, and both transcripts must be equal.
"""

import enum
import hashlib
import os
import socket
import sys
import threading

_REGISTRY = {}
_EPHEMERAL = range(32768, 65536)
_JOIN = 180  # time limit of a background call, in seconds


class Scenario:
    """A registered scenario."""

    def __init__(self, function, needs, python, descriptors):
        self.theme = function.__module__.rsplit(".", 1)[1]
        self.name = f"{self.theme}.{function.__name__}"
        self.function = function
        self.needs = frozenset(needs)
        self.python = python
        self.descriptors = descriptors
        if not (function.__doc__ or "").strip():
            raise SystemExit(f"{self.name} has no docstring: describe what it shows")
        if self.name in _REGISTRY:
            raise SystemExit(f"{self.name} is there twice")


def scenario(function=None, *, needs=(), python=(3, 11), descriptors=False):
    """Registers a scenario.

    `needs` names what the machine must offer (see `world.py`), `python` the first version whose answers
    are the ones wanted, `descriptors` that the control connection must carry descriptors.
    """
    def register(function):
        made = Scenario(function, needs, python, descriptors)
        _REGISTRY[made.name] = made
        return function
    return register if function is None else register(function)


def scenarios(theme):
    """The scenarios of a theme, in the order of its file."""
    return [found for found in _REGISTRY.values() if found.theme == theme]


class Transcript:
    """The transcript of a scenario, and the resources to clean up."""

    def __init__(self, module, folder):
        self.lines = []
        self.folder = folder
        self._module = module
        self._ports = {}
        self._kept = []
        self._tasks = []

    # Recording.

    def note(self, label, value):
        """Records a value and returns it."""
        self.lines.append((label, self.normal(value)))
        return value

    def call(self, label, function, *args, **kwargs):
        """Records the result or the exception of a call; returns `None` for an exception."""
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            self.lines.append((label, self.failure(error)))
            return None
        return self.note(label, value)

    def failure(self, error):
        """An exception: its type and errno; messages are not compared."""
        name = type(error).__name__
        if isinstance(error, BaseExceptionGroup):
            return ("raises", name, [self.failure(inner) for inner in error.exceptions])
        return ("raises", name, getattr(error, "errno", None))

    def normal(self, value):
        """Returns the value without parts that can differ between runs."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            raw = bytes(value)
            return raw if len(raw) <= 200 else ("bytes", len(raw), hashlib.sha256(raw).hexdigest()[:16])
        if isinstance(value, enum.IntEnum):
            return int(value)
        if isinstance(value, tuple):
            items = tuple(self.normal(item) for item in value)
            return self._address(items) if len(items) in (2, 4) else items
        if isinstance(value, (list, set, frozenset)):
            return [self.normal(item) for item in value]
        if isinstance(value, dict):
            return {key: self.normal(item) for key, item in value.items()}
        if isinstance(value, Exception):
            return self.failure(value)
        if hasattr(value, "getsockname"):
            return ("socket", int(value.family), int(value.type), value.proto)
        return value

    def _address(self, items):
        """Ports that the kernel chose are numbered in the order of their appearance."""
        if isinstance(items[0], str) and type(items[1]) is int and items[1] in _EPHEMERAL:
            return (items[0], self.port(items[1]), *items[2:])
        return items

    def port(self, number):
        """The name of a port that the kernel chose."""
        return "port#" + str(self._ports.setdefault(number, len(self._ports) + 1))

    @staticmethod
    def own(number):
        """Returns whether an identity is unset (0) or that of the process that created the socket."""
        return number if number == 0 else "set"

    # Resources that are cleaned up.

    def keep(self, made):
        """Closes it when the scenario ends."""
        self._kept.append(made)
        return made

    def socket(self, *args, **kwargs):
        """A new socket of the module under test, which is closed at the end."""
        return self.keep(self._module.socket(*args, **kwargs))

    def path(self, name):
        """A path in a folder of this scenario alone."""
        return os.path.join(self.folder, name)

    def abstract(self, name):
        """A name in the abstract namespace that no other run uses."""
        return f"\0compliance-{os.getpid()}-{name}".encode()

    def start(self, function, *args, **kwargs):
        """Runs a call in a new thread."""
        task = Task(function, args, kwargs)
        self._tasks.append(task)
        return task

    def finish(self, label, task):
        """Waits for a background call and records its result or exception."""
        return self.call(label, task.outcome)

    def clean_up(self):
        """Closes the resources; returns the names of calls that still run."""
        for made in reversed(self._kept):
            try:
                made.close()
            except OSError:
                pass
        self._kept.clear()
        return [task.name for task in self._tasks if not task.ended(1)]


class Task:
    """A call in a thread."""

    def __init__(self, function, args, kwargs):
        self.name = getattr(function, "__name__", "call")
        self._value = self._error = None
        self._thread = threading.Thread(target=self._run, args=(function, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, function, args, kwargs):
        try:
            self._value = function(*args, **kwargs)
        except Exception as error:
            self._error = error

    def ended(self, within=0.0):
        """Whether the call has returned."""
        self._thread.join(within)
        return not self._thread.is_alive()

    def outcome(self):
        """The call's result, or its exception."""
        if not self.ended(_JOIN):
            raise RuntimeError(f"{self.name} still waits after {_JOIN} seconds")
        if self._error is not None:
            raise self._error
        return self._value


def applies(found, offers, carries_descriptors):
    """Returns why a scenario cannot run here, or `None`."""
    if sys.version_info < found.python:
        return "python " + ".".join(map(str, found.python))
    if found.descriptors and not carries_descriptors:
        return "a transport that carries descriptors"
    missing = sorted(found.needs - offers)
    return ", ".join(missing) if missing else None


def reset_native():
    """Restores process-wide state that a scenario can change."""
    socket.setdefaulttimeout(None)
