"""The settings and sessions of this process, which has one session for each identity that it has had."""

from __future__ import annotations

import functools
import os
from _thread import RLock
from collections.abc import Callable

from . import identity
from .errors import BrokerError, Denied
from .hints import TYPE_CHECKING, Any
from .settings import Settings, settings

if TYPE_CHECKING:
    from .jsonrpc import Response
    from .session import Session


class _Process:
    """The settings of this process, and its session once it needs one."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.session: Session | None = None
        self.former: list[Session] = []
        """The sessions of identities that this process had before, for their sockets."""
        # Another thread can wait for the first session, and a signal handler can interrupt that.
        self.lock = RLock()

    def sessions(self) -> list[Session]:
        """The sessions that have not ended."""
        known = [*self.former, *([self.session] if self.session is not None else [])]
        return [session for session in known if not session.ended]


_process = _Process()


def configure(mode: str | None = None, url: str | None = None) -> Settings:
    """Sets mode and broker for this process. Open sockets keep their session with another broker."""
    _process.settings = settings(mode, url)
    _process.session = None
    _process.former = []
    return _process.settings


def configured() -> Settings:
    """Mode and broker of this process."""
    return _process.settings or configure()


def current() -> Session:
    """The session for new sockets, whose connections have the identity of the calling thread.

    This opens it when it is needed first, after a restart of the broker, and after a change of identity.
    """
    session = _process.session
    if session is not None and not session.ended and not session.is_stale():
        return session
    with _process.lock:
        session, _process.session = _process.session, None
        now = identity.current()
        if session is not None and not session.ended:
            if session.identity.is_same(now):
                _process.session = session
                return session
            _retire(session)
        _process.former = [other for other in _process.former if not other.ended]
        for other in _process.former:
            if other.identity.is_same(now) and not other.is_restricted:
                _process.former.remove(other)
                _process.session = other
                return other
        session = _process.session = _open()
    return session


def _open() -> Session:
    from .session import Session  # direct mode needs it only after a refusal of the kernel

    return Session(configured().endpoint)


def _retire(session: Session) -> None:
    """Keeps a session of another identity for its sockets, and restricts it if the process has lost its rights."""
    try:
        session.follow_identity()
    except (OSError, RuntimeError, NotImplementedError):
        pass  # it serves its sockets alone
    if session.handles or session.is_restricted:
        _process.former.append(session)
    else:
        session.end()


def opened() -> Session | None:
    """The session, if it is open."""
    session = _process.session
    return None if session is None or session.ended else session


Unwanted = Callable[["Session", "Response"], None]


def call(method: str, params: Any, unwanted: Unwanted | None = None, **parts: Any) -> tuple[Session, Response]:
    """Calls a method that needs no handle. Repeats the call in a new session if the broker has restarted.

    If the broker refuses the present identity, this tries a restricted session of an earlier identity, which may do
    what needs no privilege. `unwanted` gets the response to a call that was interrupted.
    """
    try:
        return _call(method, params, unwanted, parts)
    except (BrokerError, Denied) as refusal:
        restricted = next((session for session in _process.sessions() if session.is_restricted), None)
        if restricted is None:
            raise
        try:
            return _call_in(restricted, method, params, unwanted, parts)
        except BrokerError:
            raise refusal from None
        except Denied as denied:
            raise (refusal if isinstance(refusal, Denied) else denied) from None


def _call(method: str, params: Any, unwanted: Unwanted | None, parts: dict[str, Any]) -> tuple[Session, Response]:
    session = current()
    try:
        return _call_in(session, method, params, unwanted, parts)
    except BrokerError:
        if not session.ended:
            raise
    return _call_in(current(), method, params, unwanted, parts)


def _call_in(
    session: Session, method: str, params: Any, unwanted: Unwanted | None, parts: dict[str, Any]
) -> tuple[Session, Response]:
    undelivered = functools.partial(unwanted, session) if unwanted is not None else None
    return session, session.call(method, params, undelivered=undelivered, **parts)


def _before_fork() -> None:
    _process.lock.acquire()
    for session in _process.sessions():
        session.before_fork()


def _after_fork_in_parent() -> None:
    for session in _process.sessions():
        session.after_fork_in_parent()
    _process.lock.release()


def _after_fork_in_child() -> None:
    _process.lock = RLock()
    for session in _process.sessions():
        session.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
