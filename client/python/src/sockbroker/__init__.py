"""Brokered sockets: Python's `socket` module, served by a `sockbrokerd`.

    from sockbroker import socket                  # one line of a program changed
    python3 -m sockbroker script.py                # none

`install()` does the second from within a program, `Settings` says with which mode and broker.
"""

from __future__ import annotations

from .errors import BrokerError, Denied
from .installation import install
from .settings import Settings

__all__ = ["BrokerError", "Denied", "Settings", "install"]
__version__ = "0.1.0"
