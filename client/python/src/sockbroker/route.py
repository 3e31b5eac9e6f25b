"""Ways to a broker. A route opens the streams of connections."""

from __future__ import annotations

import errno
import time

from . import native
from .control_socket import ControlSocket, with_high_number
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any
from .settings import Endpoint

if TYPE_CHECKING:
    from typing import Optional, Protocol

    class Carrier(Protocol):
        """The process that carries a stream."""

        def kill(self) -> None: ...

        def wait(self) -> Any: ...

    Stream = tuple[ControlSocket, Optional[Carrier]]

CONNECT_SECONDS = 10.0
_LOGIN_SECONDS = 45.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1


class Route:
    """A way to a broker."""

    is_single = False
    """Whether all calls must share one connection, because another one costs a login."""
    has_preamble = False
    """Whether other text can precede the protocol."""
    answer_seconds = CONNECT_SECONDS
    """How long the broker may take to answer the first call of a connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def open(self) -> Stream:
        """A stream to the broker, and the process that carries it. Raises `BrokerError`."""
        raise NotImplementedError

    def is_usable(self) -> bool:
        """Whether further connections can be opened, as far as this process can know."""
        return True

    def explanation(self) -> str:
        """Why connections end, as far as this is known; else empty."""
        return ""

    def unreachable(self, error: OSError, advice: str = "") -> BrokerError:
        """The exception of a connection that cannot be opened."""
        reason = error.strerror or str(error)
        advice = advice or "check that sockbrokerd runs there, or set --broker or SOCKBROKER"
        return BrokerError(f"cannot connect to the broker at {self.endpoint}: {reason}; {advice}")


class UnixRoute(Route):
    """Connections to a Unix socket of this machine."""

    def open(self) -> Stream:
        try:
            return connect(self.endpoint.path), None
        except OSError as error:
            raise self.unreachable(error) from None


class CommandRoute(Route):
    """One process for each connection, whose standard input and output are the connection."""

    has_preamble = True
    answer_seconds = _LOGIN_SECONDS  # it can be ssh

    def open(self) -> Stream:
        import subprocess  # slow to import, and for this alone

        ours, theirs = native.module.socketpair()
        try:
            process = subprocess.Popen(self.endpoint.command, stdin=theirs, stdout=theirs)
        except OSError as error:
            ours.close()
            raise self.unreachable(error) from None
        finally:
            theirs.close()
        return with_high_number(ours), process


def connect(path: str) -> ControlSocket:
    """Connects. Retries while the backlog is full of connections that the broker has not accepted yet."""
    stream = ControlSocket(native.module.AF_UNIX, native.module.SOCK_STREAM)
    stream.remember_file()
    try:
        stream.setblocking(False)
        _connect(stream, path)
        return with_high_number(stream)
    finally:
        stream.close()


def _connect(stream: ControlSocket, path: str) -> None:
    deadline = time.monotonic() + CONNECT_SECONDS
    pause = _FIRST_PAUSE
    while True:
        try:
            return stream.connect(path)  # type: ignore[no-any-return]
        except BlockingIOError:
            if time.monotonic() >= deadline:
                text = f"the backlog of its control socket has been full for {CONNECT_SECONDS:g} seconds"
                raise OSError(errno.EAGAIN, text) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
