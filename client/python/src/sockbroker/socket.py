"""Python's `socket` module over the broker of the process, as a second module next to the native one."""

from __future__ import annotations

import importlib
import sys

from . import os_functions, process, select_functions, socket_module, standard_module

if hasattr(sys.modules["_socket"], "native_module"):
    sys.modules[__name__] = importlib.import_module("socket")  # brokered already
else:
    select_functions.install()
    os_functions.install()
    _client = process.default()
    standard_module.execute(socket_module.build(_client, __name__), _client, globals())
