"""Sockets, names and programs in other network namespaces than that of the broker."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from . import creation, native
from .environment import environment
from .hints import TYPE_CHECKING, Any
from .resolver import look_up
from .settings import DIRECT, MEDIATED, MODE_VARIABLE, NETNS_VARIABLE, PAIR_VARIABLE, URL_VARIABLE, check_netns

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from .client import Client
    from .capture_stream import Interfaces
    from .packet_capture import Capture
    from .replay import CaptureFile, ReplayResult

_DEFAULT = object()
"""No timeout was given: new sockets have the default."""


class Namespace:
    """A network namespace: that of this process when it connected to the broker, or one with a name."""

    def __init__(self, name: str, client: Client, module: Callable[[], Any]) -> None:
        """`module` returns the module of the client's sockets."""
        self.name = check_netns(name)
        self._client = client
        self._module = module

    def __repr__(self) -> str:
        return f"sockbroker.namespace({self.name!r})"

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Any:
        """A new socket in this namespace. Its methods take host names only if the namespace has a name."""
        module = self._module()
        return module.socket(fileno=creation.create(self._client, family, type, proto, netns=self.name))

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """`socket.getaddrinfo` in this namespace: by the files of `/etc/netns` if it has a name, else by this process."""
        module = self._module()
        found = []
        for family_, type_, *rest in look_up(self._client, self.name, host, port, family, type, proto, flags):
            # As in the standard library, numbers without a name stay numbers.
            found.append((_named(module.AF_INET.__class__, family_), _named(module.SOCK_STREAM.__class__, type_), *rest))
        return found

    def create_connection(
        self,
        address: tuple[str | None, int],
        timeout: Any = _DEFAULT,
        source_address: tuple[str, int] | None = None,
    ) -> Any:
        """`socket.create_connection` in this namespace."""
        host, port = address
        failure: OSError | None = None
        for family, type_, proto, _name, destination in self.getaddrinfo(host, port, 0, native.module.SOCK_STREAM):
            made = None
            try:
                made = self.socket(family, type_, proto)
                if timeout is not _DEFAULT:
                    made.settimeout(timeout)
                if source_address:
                    made.bind(source_address)
                made.connect(destination)
            except OSError as error:
                failure = error
                if made is not None:
                    made.close()
            else:
                return made
        try:
            raise failure or OSError("getaddrinfo returns an empty list")
        finally:
            failure = None  # a reference cycle otherwise

    def create_server(
        self,
        address: tuple[str, int],
        *,
        family: int | None = None,
        backlog: int | None = None,
        reuse_port: bool = False,
        dualstack_ipv6: bool = False,
    ) -> Any:
        """`socket.create_server` in this namespace, by the steps of CPython's `Lib/socket.py`."""
        module = self._module()
        family = module.AF_INET if family is None else family
        if dualstack_ipv6 and family != module.AF_INET6:
            raise ValueError("dualstack_ipv6 requires AF_INET6 family")
        server = self.socket(family, module.SOCK_STREAM)
        try:
            server.setsockopt(module.SOL_SOCKET, module.SO_REUSEADDR, 1)
            if reuse_port:
                server.setsockopt(module.SOL_SOCKET, module.SO_REUSEPORT, 1)
            if family == module.AF_INET6:
                server.setsockopt(module.IPPROTO_IPV6, module.IPV6_V6ONLY, 0 if dualstack_ipv6 else 1)
            server.bind(address)
            server.listen() if backlog is None else server.listen(backlog)
        except BaseException:
            server.close()
            raise
        return server

    def capture(self, interface: Interfaces = None, filter: str | bytes = "", **options: Any) -> Capture:
        """Captures packets in this namespace, as `sockbroker.capture`."""
        from .packet_capture import Capture as Made  # for this call alone

        return Made(self._client, interface, filter, netns=self.name, **options)

    def replay(self, file: CaptureFile, interface: str, **options: Any) -> ReplayResult:
        """Sends the packets of a capture file on an interface of this namespace, as `sockbroker.replay`."""
        from .replay import replay as run  # for this call alone

        return run(self._client, file, interface, netns=self.name, **options)

    def run(self, arguments: Sequence[str], **options: Any) -> CompletedProcess[Any]:
        """Runs a Python program whose sockets and names are those of this namespace, with the options of `subprocess.run`.

        `arguments` are those of the interpreter, such as `["-m", "http.server"]`, as for `python3 -m sockbroker --netns`.
        """
        from subprocess import run  # for this call alone

        given = options.pop("env", None)
        settings = self._client.settings
        own = {MODE_VARIABLE: settings.mode, URL_VARIABLE: str(settings.endpoint), PAIR_VARIABLE: settings.pair}
        variables = {**os.environ, **own} if given is None else {**own, **given}
        if variables[MODE_VARIABLE] == DIRECT:
            variables[MODE_VARIABLE] = MEDIATED
        variables[NETNS_VARIABLE] = self.name
        return run([sys.executable, *arguments], env=environment({}, variables), **options)


def _named(kind: Any, number: int) -> Any:
    try:
        return kind(number)
    except ValueError:
        return number
