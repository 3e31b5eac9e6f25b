"""The standard library's own `socket.py`, executed again with another `_socket`."""

from __future__ import annotations

import builtins
import importlib.util
import sys
import types

from . import buffered_files, create_connection
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client


def execute(low_level: types.ModuleType, client: Client, scope: dict[str, Any]) -> None:
    """Executes `socket.py` in the scope of a module, in which `_socket` is `low_level`, made for the client."""

    def importer(name: str, *args: Any, **kwargs: Any) -> Any:
        return low_level if name == "_socket" else builtins.__import__(name, *args, **kwargs)

    spec = importlib.util.find_spec("socket")
    code = spec.loader.get_code("socket")  # type: ignore[union-attr]
    scope["__builtins__"] = {**vars(builtins), "__import__": importer}
    exec(code, scope)
    create_connection.shorten(scope, client)
    buffered_files.enlarge(scope, client)


def make(name: str, low_level: types.ModuleType, client: Client) -> types.ModuleType:
    """A module that only the caller knows, so that it ends with its last user."""
    made = types.ModuleType(name)
    sys.modules[name] = made  # `enum` finds the constants there
    try:
        execute(low_level, client, vars(made))
    finally:
        del sys.modules[name]
    return made
