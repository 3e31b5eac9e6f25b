"""A session with the broker: an anchor that keeps it alive, and one connection for each call in progress.

One connection a thread would not do: the collection of garbage can begin a `close` in the middle of
another call of the same thread. For the same reason nothing here waits for a lock while it calls.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import weakref
from typing import Any, Iterator, Sequence

from . import errors, native
from .connection import Answer, Connection
from .errors import BrokerError
from .settings import Endpoint, Settings, settings

_IDLE_MAX = 16


class Session:
    """Handles live in a session, and end with it."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Opens a session; `BrokerError` if there is no broker."""
        self.endpoint = endpoint
        self.ended = False
        self.handles = 0
        """How many handles of it are open."""
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._idle: collections.deque[Connection] = collections.deque()
        self._clone: tuple[str, Connection] | None = None
        self._anchor = self._connect()
        self._token: str = self._begin(self._anchor, "session.open", {})["token"]
        limits = self._anchor.call("session.limits", []).value
        self.receive_bytes: int = limits["receive_bytes"]["value"]
        """The most that one call receives."""
        self.part_bytes: int = min(limits["frame_bytes"]["value"] // 2, 1 << 22)
        """The most that one call sends."""
        timeout = native.module.getdefaulttimeout()
        if timeout is not None:
            self._anchor.call("socket.setdefaulttimeout", [timeout])

    def call(
        self,
        method: str,
        params: Any,
        attachments: Sequence[Any] = (),
        descriptors: Sequence[int] = (),
        room: int = 0,
        takes_descriptors: bool = False,
        late: Any = None,
    ) -> Answer:
        """Calls a method; the broker's errors are raised as the exceptions they spell.

        If the call is interrupted, by an exception of a signal's handler, its connection is dropped, which
        cancels it. If it was answered all the same, `late` is called with the answer.
        """
        connection = self._take()
        # Known before it is sent: an exception may strike before that too.
        number, request = connection.number, connection.request + 1
        try:
            answer = connection.call(method, params, attachments, descriptors, room, takes_descriptors)
        except BrokerError:
            self._drop(connection)
            self._check_alive()
            raise
        except BaseException:
            self._drop(connection)
            if late is not None:
                self._settle(number, request, late)
            raise
        self._idle.append(connection)
        if answer.error is not None:
            raise errors.exception(answer.error)
        return answer

    @contextlib.contextmanager
    def pending(self, method: str, params: Any) -> Iterator[Pending]:
        """A call that is under way while this process waits for something else too."""
        connection = self._take()
        try:
            connection.send(method, params)
            yield Pending(connection)
        except BaseException:
            self._drop(connection)
            raise
        self._idle.append(connection)

    def _take(self) -> Connection:
        if self.ended:
            raise BrokerError(f"the session with the broker at {self.endpoint} has ended")
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
            self._begin(connection, "session.attach", {"token": self._token})
        while len(self._idle) > _IDLE_MAX:
            self._drop(self._idle.popleft())
        return connection

    def _connect(self) -> Connection:
        try:
            connection = Connection(self.endpoint)
        except BrokerError:
            self.ended = True
            raise
        self._connections.add(connection)
        return connection

    def _begin(self, connection: Connection, method: str, params: dict[str, Any]) -> Any:
        try:
            answer = connection.begin(method, params)
        except BaseException:
            self._drop(connection)
            raise
        if answer.error is None:
            return answer.value
        self._drop(connection)
        if (answer.error.get("data") or {}).get("kind") == "session":
            self.ended = True  # the broker knows no such session: it is another one, started since
        raise errors.exception(answer.error)

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.close()

    def _check_alive(self) -> None:
        """After a loss: is it the connection, or the broker that has gone?"""
        try:
            connection = self._connect()
            self._begin(connection, "session.attach", {"token": self._token})
        except Exception:
            self.ended = True
        else:
            self._idle.append(connection)

    def _settle(self, number: int, request: int, late: Any) -> None:
        """Asks what became of a call whose connection was dropped."""
        try:
            params = {"connection": number, "request": request}
            answer = self.call("call.resolve", params, takes_descriptors=True)
        except Exception:
            return
        found = answer.value
        if found["state"] == "answered" and "result" in found["answer"]:
            answer.value = found["answer"]["result"]
            late(answer)

    def end(self) -> None:
        """Closes every connection, and with them every handle."""
        self.ended = True
        for connection in list(self._connections):
            self._drop(connection)

    # fork(): the child goes on with a clone, in which every handle has the same number.

    def before_fork(self) -> None:
        """Makes the clone, and its anchor, while the parent still has all its connections."""
        self._clone = None
        if self.ended or not self.handles:
            return
        try:
            token = self.call("session.clone", []).value["token"]
            anchor = Connection(self.endpoint)
        except OSError:
            return
        try:
            attached = anchor.begin("session.attach", {"token": token}).error is None
        except OSError:
            attached = False
        if attached:
            self._clone = (token, anchor)
        else:
            anchor.close()

    def after_fork_in_parent(self) -> None:
        """The clone is the child's alone."""
        clone, self._clone = self._clone, None
        if clone is not None:
            clone[1].close()

    def after_fork_in_child(self) -> None:
        """Leaves the parent's connections, and goes on in the clone if there is one."""
        for connection in self._connections:
            connection.forget()
        self._idle.clear()
        clone, self._clone = self._clone, None
        self._connections = weakref.WeakSet()
        self.ended = clone is None
        if clone is not None:
            self._token, self._anchor = clone
            self._connections.add(self._anchor)


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


class _Process:
    """What this process uses: the settings, and the session once it is needed."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.session: Session | None = None
        # Another thread may wait for the first session; a signal's handler may come in between.
        self.lock = threading.RLock()


_process = _Process()


def configure(mode: str | None = None, url: str | None = None) -> Settings:
    """Sets mode and broker for this process. A session with another broker goes on for its sockets."""
    _process.settings = settings(mode, url)
    _process.session = None
    return _process.settings


def configured() -> Settings:
    """Mode and broker of this process."""
    return _process.settings or configure()


def current() -> Session:
    """The session for new sockets: opened at the first need, and again after the broker has gone."""
    session = _process.session
    if session is None or session.ended:
        with _process.lock:
            session = _process.session
            if session is None or session.ended:
                session = _process.session = Session(configured().endpoint)
    return session


def opened() -> Session | None:
    """The session, if there is one."""
    session = _process.session
    return None if session is None or session.ended else session


def call(method: str, params: Any, **beside: Any) -> tuple[Session, Answer]:
    """Calls a method that needs no handle; once more in a new session if the broker has been restarted."""
    session = current()
    try:
        return session, session.call(method, params, **beside)
    except BrokerError:
        if not session.ended:
            raise
    session = current()
    return session, session.call(method, params, **beside)


def _before_fork() -> None:
    _process.lock.acquire()
    session = opened()
    if session is not None:
        session.before_fork()


def _after_in_parent() -> None:
    session = opened()
    if session is not None:
        session.after_fork_in_parent()
    _process.lock.release()


def _after_in_child() -> None:
    _process.lock = threading.RLock()
    session = _process.session
    if session is not None:
        session.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
