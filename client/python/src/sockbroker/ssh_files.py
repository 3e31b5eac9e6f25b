"""The files of ssh: its messages, the folder of its socket, and what the user has configured for a host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator

from .control_socket import FILE, LOWEST_NUMBER

_LOG_BYTES_MAX = 4096
"""The most bytes of the messages of ssh that an error contains."""
_FOLDER_BYTES_MAX = 90
"""The path of a socket in the folder must fit into `sun_path` (unix(7))."""
_NAME_BYTES = 32
_ATTEMPTS = 8
# Other characters have a meaning for ssh.
_PLAIN = re.compile(r"/[A-Za-z0-9/._+\-]*", re.ASCII)
_FRAME = "@ \t\r\f\v"  # ssh draws frames of `@` around warnings


class Log:
    """The messages of ssh, in a file without a name.

    A program that closes all descriptors closes this one too: then the messages are lost.
    """

    def __init__(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as file:
            try:
                self._number = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, LOWEST_NUMBER)
            except OSError:
                self._number = os.dup(file.fileno())  # the limit of open files is lower
        self._file = os.fstat(self._number)[FILE]

    def _is_ours(self) -> bool:
        try:
            return os.fstat(self._number)[FILE] == self._file
        except OSError:
            return False

    @contextlib.contextmanager
    def writer(self) -> Iterator[int]:
        """A descriptor for the standard error of a process."""
        number = os.dup(self._number) if self._is_ours() else os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield number
        finally:
            os.close(number)

    def added_to(self, what: str) -> str:
        """A text, followed by the last messages."""
        messages = self.messages()
        return f"{what}: {messages}" if messages else what

    def messages(self) -> str:
        """The last messages, without what ssh draws around them, and without its own name."""
        if not self._is_ours():
            return ""
        length = os.fstat(self._number).st_size
        text = os.pread(self._number, _LOG_BYTES_MAX, max(0, length - _LOG_BYTES_MAX)).decode(errors="replace")
        lines = [line.strip(_FRAME).removeprefix("ssh: ") for line in text.split("\n")]
        return "\n".join(line for line in lines if line)

    def __del__(self) -> None:
        try:
            if self._is_ours():
                os.close(self._number)
        except Exception:  # the interpreter may have deleted what this needs
            pass


def socket_folder() -> str:
    """Creates a folder that only this user can enter, in the first suitable folder. Raises `OSError`."""
    failure: OSError = FileNotFoundError("no folder with a short and plain name")
    for parent in (os.environ.get("XDG_RUNTIME_DIR") or "", tempfile.gettempdir(), "/tmp"):
        if not _PLAIN.fullmatch(parent) or len(parent) + _NAME_BYTES > _FOLDER_BYTES_MAX:
            continue
        for _ in range(_ATTEMPTS):
            folder = os.path.join(parent, f"sockbroker-ssh-{secrets.token_hex(8)}")
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError as error:
                failure = error
            except OSError as error:
                failure = error
                break
            else:
                return folder
    raise failure


def remove_folder(folder: str) -> None:
    """Removes the folder. Best effort: ssh has it open no longer."""
    shutil.rmtree(folder, ignore_errors=True)


def configuration(host: str) -> str | None:
    """The file with options of ssh for a host, if the user has one."""
    place = os.environ.get("XDG_CONFIG_HOME") or ""
    if not os.path.isabs(place):
        home = os.environ.get("HOME") or ""
        if not os.path.isabs(home):
            return None
        place = os.path.join(home, ".config")
    file = os.path.join(place, "sockbroker", host, "ssh_config")
    return file if os.path.isfile(file) else None
