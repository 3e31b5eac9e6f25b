"""Finds or starts `sockbroker agent`, which holds the connection to a broker of another machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time

from .errors import BrokerError
from .hints import TYPE_CHECKING
from .route import UnixRoute, connect
from .settings import UNIX, Endpoint

if TYPE_CHECKING:
    from .route import Stream

PROGRAM_VARIABLE = "SOCKBROKER_AGENT"
"""The program `sockbroker`, if it is not in `PATH`."""
_START_SECONDS = 150.0
_PAUSE = 0.01
_IDLE_SECONDS = 10
_MESSAGE_BYTES = 4096


class AgentRoute(UnixRoute):
    """Connections to the agent of an endpoint."""

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        super().__init__(endpoint)
        self._path = path

    def open(self) -> Stream:
        """A stream to the broker through the agent."""
        try:
            return connect(self._path), None
        except OSError as error:
            raise self.unreachable(error, "its agent has ended: create the socket again") from None

    def is_usable(self) -> bool:
        """Whether the agent is there."""
        return _is_served(self._path)


def find(endpoint: Endpoint, pair: str) -> AgentRoute:
    """The agent of an endpoint for this kind of pairs, which this starts if there is none. Raises `BrokerError`."""
    path = _path(endpoint, pair)
    if not _is_served(path):
        _start(endpoint, path, pair)
    return AgentRoute(endpoint, path)


def _path(endpoint: Endpoint, pair: str) -> str:
    folder = os.environ.get("XDG_RUNTIME_DIR") or ""
    if not folder:
        folder = os.path.join(tempfile.gettempdir(), f"sockbroker-{os.geteuid()}")
        os.makedirs(folder, 0o700, exist_ok=True)
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o77:
            raise BrokerError(f"cannot start the agent: {folder} is not a folder of this user alone")
    name = hashlib.sha256(f"{endpoint} {pair}".encode()).hexdigest()[:16]
    return os.path.join(folder, "sockbroker", "agents", name)


def _is_served(path: str) -> bool:
    try:
        connect(path).close()
    except OSError:
        return False
    return True


def _start(endpoint: Endpoint, path: str, pair: str) -> None:
    program = os.environ.get(PROGRAM_VARIABLE) or shutil.which("sockbroker")
    if program is None:
        raise BrokerError(
            f"cannot start the agent for the broker at {endpoint}: the program sockbroker is not in PATH; "
            f"install it, set {PROGRAM_VARIABLE}, or use mode remote"
        )
    command = [program, "agent", "--broker", str(endpoint), "--listen", path, "--idle", str(_IDLE_SECONDS)]
    if pair != UNIX:
        command += ["--pair", pair]
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages, start_new_session=True
            )
        except OSError as error:
            text = f"cannot start {program}: {error.strerror}; set {PROGRAM_VARIABLE}, or use mode remote"
            raise BrokerError(f"cannot start the agent for the broker at {endpoint}: {text}") from None
        deadline = time.monotonic() + _START_SECONDS
        while not _is_served(path):
            if process.poll() is not None or time.monotonic() > deadline:
                if _is_served(path):
                    break  # another program has started one at the same time
                process.kill()
                messages.seek(0)
                text = messages.read(_MESSAGE_BYTES).decode(errors="replace").strip()
                raise BrokerError(f"cannot start the agent for the broker at {endpoint}: {text or 'no answer'}")
            time.sleep(_PAUSE)
    process.returncode = 0  # it outlives this program: nothing waits for it
