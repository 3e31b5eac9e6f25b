"""Reaching a broker through ssh: by a forwarded socket, or else by a program on the other host.

A forwarded socket serves any number of connections over one connection of ssh. They are not sessions of sshd
(`MaxSessions`). The user of the login connects to the broker. Where sshd forbids to forward sockets,
`sockbroker dial-stdio` carries one connection.
"""

from __future__ import annotations

import os
import re
import select as _select
import subprocess
import time
from collections.abc import Sequence

from . import native
from .control_socket import ControlSocket, with_high_number
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any
from .route import Route, connect
from .settings import Endpoint
from .ssh_files import Log, configuration, remove_folder, socket_folder
from .ssh_target import DEFAULT_PATH, SshTarget

if TYPE_CHECKING:
    from .route import Stream

_LOGIN_SECONDS, _LOGIN_SECONDS_INTERACTIVE = 45.0, 150.0
"""How long ssh may take to log in, without and with a person who answers its questions."""
_ANSWER_SECONDS = 30.0
_RETRY_MILLISECONDS = 5
_PROBE = b'{"jsonrpc":"2.0","id":1,"method":"socket.htons","params":[1]}\n'
"""A request that every broker answers."""
_ADVICE = "check the name, the key and the broker there"
_PROGRAM_MISSING = re.compile(r"sockbroker: .*not found\s*$|command not found: sockbroker", re.MULTILINE)
"""The message of a shell on the other host."""
_poll = _select.poll

# It runs in the background of a shell that exits at once, so that it is not a child of the program, which can wait for
# its own. It ends ssh once standard input ends: when the program closes its end of the socket, or is killed. At SIGTERM,
# ssh ends the program of `ProxyCommand`. It can notice a SIGTERM that comes just before it waits as late as
# `ServerAliveInterval`: further ones follow, and SIGKILL at last. Ctrl-C reaches the program alone. The standard output
# of the script is standard input and output of ssh.
_SCRIPT = """\
exec 3<&0 4>&1 >/dev/null
folder=$1
shift
{
trap '' INT QUIT
ssh "$@" <&4 >&4 3<&- 4>&- &
ssh=$!
exec 4>&-
trap '' HUP TERM
{ read -r line <&3; for _ in 1 2 3 4 5; do kill $ssh; sleep 1 3<&-; done; kill -9 $ssh; } 2>/dev/null &
watcher=$!
wait $ssh
kill -9 $watcher
[ -z "$folder" ] || rm -rf -- "$folder"
} &"""


class _Life:
    """The running script. It ends with the last process that has this object."""

    def __init__(self, socket: ControlSocket) -> None:
        self._socket = socket

    def is_ours(self) -> bool:
        """Whether the program has left the descriptor alone."""
        return self._socket.is_ours()

    def has_ended(self, milliseconds: int) -> bool:
        """Waits for the end of the script."""
        poll = _poll()
        poll.register(self._socket.fileno(), _select.POLLIN)
        return bool(poll.poll(milliseconds))

    def kill(self) -> None:
        """Ends the script, unless another process has it too."""
        self._socket.close()

    def wait(self) -> None:
        """Nothing: the script is not a child of this process."""


class _SshRoute(Route):
    """A way through ssh, by the keys of the present user."""

    answer_seconds = _ANSWER_SECONDS

    def __init__(self, endpoint: Endpoint, target: SshTarget) -> None:
        super().__init__(endpoint)
        self._user = os.geteuid()
        self._target = target
        self._log = Log()

    def is_usable(self) -> bool:
        return os.geteuid() == self._user

    def _start(self, folder: str, stream: Any, options: Sequence[str], last: Sequence[str]) -> _Life:
        """Starts ssh with these arguments and this stream. The folder is removed at the end."""
        ours, theirs = native.module.socketpair()
        command = ["/bin/sh", "-c", _SCRIPT, "sh", folder, *_common_options(self._target), *options, "--"]
        command += [self._target.destination, *last]
        try:
            with self._log.writer() as log:
                subprocess.Popen(command, stdin=theirs, stdout=stream, stderr=log).wait()
        except OSError as error:
            ours.close()
            raise self._failure(f"cannot start ssh: {error}") from None
        finally:
            theirs.close()
        return _Life(with_high_number(ours))

    def _failure(self, what: str) -> BrokerError:
        reason = self._log.added_to(what)
        # Nobody can confirm the key in `BatchMode`. One that has changed must not be confirmed without a look at it.
        if "Host key verification failed" in reason and "HAS CHANGED" not in reason:
            reason += f"\nto add an unknown key, run `{_login_command(self._target)}` once, and confirm it"
        return BrokerError(f"cannot connect to the broker at {self.endpoint}: {reason}; {_ADVICE}")


