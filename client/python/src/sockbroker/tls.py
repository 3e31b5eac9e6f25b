"""Connections to the TLS port of a broker. A process carries each, so that it survives `fork` and the end of threads."""

from __future__ import annotations

import os
import subprocess
import sys

from . import native
from .control_socket import with_high_number
from .errors import BrokerError
from .hints import TYPE_CHECKING
from .route import Route
from .settings import Endpoint
from .ssh_files import Log

if TYPE_CHECKING:
    from .route import Stream
    from .tls_target import TlsTarget

_RELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tls_relay.py")


class _Relay:
    """The process with TLS. It ends with the last process that has its stream."""

    _running: set[int] = set()
    """The processes of this kind that this one has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        process.returncode = 0  # this class reaps the process, and `Popen` does not wait for it
        self._running.add(process.pid)

    def kill(self) -> None:
        """Does nothing: a child of this process can have the stream too."""

    def wait(self) -> None:
        """Reaps the processes that have ended."""
        for number in [*self._running]:
            try:
                ended, _ = os.waitpid(number, os.WNOHANG)
            except ChildProcessError:
                ended = number  # it is a child of the process that has forked this one
            if ended:
                self._running.discard(number)


class TlsRoute(Route):
    """One process with TLS for the connection that all calls share."""

    is_single = True

    def __init__(self, endpoint: Endpoint, target: TlsTarget) -> None:
        super().__init__(endpoint)
        self._target = target
        self._log = Log()

    def open(self) -> Stream:
        target = self._target
        authority, certificate, key = (target.file(name) for name in ("ca", "cert", "key"))
        if authority is None:
            text = f"copy the certificate of its authority to ~/.config/sockbroker/{target.host}/ca"
            raise BrokerError(f"cannot connect to the broker at {self.endpoint}: {text}")
        # The broker refuses a client with both.
        token = None if certificate and key else target.file("token")
        files = [authority, certificate or "", key or "", token or ""]
        # -I: neither the folder of the program nor its variables change what the relay imports.
        command = [sys.executable, "-I", _RELAY, target.host, str(target.port), *files]
        ours, theirs = native.module.socketpair()
        try:
            with self._log.writer() as errors:
                process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=errors)
        except OSError as error:
            ours.close()
            raise self.unreachable(error) from None
        finally:
            theirs.close()
        return with_high_number(ours), _Relay(process)

    def explanation(self) -> str:
        return self._log.messages()
