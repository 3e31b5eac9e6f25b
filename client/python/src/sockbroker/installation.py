"""Replaces the module `_socket` of this process by one that uses the broker."""

from __future__ import annotations

import importlib
import sys

from . import native_modules, os_functions, process, select_functions, socket_module
from .settings import Settings


def install(mode: str | None = None, broker: str | None = None) -> Settings:
    """See `sockbroker.install`."""
    chosen = process.configure(mode, broker)
    select_functions.install()
    os_functions.install()
    native_modules.watch()
    sys.modules["_socket"] = socket_module.build(chosen.mode)
    present = sys.modules.get("socket")
    if present is not None:
        importlib.reload(present)
    return chosen
