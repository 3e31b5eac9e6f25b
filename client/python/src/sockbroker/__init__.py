"""Brokered sockets: Python's `socket` module, served by a `sockbrokerd`.

    from sockbroker import socket                  # one changed line in a program
    python3 -m sockbroker script.py                # an unchanged program

`namespace("lab1").socket()` is a socket of another network namespace. `install()` has the effect of the second form from within a program. `Settings` holds the mode and the broker.
"""

from __future__ import annotations

from .errors import BrokerError, Denied
from .hints import TYPE_CHECKING
from .settings import Settings

if TYPE_CHECKING:
    from .network_namespace import Namespace

__all__ = ["BrokerError", "Denied", "Settings", "install", "namespace"]
__version__ = "0.1.0"


def install(mode: str | None = None, broker: str | None = None) -> Settings:
    """Makes `socket`, and every module that uses it, use the broker from now on in this process.

    Call this before other modules are imported: a module that has taken `socket.socket` before keeps the native
    class. `mode` and `broker` have the values of the options `--mode` and `--broker`; the environment decides
    where they are missing. In remote mode this raises `BrokerError` if there is no broker, because the constants
    come from the broker; in the other modes the first call that needs the broker raises it.
    """
    from .installation import install as run  # the command line imports this package too, and needs no sockets

    return run(mode, broker)


def namespace(name: str) -> Namespace:
    """Another network namespace than that of the broker, if a rule of its policy has `netns`.

    `caller` is the one in which this process connected to the broker. Any other name is one of `ip netns list`.
    """
    from .network_namespace import Namespace as Made  # the command line imports this package too, and needs no sockets

    return Made(name)
