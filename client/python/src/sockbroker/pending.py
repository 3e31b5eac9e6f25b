"""Calls that are in progress while this process waits for something else too."""

from __future__ import annotations

from typing import Any

from . import errors, native
from .call import Call
from .connection import Connection
from .shared import SharedConnection


class Pending:
    """A call whose answer has not been read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Readable once the answer is there."""
        return self._connection.fileno()

    def finish(self) -> Any:
        """The result."""
        answer = self._connection.receive()
        if answer.error is not None:
            raise errors.exception(answer.error)
        return answer.value

    def cancel(self) -> Any:
        """The result if the call has ended; `None` if it was cancelled."""
        self._connection.cancel()
        answer = self._connection.receive()
        return answer.value


class SharedPending:
    """The same on a connection that other calls share: a socket becomes readable once the answer is there."""

    def __init__(self, shared: SharedConnection, call: Call) -> None:
        self._shared = shared
        self._call = call
        self._rung, call.bell = native.module.socketpair()

    def __enter__(self) -> SharedPending:
        self._shared.begin(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.cancel(self._call, None)
        self._rung.close()

    def fileno(self) -> int:
        """Readable once the answer is there."""
        return self._rung.fileno()  # type: ignore[no-any-return]

    def finish(self) -> Any:
        """The result."""
        answer = self._shared.result(self._call)
        if answer.error is not None:
            raise errors.exception(answer.error)
        return answer.value

    def cancel(self) -> Any:
        """The result if the call has ended; `None` if it was cancelled."""
        self._shared.cancel(self._call, None)
        return self._call.answer.value if self._call.answer is not None else None
