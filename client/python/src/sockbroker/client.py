"""A client of one broker: its settings, and its sessions, one for each identity that this process has had."""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from _thread import RLock, get_ident
from collections.abc import Callable

from . import identity, native
from .errors import BrokerError, Denied
from .hints import TYPE_CHECKING, Any
from .settings import CHANNEL, OF_BROKER, Settings

if TYPE_CHECKING:
    from .jsonrpc import Response
    from .route import Route
    from .session import Session

_ATTEMPTS = 3

Unwanted = Callable[["Session", "Response"], None]


class Client:
    """The use of one broker by this process."""

    def __init__(self, settings: Settings, has_own_timeout: bool = False) -> None:
        """Opens no connection. With `has_own_timeout`, the default timeout is not that of the process."""
        self.settings = settings
        self.has_own_timeout = has_own_timeout
        self._timeout: float | None = None
        self._session: Session | None = None
        self._former: list[Session] = []
        """The sessions of identities that this process had before, for their sockets."""
        self._route: Route | None = None
        self._is_closed = False
        # Another thread can wait for the first session, and a signal handler can interrupt that.
        self._lock = RLock()
        _clients[next(_numbers)] = self

    @property
    def wants_descriptors(self) -> bool:
        """Whether new sockets get a descriptor."""
        return self.settings.mode not in OF_BROKER

    @property
    def has_channels(self) -> bool:
        """Whether connected streams get the descriptor of a channel."""
        return self.settings.mode == CHANNEL

    @property
    def keeps_unix_sockets(self) -> bool:
        """Whether Unix sockets are native: with channels they need their descriptor, and are of the machine of the broker
        only where that has a user for this program, by ssh."""
        return self.has_channels and self.settings.endpoint.ssh is None

    def default_timeout(self) -> float | None:
        """The timeout of new sockets."""
        return self._timeout if self.has_own_timeout else native.module.getdefaulttimeout()

    def set_default_timeout(self, timeout: Any) -> None:
        """Sets the timeout of new sockets, and in the broker that of accepted ones. Raises CPython's exceptions."""
        if self.has_own_timeout:
            self._timeout = native.checked_timeout(timeout)
        else:
            native.module.setdefaulttimeout(timeout)
        session = self.opened()
        if session is not None:
            session.call("socket.setdefaulttimeout", [self.default_timeout()])

    def sessions(self) -> list[Session]:
        """The sessions that have not ended."""
        known = [*self._former, *([self._session] if self._session is not None else [])]
        return [session for session in known if not session.ended]

    def opened(self) -> Session | None:
        """The session, if it is open."""
        session = self._session
        return None if session is None or session.ended else session

    def current(self) -> Session:
        """The session for new sockets, whose connections have the identity of the calling thread.

        This opens it when it is needed first, after a restart of the broker, and after a change of identity.
        """
        session = self._session
        if session is not None and not session.ended and not session.is_stale():
            return session
        with self._lock:
            session, self._session = self._session, None
            now = identity.current()
            if session is not None and not session.ended:
                if session.identity.is_same(now):
                    self._session = session
                    return session
                self._retire(session)
            self._former = [other for other in self._former if not other.ended]
            for other in self._former:
                if other.identity.is_same(now) and not other.is_restricted:
                    self._former.remove(other)
                    self._session = other
                    return other
            session = self._session = self._open()
        return session

    def _open(self) -> Session:
        from .session import Session  # direct mode needs it only after a refusal of the kernel

        if self._is_closed:
            raise BrokerError(f"cannot use the broker at {self.settings.endpoint}: it was closed by this program")
        for _ in range(_ATTEMPTS - 1):
            route = self._usable_route()
            try:
                return Session(self, route)
            except BrokerError:
                if route.is_usable():
                    raise
        return Session(self, self._usable_route())

    def _usable_route(self) -> Route:
        """The present way to the broker, or another one if that has ended."""
        if self._route is None or not self._route.is_usable():
            from .routes import find  # as above

            self._route = None  # ends it, unless sessions use it
            self._route = find(self.settings.endpoint, self.has_channels, self.settings.pair)
        return self._route

    def _retire(self, session: Session) -> None:
        """Keeps a session of another identity for its sockets and captures, and restricts it if the process has lost its rights."""
        try:
            session.follow_identity()
        except (OSError, RuntimeError, NotImplementedError):
            pass  # it serves its sockets alone
        if session.handles or session.captures or session.is_restricted:
            self._former.append(session)
        else:
            session.end()

    def call(
        self, method: str, params: Any, unwanted: Unwanted | None = None, **parts: Any
    ) -> tuple[Session, Response]:
        """Calls a method that needs no handle. Repeats the call in a new session if the broker has restarted.

        If the broker refuses the present identity, this tries a restricted session of an earlier identity, which may
        do what needs no privilege. `unwanted` gets the response to a call that was interrupted.
        """
        try:
            return self._call(method, params, unwanted, parts)
        except (BrokerError, Denied) as refusal:
            restricted = next((session for session in self.sessions() if session.is_restricted), None)
            if restricted is None:
                raise
            try:
                return _call_in(restricted, method, params, unwanted, parts)
            except BrokerError:
                raise refusal from None
            except Denied as denied:
                raise (refusal if isinstance(refusal, Denied) else denied) from None

    def _call(
        self, method: str, params: Any, unwanted: Unwanted | None, parts: dict[str, Any]
    ) -> tuple[Session, Response]:
        session = self.current()
        try:
            return _call_in(session, method, params, unwanted, parts)
        except BrokerError:
            if not session.ended:
                raise
        return _call_in(self.current(), method, params, unwanted, parts)

    def close(self) -> None:
        """Ends the sessions, and with them their sockets. Calls in progress and later ones raise `BrokerError`."""
        with self._lock:
            self._is_closed = True
            sessions, self._session, self._former = self.sessions(), None, []
            self._route = None
        for session in sessions:
            session.end("was closed by this program")

    # fork()

    def before_fork(self) -> None:
        """Holds the state, and clones the sessions."""
        self._lock.acquire()
        for session in self.sessions():
            session.before_fork()

    def after_fork_in_parent(self) -> None:
        """Releases the state."""
        for session in self.sessions():
            session.after_fork_in_parent()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Continues with the clones."""
        self._lock = RLock()
        for session in self.sessions():
            session.after_fork_in_child()


def _call_in(
    session: Session, method: str, params: Any, unwanted: Unwanted | None, parts: dict[str, Any]
) -> tuple[Session, Response]:
    undelivered = functools.partial(unwanted, session) if unwanted is not None else None
    return session, session.call(method, params, undelivered=undelivered, **parts)


_numbers = itertools.count()
_clients: weakref.WeakValueDictionary[int, Client] = weakref.WeakValueDictionary()
_forking: dict[int, list[Client]] = {}
"""The clients that each thread holds during its fork. Other threads can create clients and fork meanwhile."""


def _before_fork() -> None:
    held = _forking[get_ident()] = []
    for reference in _clients.valuerefs():  # in the same order in every thread
        client = reference()
        if client is not None:
            held.append(client)
            client.before_fork()


def _after_fork_in_parent() -> None:
    for client in _forking.pop(get_ident(), ()):
        client.after_fork_in_parent()


def _after_fork_in_child() -> None:
    held = _forking.pop(get_ident(), ())
    _forking.clear()
    for client in held:
        client.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
