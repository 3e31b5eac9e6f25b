"""The connections of one session with the broker.

Each call in progress has its own connection as long as there are few. One connection for each thread would not
be enough: the garbage collector can start a `close` in the middle of another call of the same thread. For the same
reason nothing here holds a lock during a call. Further calls share connections, also when no connection can be
opened any more.
"""

from __future__ import annotations

import collections
import contextlib
import select as _select
import threading
import time
import weakref

from . import errors, identity
from .call import Call
from .connection import Connection
from .errors import BrokerError
from .hints import TYPE_CHECKING, Any
from .identity import Identity
from .shared import SharedConnection, in_thread_of_a_connection

if TYPE_CHECKING:
    from .jsonrpc import Response
    from .route import Route

_MAX_IDLE = 16
_MAX_EXCLUSIVE = 16
_MAX_SHARED = 100
_PAUSE = 0.001
_END_MILLISECONDS = 200
_poll = _select.poll
# The broker responds to these at once, so the anchor can carry them if there is no other connection.
_QUICK = frozenset(
    "socket." + name
    for name in ("socket", "close", "dup", "attributes", "getsockname", "getpeername", "getsockopt", "settimeout")
) | {"session.clone"}  # fmt: skip


class Pool:
    """An anchor connection, which keeps the session alive, and connections for calls."""

    def __init__(
        self, route: Route, clone: tuple[str, Connection] | None = None, persists: bool = False
    ) -> None:
        """Opens a session, or continues a clone of one. Raises `BrokerError` if there is no broker."""
        self.route = route
        self.persists = persists
        """Whether the session outlives the process that serves it. Then the loss of connections does not end it."""
        self.ended = False
        self.is_closed = False
        """Whether this program has ended the session."""
        self.is_cut_off = False
        """Whether the session ended for this process alone, which may still have descriptors of its sockets."""
        self.identity: Identity = identity.current()
        """The identity that the broker has recorded for the connections."""
        self._end = "has ended; create the socket again"
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._idle: collections.deque[Connection] = collections.deque()
        self._shared: list[SharedConnection] = []
        self._guard = threading.RLock()
        self._free_anchor: collections.deque[Connection] = collections.deque()
        self._anchor_user = -1
        self._opening: list[int] = []
        """The threads that are opening a connection."""
        self._attaching: Connection | None = None
        """A connection whose first call the broker has not answered yet, after the loss of the others."""
        self._opener = -1
        """The thread that is opening a connection to share."""
        self._token = ""
        if clone is None:
            self._anchor = self._connect()
            params = {"persist": True, "exactly_once": True} if persists else {}
            self._token = self._attach(self._anchor, "session.open", params)["token"]
        else:
            self._token, self._anchor = clone
            self._connections.add(self._anchor)
        self._free_anchor.append(self._anchor)

    def is_stale(self) -> bool:
        """Whether this thread has another identity than the connections."""
        return not self.identity.is_same(identity.current())

    # Connections with one call in progress.

    def take(self, method: str) -> Connection | None:
        """A connection for one call; `None` if the call must share one."""
        if self.ended:
            raise self.error()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._take_another(method)
            if connection.is_ours() and not self._is_outlived(connection):
                return connection
            self.drop(connection)

    def _is_outlived(self, connection: Connection) -> bool:
        """Whether it is a connection to an earlier process than that of the anchor. A call that had its response just before
        the end has given it back after it."""
        return self.persists and connection.epoch < self._anchor.epoch

    def _take_another(self, method: str) -> Connection | None:
        if self.is_stale():
            return None
        if self.persists and not self._is_anchor_alive(0):
            raise self.error()
        present = len(self._connections) + len(self._opening)
        if present == 1 and method in _QUICK and self._anchor.is_ours():
            with contextlib.suppress(IndexError):
                anchor = self._free_anchor.pop()
                self._anchor_user = threading.get_ident()
                return anchor
        if self.route.is_single:
            return None
        # The handlers of signals run in the main thread, where an exclusive connection can be dropped.
        is_main = threading.current_thread() is threading.main_thread()
        if present > _MAX_EXCLUSIVE and not is_main and not in_thread_of_a_connection():
            return None
        me = threading.get_ident()
        self._opening.append(me)
        try:
            return self._open_another()
        except OSError:
            if self._is_anchor_alive(0):
                return None
            self.note_end()
            if self.is_closed:
                raise self.error() from None
            raise
        finally:
            self._opening.remove(me)

    def give_back(self, connection: Connection) -> None:
        """Takes back a connection whose call has ended."""
        if self.is_closed:
            self.drop(connection)
        elif connection is self._anchor:
            self._free_anchor.append(connection)
        elif len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            self.drop(connection)

    def _open_another(self) -> Connection:
        connection = self._connect()
        self._attach(connection, "session.attach", {"token": self._token})
        if self.is_closed:
            self.drop(connection)
            raise self.error()
        return connection

    def _connect(self) -> Connection:
        connection = Connection(self.route)
        self._connections.add(connection)
        return connection

    def _attach(self, connection: Connection, method: str, params: dict[str, Any]) -> Any:
        try:
            response = connection.begin(method, params)
        except BaseException:
            self.drop(connection)
            raise
        return self._attached(connection, response)

    def _attached(self, connection: Connection, response: Response) -> Any:
        if response.error is None:
            return response.value
        self.drop(connection)
        if (response.error.get("data") or {}).get("kind") == "session":
            self.note_end(True)  # another broker has started there, which does not have this session
            raise self.error()
        raise errors.exception(response.error)

    def drop(self, connection: Connection) -> None:
        """Closes a connection. Replaces it if it is the anchor."""
        if connection is self._anchor and self._token and not self.ended and not self.persists:
            try:
                self._anchor = self._open_another()
            except OSError:
                self.note_end()
            else:
                self._free_anchor.clear()
                self._free_anchor.append(self._anchor)
                for shared in [shared for shared in self._shared if shared.carries(connection)]:
                    self._shared.remove(shared)
                    shared.close()
        self._connections.discard(connection)
        connection.close()

    def check_alive(self) -> None:
        """Finds out, after the loss of a connection, whether the session has ended too."""
        if self.ended:
            return
        if not self.is_stale() and not self.route.is_single:
            try:
                return self._idle.append(self._open_another())
            except Exception:
                pass
        if not self.ended and not self._is_anchor_alive(_END_MILLISECONDS):
            self.note_end()

    def _is_anchor_alive(self, milliseconds: int) -> bool:
        """Whether the anchor is open. A broker that ends may need a moment to close it."""
        if any(shared.carries(self._anchor) and shared.ended for shared in self._shared):
            return False
        if self.ended or not self._anchor.is_ours():
            return False
        poll = _poll()
        poll.register(self._anchor.fileno(), 0)
        return not poll.poll(milliseconds) and not self.ended

    # The end of the process that serves a session which outlives it.

    def epoch(self) -> int:
        """The number of the process that serves the session."""
        return self._anchor.epoch

    def is_anchor_alive(self) -> bool:
        """Whether the broker has not closed the anchor."""
        return self._is_anchor_alive(0)

    def attach_by(self, deadline: float) -> Connection:
        """A further connection to the session, if the broker responds by then. Raises `BrokerError` otherwise.

        A later call continues to wait for the same response. The request of a connection that this process abandons can
        be the first that the next broker reads, and its session would end with the connection.
        """
        connection = self._attaching
        if connection is None:
            connection = self._attaching = self._connect()
            try:
                connection.begin_sending("session.attach", {"token": self._token})
            except BaseException:
                self._attaching = None
                self.drop(connection)
                raise
        if not connection.is_readable_by(deadline):
            raise BrokerError(f"the broker at {self.route.endpoint} has not answered yet")
        self._attaching = None
        try:
            response = connection.finish_beginning()
        except BaseException:
            self.drop(connection)
            raise
        self._attached(connection, response)
        return connection

    def replace_anchor(self, connection: Connection) -> None:
        """Keeps the session open by another connection. Those of the ended process close."""
        ended, self._anchor = self._anchor, connection
        is_free = ended in self._free_anchor
        self._free_anchor.clear()
        self._free_anchor.append(connection)
        with contextlib.suppress(IndexError):
            while True:
                self.drop(self._idle.pop())
        for shared in [shared for shared in self._shared if shared.carries(ended)]:
            self._shared.remove(shared)
            shared.end()
        self._connections.discard(ended)
        if is_free:
            ended.close()
        else:
            ended.shut_down()  # the thread that uses it closes it

    def has_anchor(self) -> bool:
        """Whether the session has an anchor. Replaces one whose descriptor the program has closed."""
        if not self.ended and not self._anchor.is_ours():
            self.drop(self._anchor)
        return not self.is_cut_off

    def note_end(self, is_certain: bool = False) -> None:
        """Marks the session as ended, unless it outlives the process that serves it."""
        if self.persists and not is_certain:
            return
        self.ended = True
        if self.is_closed:
            return
        if self.persists:
            self._end = "did not outlive the broker, whose service manager may keep no sockets; create the socket again"
            return
        explanation = self.route.explanation()
        if explanation:
            self._end = f"has ended: {explanation}; create the socket again"
        if not self._anchor.is_ours():
            self.is_cut_off = True
            reason = "the program closed the descriptors of its connections"
            self._end = f"has ended, because {reason}; create the socket again"

    def error(self) -> BrokerError:
        """The exception of a call after the end of the session."""
        error = BrokerError(f"cannot use this socket: its session with the broker at {self.route.endpoint} {self._end}")
        error.is_unsent = True
        return error

    # Connections with several calls in progress.

    def share(self, call: Call) -> SharedConnection:
        """A connection on which the call can begin. Reserves its place there."""
        while True:
            with self._guard:
                for shared in self._shared:
                    if shared.has_room_for(call):
                        shared.add(call)
                        return shared
                if not any(shared.carries(self._anchor) for shared in self._shared):
                    if self._share_anchor():
                        continue
                    if not self._is_anchor_alive(0):
                        self.note_end()
                        if self.persists:
                            raise self.error()
                    if self.ended or self._anchor_user == threading.get_ident():
                        raise self.error()
                    is_waiting = True  # a short call of another thread has the anchor
                else:
                    is_waiting = False
            added = None if is_waiting else self._add_shared()
            if added is None:
                time.sleep(_PAUSE)
            elif not added:
                shared = min(list(self._shared), key=SharedConnection.load)
                shared.add(call)
                return shared

    def _share_anchor(self) -> bool:
        """Shares the anchor if it is free. The exception of a signal handler leaves it free or shared."""
        taken: list[Connection] = []
        try:
            with contextlib.suppress(IndexError):
                # One step for the interpreter, which runs no handler between the removal and the addition.
                taken.extend(iter(self._free_anchor.pop, None))
            if taken:
                self._shared.append(SharedConnection(taken[-1], None))
            return bool(taken)
        finally:
            if taken and not any(shared.carries(taken[-1]) for shared in self._shared):
                self._free_anchor.append(taken[-1])

    def _add_shared(self) -> bool | None:
        """Opens another connection to share. Returns whether it did; `None` while another thread is opening one."""
        me = threading.get_ident()
        try:
            with self._guard:
                if self._opener not in (-1, me):
                    return None
                self._opener = me
            if self.is_stale() or self.route.is_single or len(self._shared) >= _MAX_SHARED:
                return False
            self._shared.append(SharedConnection(self._open_another(), self._forget_shared))
        except OSError:
            return False
        finally:
            if self._opener == me:
                self._opener = -1
        return True

    def _forget_shared(self, shared: SharedConnection) -> None:
        self._connections.discard(shared.connection)
        with contextlib.suppress(ValueError):
            self._shared.remove(shared)

    # The end of the session, and fork().

    def for_clone(self) -> Connection:
        """A connection for a child process. After a change of identity it must be open already."""
        if not self.is_stale():
            return Connection(self.route)
        try:
            connection = self._idle.pop()
        except IndexError:
            text = "no connection is left from the time before this process changed its user, groups or capabilities"
            raise BrokerError(text) from None
        self._connections.discard(connection)
        return connection

    def end(self, reason: str) -> None:
        """Ends every connection, and with them every handle. The threads that use connections close them."""
        self._end = reason
        self.ended = self.is_closed = True
        for connection in list(self._connections):
            connection.shut_down()
        for shared in list(self._shared):
            shared.end()
        for unused in (self._idle, self._free_anchor):
            with contextlib.suppress(IndexError):
                while True:
                    self.drop(unused.pop())

    def leave(self, reason: str) -> None:
        """Closes a child's copies of the connections of its parent. The errors of later calls include the reason."""
        for connection in self._connections:
            connection.forget()
        for shared in self._shared:
            shared.forget()
        self.ended = True
        if reason:
            self.is_cut_off = True
            self._end = reason
