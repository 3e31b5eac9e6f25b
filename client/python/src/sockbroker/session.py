"""A session with the broker: its calls, and what becomes of it when its process forks."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

from . import errors, identity, native
from .jsonrpc import Answer
from .call import Call
from .connection import Unsent
from .errors import BrokerError
from .pending import Pending, SharedPending
from .pool import Pool
from .settings import Endpoint
from .shared import in_thread_of_a_connection

_UNPRIVILEGED = (
    {"allow": ["adopt", "listen", "accept", "connect", "send", "receive", "capture", "inject", "spoof", "ioctl"]},
    {"allow": ["inspect", "handover", "session", "resolve", "interfaces", "hostname"]},
    {"allow": ["create"], "family": ["AF_INET", "AF_INET6"], "type": ["SOCK_STREAM", "SOCK_DGRAM"],
     "protocol": ["IPPROTO_TCP", "IPPROTO_UDP"]},
    {"allow": ["create", "bind"], "family": ["AF_UNIX"]},
    {"allow": ["bind"], "family": ["AF_INET", "AF_INET6"], "local_ports": ["0", "1024-65535"]},
    {"allow": ["bind"], "family": ["AF_PACKET"]},
    {"allow": ["bind"], "family": ["AF_INET", "AF_INET6"], "type": ["SOCK_RAW"]},
    {"allow": ["create", "bind", "send"], "family": ["AF_NETLINK"], "protocol": ["NETLINK_ROUTE"], "netlink": ["get"]},
    {"allow": ["option"], "option": ["ordinary", "multicast", "filter", "packet", "netlink"]},
)  # fmt: skip
"""Filters for `session.restrict`: what the kernel lets anyone do, and the use of sockets that are open."""


class Session:
    """Handles live in a session, and end with it."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Opens a session; `BrokerError` if there is no broker."""
        self.endpoint = endpoint
        self.is_restricted = False
        """Whether it has given up what needs privileges."""
        self.keeps_unix_sockets = False
        """Whether the policy keeps Unix sockets of this process from it."""
        self.handles = 0
        """How many handles of it are open."""
        self._clone: tuple[str, Any] | None = None
        self._clone_failure = ""
        self._pool = Pool(endpoint)
        limits = self.call("session.limits", []).value
        self.receive_bytes: int = limits["receive_bytes"]["value"]
        """The most that one call receives."""
        self.part_bytes: int = min(limits["frame_bytes"]["value"] // 2, 1 << 22)
        """The most that one call sends."""
        timeout = native.module.getdefaulttimeout()
        if timeout is not None:
            self.call("socket.setdefaulttimeout", [timeout])

    @property
    def passes_descriptors(self) -> bool:
        """Whether its connections carry descriptors: those through a command may end in a pipe."""
        return not self.endpoint.command

    @property
    def ended(self) -> bool:
        """Whether its handles are lost."""
        return self._pool.ended

    @property
    def is_cut_off(self) -> bool:
        """Whether it has ended in this process alone, which may still have descriptors of its sockets."""
        return self._pool.is_cut_off or not self._pool.has_anchor()

    @property
    def identity(self) -> identity.Identity:
        """Whom the broker takes this process for."""
        return self._pool.identity

    def is_stale(self) -> bool:
        """Whether this thread has another identity now."""
        return self._pool.is_stale()

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
        """Calls a method; the broker's errors are raised as the exceptions they encode.

        If the call is interrupted, by an exception of a signal's handler, it is cancelled. If it was answered all
        the same, `late` is called with the answer.
        """
        connection = self._pool.take(method)
        if connection is None:
            return _checked(self._call_shared(Call(method, params, attachments, descriptors), late))
        # Known before it is sent: an exception may strike before that too.
        number, request = connection.number, connection.request + 1
        try:
            answer = connection.call(method, params, attachments, descriptors, room, takes_descriptors)
        except BrokerError:
            self._pool.drop(connection)
            self._pool.check_alive()
            raise
        except Unsent as error:
            self._pool.give_back(connection)
            raise OSError(error.errno, error.strerror) from None
        except BaseException:
            self._pool.drop(connection)
            if late is not None:
                self._settle(number, request, late)
            raise
        self._pool.give_back(connection)
        return _checked(answer)

    @contextlib.contextmanager
    def pending(self, method: str, params: Any) -> Iterator[Pending | SharedPending]:
        """A call that is in progress while this process waits for something else too."""
        connection = self._pool.take(method)
        if connection is None:
            call = Call(method, params)
            with SharedPending(self._pool.share(call), call) as pending:
                yield pending
            return
        try:
            connection.send(method, params)
            yield Pending(connection)
        except BaseException:
            self._pool.drop(connection)
            raise
        self._pool.give_back(connection)

    def follow_identity(self) -> None:
        """If this process has given up its rights, keeps those that the kernel gives to anyone.

        The broker holds all connections of the session to that.
        """
        if not self.is_restricted and identity.current().has_given_up(self.identity):
            self.call("session.restrict", {"filters": _UNPRIVILEGED})
            self.is_restricted = True

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

    def _call_shared(self, call: Call, late: Any) -> Answer:
        shared = self._pool.share(call)
        if in_thread_of_a_connection():
            shared.notify(call)  # a finalizer: it must not wait for its own thread
            return Answer({"result": None})
        try:
            return shared.run(call, late)
        except Unsent as error:
            raise OSError(error.errno, error.strerror) from None
        except BrokerError:
            self._pool.check_alive()
            raise

    def end(self) -> None:
        """Closes every connection, and with them every handle."""
        self._pool.end()

    # fork(): the child goes on with a clone, in which every handle has the same number.

    def before_fork(self) -> None:
        """Makes the clone, and its anchor, while the parent still has all its connections."""
        self._clone, self._clone_failure = None, ""
        if self.ended or not self.handles:
            return
        try:
            token = self.call("session.clone", []).value["token"]
            anchor = self._pool.for_clone()
        except OSError as error:
            self._clone_failure = error.strerror or str(error)
            return
        try:
            _checked(anchor.begin("session.attach", {"token": token}))
        except (OSError, RuntimeError) as error:
            self._clone_failure = str(error)
            anchor.close()
        else:
            self._clone = (token, anchor)

    def after_fork_in_parent(self) -> None:
        """The clone is the child's alone."""
        clone, self._clone = self._clone, None
        if clone is not None:
            clone[1].close()

    def after_fork_in_child(self) -> None:
        """Leaves the parent's connections, and goes on in the clone if there is one."""
        clone, self._clone = self._clone, None
        failure = self._clone_failure
        self._pool.leave(f"could not be cloned for this child process: {failure}" if failure else "")
        if clone is not None:
            before = self._pool
            self._pool = Pool(self.endpoint, clone)
            self._pool.identity = before.identity


def _checked(answer: Answer) -> Answer:
    if answer.error is not None:
        raise errors.exception(answer.error)
    return answer
