"""scapy without privileges: its sockets capture and send by a broker.

    from scapy.all import *
    import sockbroker.scapy

    sockbroker.scapy.install()
    sniff(iface="eth0", filter="udp port 67", count=4)
    sr1(IP(dst="192.0.2.1")/ICMP(), timeout=2)

The rest of the process keeps its own sockets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Union

from scapy.config import conf
from scapy.error import log_runtime
from scapy.fields import FlagValue
from scapy.interfaces import InterfaceProvider, NetworkInterface

from . import creation, native, process, rtnetlink
from .broker import Broker
from .capture_stream import CaptureStream
from .client import Client
from .hints import Any
from .network_namespace import Namespace
from .own_namespace import OwnNamespace
from .scapy_sockets import L2ListenSocket, L2Socket, L3Socket

__all__ = ["L2ListenSocket", "L2Socket", "L3Socket", "install"]

_FLAGS = [
    "UP", "BROADCAST", "DEBUG", "LOOPBACK", "POINTTOPOINT", "NOTRAILERS", "RUNNING", "NOARP", "PROMISC", "ALLMULTI", "MASTER",
    "SLAVE", "MULTICAST", "PORTSEL", "AUTOMEDIA", "DYNAMIC", "LOWER_UP", "DORMANT", "ECHO",
]  # fmt: skip
_UP, _UP_LOOPBACK = 1, 9

_socket: Any = native.module


def install(
    source: Union[Broker, Namespace, OwnNamespace, None] = None, prefix: str = "", snaplen: Union[int, None] = None
) -> None:
    """Adds the interfaces of a broker to those of scapy: of the broker of the process, of another one, or of a namespace.

    Without a prefix, they replace the interfaces of the same names, and the socket classes of scapy's configuration.
    With one, such as `lab7/`, they are in addition: `sniff(iface="lab7/eth0")`. A second call with the same prefix
    replaces the interfaces of the first. `snaplen` is how many bytes of each packet are captured, where the policy limits
    them. Raises `BrokerError` if there is no broker, and `Denied` if the policy does not
    let this program list interfaces.
    """
    made: Any = type("BrokerInterfaces", (_Interfaces,), {"libpcap": not prefix})
    made.source = _Source(source, prefix, snaplen)
    made.source.links()  # raises here, and not in the middle of what scapy loads
    for kind, provider in list(conf.ifaces.providers.items()):
        if isinstance(provider, _Interfaces) and provider.source.prefix == prefix:
            del conf.ifaces.providers[kind]
    conf.ifaces.providers[made] = made()
    if not prefix:
        conf.L2socket, conf.L2listen, conf.L3socket = L2Socket, L2ListenSocket, L3Socket
        conf.L3socket6 = functools.partial(L3Socket, filter="ip6")  # type: ignore[assignment]  # as scapy does
    chosen = conf.iface
    conf.ifaces.reload()
    if chosen is not None and str(chosen) in conf.ifaces:
        conf.iface = conf.ifaces[str(chosen)]


class _Source:
    """The network namespace of a broker whose interfaces scapy uses."""

    def __init__(
        self, source: Union[Broker, Namespace, OwnNamespace, None], prefix: str, snaplen: Union[int, None]
    ) -> None:
        self.prefix, self._snaplen = prefix, snaplen
        self._netns: Union[str, int, None] = None
        self._client: Client
        self._module: Callable[[], Any]
        self._owner = source
        """Keeps it in existence."""
        if isinstance(source, Broker):
            self._client, self._module = source._client, lambda: source.socket
        elif isinstance(source, Namespace):
            self._client, self._module, self._netns = source._client, source._module, source.name
        elif isinstance(source, OwnNamespace):
            broker = source._broker
            self._client, self._module, self._netns = broker._client, lambda: broker.socket, source.fileno()
        else:
            self._client, self._module = process.default(), _sockets

    def capture(self, device: NetworkInterface, filter: str, options: dict[str, Any]) -> CaptureStream:
        """A capture of an interface."""
        options = {"snaplen": self._snaplen, **options}
        return CaptureStream(self._client, self._name(device), filter, self._netns, options)

    def sender(self, device: NetworkInterface) -> Any:
        """A packet socket that sends by an interface, and receives nothing."""
        made = self._made(_socket.AF_PACKET, _socket.SOCK_RAW, 0)
        try:
            made.bind((self._name(device), 0))
        except BaseException:
            made.close()
            raise
        return made

    def raw_ip(self, version: int) -> Any:
        """A socket that sends packets with their IP header."""
        family = _socket.AF_INET6 if version == 6 else _socket.AF_INET
        return self._made(family, _socket.SOCK_RAW, _socket.IPPROTO_RAW)

    def links(self) -> list[rtnetlink.Link]:
        """The interfaces: their names alone if the policy does not let this program read more."""
        try:
            with self._made(_socket.AF_NETLINK, _socket.SOCK_RAW, rtnetlink.ROUTE) as sock:
                return rtnetlink.links(sock)
        except PermissionError:
            return [
                rtnetlink.Link(index, -1, _UP_LOOPBACK if name == "lo" else _UP, name, b"") for index, name in self._names()
            ]

    def _names(self) -> list[tuple[int, str]]:
        netns = self._client.settings.netns if self._netns is None else self._netns
        passed = [netns] if isinstance(netns, int) else []
        params = {} if netns is None else {"netns": creation.PASSED if passed else netns}
        found = self._client.call("socket.if_nameindex", params, descriptors=passed)[1].value
        return [(index, name) for index, name in found]

    def _made(self, family: int, type_: int, proto: int) -> Any:
        made = creation.create(self._client, int(family), int(type_), int(proto), netns=self._netns)
        return self._module().socket(fileno=made)

    def _name(self, device: NetworkInterface) -> str:
        return str(device.network_name)[len(self.prefix) :]


class _Interfaces(InterfaceProvider):
    """The interfaces of a broker in `conf.ifaces`."""

    name = "sockbroker"
    source: _Source

    def load(self) -> dict[str, NetworkInterface]:
        """All interfaces, by their names with the prefix."""
        try:
            links = self.source.links()
        except OSError as error:
            log_runtime.warning("cannot list the interfaces of the broker: %s", error.strerror or error)
            return {}
        return {self.source.prefix + link.name: self._interface(link) for link in links}

    def _interface(self, link: rtnetlink.Link) -> NetworkInterface:
        name = self.source.prefix + link.name
        facts = {"name": name, "network_name": name, "description": name, "index": link.index, "type": link.kind}
        facts.update(mac=link.address.hex(":"), ips=link.ips, flags=FlagValue(link.flags, _FLAGS))
        return NetworkInterface(self, facts)

    def _l2socket(self, dev: NetworkInterface) -> Any:
        return L2Socket

    def _l2listen(self, dev: NetworkInterface) -> Any:
        return L2ListenSocket

    def _l3socket(self, dev: NetworkInterface, ipv6: bool) -> Any:
        return L3Socket

    def _is_valid(self, dev: NetworkInterface) -> bool:
        return bool(dev.flags & _UP)


def _sockets() -> Any:
    from . import socket  # executes the standard library's module, which programs with `install()` have already

    return socket
