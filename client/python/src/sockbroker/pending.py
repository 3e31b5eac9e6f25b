"""Calls in progress, while this process waits for something else too."""

from __future__ import annotations

from . import native
from .call import Call
from .connection import Connection
from .hints import Any
from .jsonrpc import checked
from .shared import SharedConnection


class Pending:
    """A call on its own connection, before its response is read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """A descriptor that becomes readable when the response arrives."""
        return self._connection.fileno()

    def finish(self) -> Any:
        """The result."""
        return checked(self._connection.receive()).value

    def cancel(self) -> Any:
        """The result if the call has ended; `None` if it was cancelled."""
        self._connection.cancel()
        return self._connection.receive().value


class SharedPending:
    """The same on a connection that other calls share."""

    def __init__(self, shared: SharedConnection, call: Call) -> None:
        self._shared = shared
        self._call = call
        self._readable, call.bell = native.module.socketpair()

    def __enter__(self) -> SharedPending:
        self._shared.begin(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.cancel(self._call, None)
        self._readable.close()

    def fileno(self) -> int:
        """A descriptor that becomes readable when the response arrives."""
        return self._readable.fileno()  # type: ignore[no-any-return]

    def finish(self) -> Any:
        """The result."""
        return checked(self._shared.result(self._call)).value

    def cancel(self) -> Any:
        """The result if the call has ended; `None` if it was cancelled."""
        self._shared.cancel(self._call, None)
        return self._call.response.value if self._call.response is not None else None
