"""Brokered sockets: Python's `socket` module, served by a `sockbrokerd`.

    from sockbroker import socket                  # one changed line in a program
    python3 -m sockbroker script.py                # an unchanged program
    lab = sockbroker.connect("ssh://lab7")         # another broker; its sockets are those of `lab.socket`

`namespace("lab1").socket()` is a socket of another network namespace. `capture("eth0")` captures packets, and `replay("lab.pcapng", "eth0")` sends them. `install()` has the effect of the second form from within a program. `Settings` holds the mode and the broker.
"""

from __future__ import annotations

from .errors import BrokerError, CallInterrupted, ChannelInterrupted, Denied, FilterError
from .hints import TYPE_CHECKING
from .settings import Settings

if TYPE_CHECKING:
    from .broker import Broker
    from .hints import Any
    from .network_namespace import Namespace
    from .capture_stream import Interfaces
    from .packet_capture import Capture, Packet
    from .replay import CaptureFile, ReplayResult

__all__ = [
    "Broker", "BrokerError", "CallInterrupted", "Capture", "ChannelInterrupted", "Denied", "FilterError", "Namespace", "Packet", "ReplayResult", "Settings",
    "capture", "connect", "install", "namespace", "replay",
]  # fmt: skip
_CLASSES = {
    "Broker": "broker", "Capture": "packet_capture", "Namespace": "network_namespace", "Packet": "packet_capture",
    "ReplayResult": "replay",
}  # fmt: skip
"""The modules of classes that are imported when a program names them."""
__version__ = "0.1.0"


def install(
    mode: str | None = None,
    broker: str | None = None,
    netns: str | None = None,
    pair: str | None = None,
    persist: bool | None = None,
    reconnect_seconds: float | None = None,
) -> Settings:
    """Makes `socket`, and every module that uses it, use the broker from now on in this process.

    Call this before other modules are imported: a module that has taken `socket.socket` before keeps the native
    class. The arguments have the values of the options `--mode`, `--broker`, `--netns`, `--pair`, `--persist` and
    `--reconnect-seconds`; the environment decides where they are missing. In remote mode this raises `BrokerError` if
    there is no broker, because the constants come from the broker; in the other modes the first call that needs the
    broker raises it.
    """
    from .installation import install as run  # the command line imports this package too, and needs no sockets
    from .settings import settings

    return run(settings(mode, broker, netns, pair, persist, reconnect_seconds))


def connect(
    url: str,
    mode: str | None = None,
    netns: str | None = None,
    pair: str | None = None,
    persist: bool = False,
    reconnect_seconds: float = 30.0,
) -> Broker:
    """Connects to a broker, whose sockets are those of the module `socket` of the result.

        with sockbroker.connect("ssh://lab7") as lab:
            web = lab.socket.create_connection(("10.0.0.1", 80))

    A program can connect to several brokers, and wait for sockets of all of them in one `select`. The rest of the
    program keeps its sockets. `url` is `/path`, `unix:/path`, `ssh://[USER@]HOST[:PORT][/PATH]`, `tls://HOST[:PORT]` or
    `exec:COMMAND`.
    `mode` is `mediated` by default for a socket of this machine, else `remote`. `netns` is the network namespace of
    new sockets. In mode `channel`, with `pair="tcp"`, descriptors are TCP sockets, not Unix sockets. With `persist`,
    sockets outlive a restart of the broker, which calls wait for during `reconnect_seconds`; a call whose effect nobody
    knows raises `CallInterrupted`. Raises `BrokerError` if there is no broker, and `ValueError` for wrong arguments.
    """
    from .broker import Broker as Made  # the command line imports this package too, and needs no sockets

    return Made(url, mode, netns, pair, persist, reconnect_seconds)


def capture(interface: Interfaces = None, filter: str | bytes = "", **options: Any) -> Capture:
    """Captures packets of an interface of the broker's machine, of several, or of all.

        with sockbroker.capture("eth0", "udp port 67") as capture:
            ask_for_an_address()
            print(capture.expect("udp src port 67", timeout=5).data)

    The capture is live when this returns, and ends with the context. `filter` is an expression of tcpdump, or a program
    of classic BPF as bytes. `Capture` describes the options. Raises `FilterError` for a wrong expression, `Denied` if
    the policy forbids the capture, and `OSError` if there is no such interface.
    """
    from .process import default  # the command line imports this package too, and needs no captures
    from .packet_capture import Capture as Made

    return Made(default(), interface, filter, **options)


def replay(file: CaptureFile, interface: str, **options: Any) -> ReplayResult:
    """Sends the packets of a capture file, pcapng or pcap, on an interface of the broker's machine.

        result = sockbroker.replay("lab.pcapng", "veth0", speed=2)
        print(result.packets, result.failures)

    It returns when all are sent. The options are `speed` (the factor of the file's own timing; 0 for no waiting), `pps`,
    `loop`, `limit`, `truncated` and `netns`. Raises `Denied` if the policy does not grant `inject`, `OSError` if there
    is no such interface, and `ValueError` for a malformed file.
    """
    from .process import default  # the command line imports this package too, and needs no replays
    from .replay import replay as run

    return run(default(), file, interface, **options)


def namespace(name: str) -> Namespace:
    """Another network namespace than that of the broker, if a rule of its policy has `netns`.

    `caller` is the one in which this process connected to the broker. Any other name is one of `ip netns list`.
    """
    from .installation import namespace as of_process  # as above

    return of_process(name)


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # for this call alone

    return getattr(import_module(f".{_CLASSES[name]}", __name__), name)


def scapy_ext(extension: Any) -> None:
    """What scapy calls for an extension of this name: `sockbroker.scapy.install()`."""
    from .scapy import install  # scapy is not a dependency

    extension.config("sockbroker", __version__)
    install()
