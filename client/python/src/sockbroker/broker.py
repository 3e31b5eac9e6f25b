"""A broker of its own within a program, with its own module of sockets."""

from __future__ import annotations

import itertools
import types

from . import os_functions, select_functions, socket_module, standard_module
from .client import Client
from .hints import TYPE_CHECKING, Any
from .network_namespace import Namespace
from .settings import settings_of

if TYPE_CHECKING:
    from .capture_stream import Interfaces
    from .packet_capture import Capture
    from .replay import CaptureFile, ReplayResult

_numbers = itertools.count(1)


class Broker:
    """A connection to a broker, which ends with the context or with `close()`. See `sockbroker.connect`."""

    socket: Any
    """A module with every constant, class and function of Python's `socket`, whose sockets are those of this broker."""

    def __init__(
        self,
        url: str,
        mode: str | None = None,
        netns: str | None = None,
        pair: str | None = None,
        persist: bool = False,
        reconnect_seconds: float = 30.0,
    ) -> None:
        made = settings_of(url, mode, netns, pair, persist, reconnect_seconds)
        self._client = Client(made, has_own_timeout=True)
        try:
            self._client.current()
            self.socket = _module(self._client)
        except BaseException:
            self._client.close()
            raise

    @property
    def url(self) -> str:
        """The address of the broker."""
        return str(self._client.settings.endpoint)

    @property
    def mode(self) -> str:
        """`direct`, `mediated` or `remote`."""
        return self._client.settings.mode

    @property
    def netns(self) -> str | None:
        """The network namespace of new sockets; `None` for that of the broker."""
        return self._client.settings.netns

    def namespace(self, name: str) -> Namespace:
        """Another network namespace on the machine of the broker, as `sockbroker.namespace`."""
        return Namespace(name, self._client, lambda: self.socket)

    def capture(self, interface: Interfaces = None, filter: str | bytes = "", **options: Any) -> Capture:
        """Captures packets on the machine of the broker, as `sockbroker.capture`."""
        from .packet_capture import Capture as Made  # for this call alone

        return Made(self._client, interface, filter, **options)

    def replay(self, file: CaptureFile, interface: str, **options: Any) -> ReplayResult:
        """Sends the packets of a capture file on the machine of the broker, as `sockbroker.replay`."""
        from .replay import replay as run  # for this call alone

        return run(self._client, file, interface, **options)

    def close(self) -> None:
        """Ends the connections, and with them all sockets that the broker holds.

        Calls in progress in other threads and later calls raise `BrokerError`. A child process that `fork()` created
        keeps the sockets that it inherited.
        """
        self._client.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sockbroker.Broker {self.url} mode={self.mode}>"


def _module(client: Client) -> types.ModuleType:
    name = f"sockbroker.socket_{next(_numbers)}"
    select_functions.install()
    os_functions.install()
    return standard_module.make(name, socket_module.build(client, name), client)
