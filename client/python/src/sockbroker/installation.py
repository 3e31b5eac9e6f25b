"""Puts the brokered module in the place of `_socket`, so that everything above it uses the broker."""

from __future__ import annotations

import importlib
import sys

from . import native_modules, os_functions, process, select_functions, socket_module
from .settings import Settings


def install(mode: str | None = None, broker: str | None = None) -> Settings:
    """Makes `socket`, and every module above it, use the broker from now on in this process.

    Call it before other modules are imported: what has taken `socket.socket` before keeps the native class.
    `mode` and `broker` are as on the command line; without them the environment decides. `BrokerError` in
    remote mode if there is no broker, since the constants are its; in the other modes the first call that
    needs it tells.
    """
    chosen = process.configure(mode, broker)
    select_functions.install()
    os_functions.install()
    native_modules.watch()
    sys.modules["_socket"] = socket_module.build(chosen.mode)
    present = sys.modules.get("socket")
    if present is not None:
        importlib.reload(present)
    return chosen
