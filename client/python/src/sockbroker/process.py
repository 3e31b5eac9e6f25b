"""The sessions of this process: that of its identity, and those of identities that it had before."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any, Callable

from . import identity
from .jsonrpc import Answer
from .session import Session
from .errors import BrokerError, Denied
from .settings import Settings, settings


class _Process:
    """What this process uses: the settings, and the session once it is needed."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.session: Session | None = None
        self.former: list[Session] = []
        """Sessions of identities that this process had before, for their sockets."""
        # Another thread may wait for the first session; a signal's handler may come in between.
        self.lock = threading.RLock()

    def sessions(self) -> list[Session]:
        """Those that have not ended."""
        known = [*self.former, *([self.session] if self.session is not None else [])]
        return [session for session in known if not session.ended]


_process = _Process()


def configure(mode: str | None = None, url: str | None = None) -> Settings:
    """Sets mode and broker for this process. A session with another broker goes on for its sockets."""
    _process.settings = settings(mode, url)
    _process.session = None
    _process.former = []
    return _process.settings


def configured() -> Settings:
    """Mode and broker of this process."""
    return _process.settings or configure()


def current() -> Session:
    """The session for new sockets, whose connections have the identity of the calling thread.

    It is opened at the first need, and again after the broker has gone or the identity has changed.
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
            _leave(session)
        _process.former = [other for other in _process.former if not other.ended]
        for other in _process.former:
            if other.identity.is_same(now) and not other.is_restricted:
                _process.former.remove(other)
                _process.session = other
                return other
        session = _process.session = Session(configured().endpoint)
    return session


def _leave(session: Session) -> None:
    """Goes on without a session of another identity: its sockets keep it, and its privileges end with the identity's."""
    try:
        session.follow_identity()
    except (OSError, RuntimeError, NotImplementedError):
        pass  # then it serves its sockets alone
    if session.handles or session.is_restricted:
        _process.former.append(session)
    else:
        session.end()


def opened() -> Session | None:
    """The session, if there is one."""
    session = _process.session
    return None if session is None or session.ended else session


Unwanted = Callable[[Session, Answer], None]


def call(method: str, params: Any, unwanted: Unwanted | None = None, **beside: Any) -> tuple[Session, Answer]:
    """Calls a method that needs no handle; once more in a new session if the broker has been restarted.

    Where the broker refuses the present identity, a session of an earlier one may do what needs no privilege.
    `unwanted` gets the answer to a call that was interrupted.
    """
    try:
        return _call(method, params, unwanted, beside)
    except (BrokerError, Denied) as refusal:
        restricted = next((session for session in _process.sessions() if session.is_restricted), None)
        if restricted is None:
            raise
        try:
            return _call_in(restricted, method, params, unwanted, beside)
        except BrokerError:
            raise refusal from None
        except Denied as denied:
            raise (refusal if isinstance(refusal, Denied) else denied) from None


def _call(method: str, params: Any, unwanted: Unwanted | None, beside: dict[str, Any]) -> tuple[Session, Answer]:
    session = current()
    try:
        return _call_in(session, method, params, unwanted, beside)
    except BrokerError:
        if not session.ended:
            raise
    return _call_in(current(), method, params, unwanted, beside)


def _call_in(
    session: Session, method: str, params: Any, unwanted: Unwanted | None, beside: dict[str, Any]
) -> tuple[Session, Answer]:
    late = functools.partial(unwanted, session) if unwanted is not None else None
    return session, session.call(method, params, late=late, **beside)


def _before_fork() -> None:
    _process.lock.acquire()
    for session in _process.sessions():
        session.before_fork()


def _after_in_parent() -> None:
    for session in _process.sessions():
        session.after_fork_in_parent()
    _process.lock.release()


def _after_in_child() -> None:
    _process.lock = threading.RLock()
    for session in _process.sessions():
        session.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
