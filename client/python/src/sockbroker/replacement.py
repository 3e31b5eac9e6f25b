"""A Python function that replaces a C function of the interpreter."""

from __future__ import annotations

from collections.abc import Callable

from .hints import Any


class Replacement:
    """Calls a function. Like a C function, it does not become a method when it is an attribute of a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)