class Forward(_SshRoute):
    """The running ssh that forwards the socket. It ends with the last process that has this object."""

    def __init__(self, endpoint: Endpoint, target: SshTarget) -> None:
        """Starts ssh. Raises `BrokerError`."""
        super().__init__(endpoint, target)
        try:
            folder = socket_folder()
        except OSError as error:
            raise self._failure(f"cannot create a folder for its socket: {error}") from None
        self._folder, self._path = folder, f"{folder}/socket"
        options = ["-nN", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"]
        options += ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
        options += ["-L", f"{self._path}:{target.path or DEFAULT_PATH}"]
        try:
            self._life = self._start(folder, subprocess.DEVNULL, options, [])
        except BaseException:
            remove_folder(folder)
            raise

    def open(self) -> Stream:
        try:
            return connect(self._path), None
        except OSError as error:
            raise self._failure(error.strerror or str(error)) from None

    def is_usable(self) -> bool:
        """Whether ssh still runs."""
        if not super().is_usable() or not self._life.is_ours():
            return False
        try:
            connect(self._path).close()
        except OSError:
            return False
        return True

    def explanation(self) -> str:
        if self.is_usable():
            return ""
        return self._log.added_to(f"ssh to {self._target.host} has ended")

    def reaches_a_broker(self) -> bool:
        """Waits until ssh has logged in. Returns whether a broker answers, and not ssh closes the connection."""
        stream = self._first_stream()
        try:
            stream.settimeout(_ANSWER_SECONDS)
            try:
                stream.sendall(_PROBE)
                return bool(stream.recv(1))
            except (ConnectionResetError, BrokenPipeError):
                return False
            except OSError as error:
                raise self._failure(f"the broker does not answer: {error}") from None
        finally:
            stream.close()

    def _first_stream(self) -> ControlSocket:
        deadline = time.monotonic() + (_LOGIN_SECONDS_INTERACTIVE if _is_interactive() else _LOGIN_SECONDS)
        while time.monotonic() < deadline:
            try:
                return connect(self._path)
            except OSError:
                pass
            if self._life.has_ended(_RETRY_MILLISECONDS):
                remove_folder(self._folder)  # the script cannot if it does not find rm(1)
                raise self._failure("ssh failed")
        raise self._failure("ssh does not log in in time")


class Program(_SshRoute):
    """One running ssh for each connection, whose standard input and output lead to the broker."""

    is_single = True
    has_preamble = True
    answer_seconds = _LOGIN_SECONDS

    def open(self) -> Stream:
        path = ["--socket", self._target.path] if self._target.path else []
        ours, theirs = native.module.socketpair()
        try:
            life = self._start("", theirs, [], ["sockbroker", "dial-stdio", *path])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return with_high_number(ours), life

    def explanation(self) -> str:
        what = f"no broker answers at {self._target.path or DEFAULT_PATH} on {self._target.host}"
        if _PROGRAM_MISSING.search(self._log.messages()):
            # sshd does not report why it does not forward. It permits it unless it is configured otherwise.
            return (
                f"{what}: probably none runs there, or its socket has another path (ssh://HOST/PATH); if it does run "
                "there, sshd forbids to forward sockets (AllowStreamLocalForwarding), and `sockbroker` has to be "
                "installed there"
            )
        return self._log.added_to(f"{what}, and `sockbroker dial-stdio` there has ended")


def find(endpoint: Endpoint, target: SshTarget) -> Route:
    """Logs in. Raises `BrokerError` with the messages of ssh."""
    forward = Forward(endpoint, target)
    if forward.reaches_a_broker():
        return forward
    # sshd forbids to forward, or cannot connect: it does not report which. The program on the other host does.
    return Program(endpoint, target)


def _login_command(target: SshTarget) -> str:
    """The command by which a person logs in with the same options."""
    file = configuration(target.host)
    options = [] if file is None else ["-F", file]
    options += [] if target.port is None else ["-p", str(target.port)]
    return " ".join(["ssh", *options, target.destination])


def _common_options(target: SshTarget) -> list[str]:
    file = configuration(target.host)
    options = [] if file is None else ["-F", file]
    # No terminal, no forwarded agent, no X11.
    options += ["-Tax", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15", "-o", "LogLevel=INFO"]
    options += ["-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no"]
    if not _is_interactive():
        options += ["-o", "BatchMode=yes"]
    return options if target.port is None else [*options, "-p", str(target.port)]


def _is_interactive() -> bool:
    """Whether a person can answer questions of ssh."""

    def is_terminal(number: int) -> bool:
        try:
            return os.isatty(number)
        except OSError:
            return False

    return is_terminal(0) and is_terminal(2)
