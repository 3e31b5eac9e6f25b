"""CPython's own exceptions for wrong arguments.

If this package cannot encode an argument, or the broker refuses it, the same call is made on a socket object of the
interpreter with the same family and no descriptor. CPython checks arguments first, so it raises its usual exception.
If it finds nothing wrong, the call ends with `EBADF` and has no effect.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import native
from .errors import ArgumentError, BrokerError
from .handle import UNMEDIATED
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeVar

    from .client import Client

    _Function = TypeVar("_Function", bound=Callable[..., Any])

_RESOLVER = (native.module.gaierror, native.module.herror)
_WRONG = (ArgumentError, TypeError, ValueError, OverflowError, BufferError)


def method(function: _Function) -> _Function:
    """Wraps a method that the broker serves.

    Its exceptions have no traceback into this package. A traceback would keep the caller's buffers, which could then
    not be resized, and would keep sockets from being garbage-collected.
    """
    natively = getattr(native.Socket, function.__name__, None)

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._handle is UNMEDIATED and natively is not None:
                return natively(self, *args, **kwargs)
            try:
                return function(self, *args, **kwargs)
            except BrokerError as error:
                if not error.is_unsent or not self._readopt():
                    raise
            return function(self, *args, **kwargs)
        except _WRONG as error:
            failure = _as_cpython(natively, (_empty(self), *args), kwargs, error)
        except BaseException as error:
            failure = error
        _forget_frames(failure)
        del self, args, kwargs
        try:
            raise failure
        finally:
            del failure

    return call  # type: ignore[return-value]


def function(served: Callable[..., Any], client: Client, module: str) -> Callable[..., Any]:
    """A function of a module that the broker serves, whose first argument is the client.

    CPython's own function does at most a look-up.
    """
    natively = getattr(native.module, served.__name__)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return served(client, *args, **kwargs)
        except _WRONG as error:
            failure = _as_cpython(natively, args, kwargs, error)
        except BaseException as error:
            failure = error
        _forget_frames(failure)
        del args, kwargs
        try:
            raise failure
        finally:
            del failure

    return _presented(call, served, client, module)


def bound(served: Callable[..., Any], client: Client, module: str) -> Callable[..., Any]:
    """The same for a function that checks its arguments itself."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return served(client, *args, **kwargs)

    return _presented(call, served, client, module)


def _presented(call: Any, served: Callable[..., Any], client: Client, module: str) -> Callable[..., Any]:
    """Gives a function the name, module and signature under which programs know it."""
    functools.update_wrapper(call, served)
    call.__module__ = module  # `pickle` finds it there
    call.__wrapped__ = functools.partial(served, client)
    return call  # type: ignore[no-any-return]


def _forget_frames(error: BaseException) -> None:
    """Removes the frames of this package from a traceback. The frames of a signal handler stay."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        try:
            trace.tb_frame.clear()
        except RuntimeError:
            pass  # this frame is still running
        trace = trace.tb_next
    error.__traceback__ = trace
    if isinstance(error, BrokerError):
        error.__context__ = None


def _as_cpython(natively: Any, args: Any, kwargs: Any, error: Exception) -> BaseException:
    """The exception that CPython raises for these arguments; `error` if it finds nothing wrong."""
    if isinstance(error, ArgumentError):
        error = error.exception
    error.__context__ = None
    if natively is None:
        return error
    try:
        natively(*args, **kwargs)
    except OSError as found:
        if found.errno is not None and not isinstance(found, _RESOLVER):
            return error
        found.__context__ = None
        return found
    except Exception as found:
        found.__context__ = None
        return found
    return error


def _empty(sock: Any) -> Any:
    """A socket object of the same family without a descriptor."""
    return _empty_of(native.family_of(sock), native.type_of(sock), native.protocol_of(sock))


@functools.lru_cache(maxsize=32)
def _empty_of(family: int, type_: int, proto: int) -> Any:
    made = native.Socket.__new__(native.Socket)
    set_attributes(made, family, type_, proto)
    return made


def set_attributes(sock: Any, family: int, type_: int, proto: int) -> None:
    """Sets family, type and protocol in the interpreter's part of a socket object, which gets no descriptor."""
    borrowed, other = native.module.socketpair()
    try:
        native.Socket.__init__(sock, family, type_, proto, borrowed.fileno())
        native.Socket.detach(sock)
    finally:
        borrowed.close()
        other.close()
