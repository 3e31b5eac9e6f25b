"""CPython's own words for wrong arguments.

Where an argument cannot be spelt, or the broker refuses it, the same call is made on a socket object of
the interpreter that has the same family and no descriptor. CPython checks arguments before anything else,
so it raises what it always raises; if it finds nothing wrong it gets no further than `EBADF`.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, TypeVar

from . import native
from .errors import ArgumentError, BrokerError
from .handle import LOCAL

_Function = TypeVar("_Function", bound=Callable[..., Any])
_RESOLVER = (native.module.gaierror, native.module.herror)
_WRONG = (ArgumentError, TypeError, ValueError, OverflowError, BufferError)


def method(function: _Function) -> _Function:
    """A method that is served by the broker.

    What it raises has no traceback into this package: a traceback would hold the caller's buffers, which
    could then not be resized, and would keep sockets from being collected.
    """
    natively = getattr(native.Socket, function.__name__, None)

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._handle is LOCAL and natively is not None:
                return natively(self, *args, **kwargs)
            try:
                return function(self, *args, **kwargs)
            except BrokerError as error:
                if not error.is_unsent or not self._revive():
                    raise
            return function(self, *args, **kwargs)
        except _WRONG as error:
            failure = _explained(natively, (_empty(self), *args), kwargs, error)
        except BaseException as error:
            failure = error
        _forget_frames(failure)
        del self, args, kwargs
        try:
            raise failure
        finally:
            del failure

    return call  # type: ignore[return-value]


def function(served: _Function) -> _Function:
    """A function of the module that is served by the broker. Asking CPython has no effect but a look-up."""
    natively = getattr(native.module, served.__name__)

    @functools.wraps(served)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return served(*args, **kwargs)
        except _WRONG as error:
            failure = _explained(natively, args, kwargs, error)
        except BaseException as error:
            failure = error
        _forget_frames(failure)
        del args, kwargs
        try:
            raise failure
        finally:
            del failure

    return call  # type: ignore[return-value]


def _forget_frames(error: BaseException) -> None:
    """Takes this package out of a traceback; the handler of a signal stays in it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        try:
            trace.tb_frame.clear()
        except RuntimeError:
            pass  # the frame at hand
        trace = trace.tb_next
    error.__traceback__ = trace
    if isinstance(error, BrokerError):
        error.__context__ = None


def _explained(natively: Any, args: Any, kwargs: Any, error: Exception) -> BaseException:
    """What CPython raises for these arguments; the error at hand if it finds nothing wrong."""
    if isinstance(error, ArgumentError):
        error = error.made
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
    return _empty_of(int(sock._family()), int(sock._kind()), int(sock._protocol()))


@functools.lru_cache(maxsize=32)
def _empty_of(family: int, kind: int, protocol: int) -> Any:
    made = labelled(native.Socket, family, kind, protocol)
    return made


def labelled(cls: Any, family: int, kind: int, protocol: int) -> Any:
    """An instance of the interpreter's class that claims to be such a socket, and has no descriptor."""
    made = cls.__new__(cls)
    label(made, family, kind, protocol)
    return made


def label(sock: Any, family: int, kind: int, protocol: int) -> None:
    """Initialises the interpreter's part of a socket object, which then has no descriptor."""
    borrowed, other = native.module.socketpair()
    try:
        native.Socket.__init__(sock, family, kind, protocol, borrowed.fileno())
        native.Socket.detach(sock)
    finally:
        borrowed.close()
        other.close()
