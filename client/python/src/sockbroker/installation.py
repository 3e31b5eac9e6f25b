"""Replaces the module `_socket` of this process by one that uses the broker."""

from __future__ import annotations

import importlib
import sys

from . import native_modules, os_functions, process, select_functions, socket_module
from .hints import TYPE_CHECKING, Any
from .settings import OF_BROKER, Settings

if TYPE_CHECKING:
    from .network_namespace import Namespace


def install(made: Settings) -> Settings:
    """See `sockbroker.install`."""
    client = process.configure(made)
    select_functions.install()
    os_functions.install()
    native_modules.watch()
    sys.modules["_socket"] = socket_module.build(client, "_socket")
    present = sys.modules.get("socket")
    if present is not None:
        importlib.reload(present)
    if client.settings.mode in OF_BROKER:
        from . import buffered_files, create_connection  # for these modes alone

        scope = vars(importlib.import_module("socket"))
        create_connection.shorten(scope, client)
        buffered_files.enlarge(scope, client)
    return client.settings


def namespace(name: str) -> Namespace:
    """See `sockbroker.namespace`."""
    from .network_namespace import Namespace as Made  # for this call alone

    return Made(name, process.default(), _sockets)


def _sockets() -> Any:
    from . import socket  # executes the standard library's module, which programs with `install()` have already

    return socket
