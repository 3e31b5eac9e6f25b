"""A function in the place of one of the interpreter's, which is written in C."""

from __future__ import annotations

from typing import Any, Callable


class Replacement:
    """Calls a function. As an attribute of a class it does not become a method: no function in C does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)
