"""Python's `socket` module over the broker, as a second module next to the native one.

It is the standard library's own `socket.py`, executed again with another `_socket`.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys

from . import os_functions, process, select_functions, socket_module
from .hints import Any


def _execute_with(low_level: Any, scope: dict[str, Any]) -> None:
    """Executes the standard library's `socket.py` in a scope where `_socket` is another module."""

    def importer(name: str, *args: Any, **kwargs: Any) -> Any:
        return low_level if name == "_socket" else builtins.__import__(name, *args, **kwargs)

    spec = importlib.util.find_spec("socket")
    code = spec.loader.get_code("socket")  # type: ignore[union-attr]
    scope["__builtins__"] = {**vars(builtins), "__import__": importer}
    exec(code, scope)


if hasattr(sys.modules["_socket"], "native_module"):
    sys.modules[__name__] = importlib.import_module("socket")  # brokered already
else:
    select_functions.install()
    os_functions.install()
    _execute_with(socket_module.build(process.configured().mode), globals())
