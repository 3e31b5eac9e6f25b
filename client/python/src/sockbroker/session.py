"""A session with the broker: its calls, and its clone for a child process."""

from __future__ import annotations

import _thread
import contextlib
import sys
from collections.abc import Iterator, Sequence

from . import identity
from .call import Call, Message
from .connection import Unsent
from .errors import BrokerError, ChannelInterrupted
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response, checked
from .pending import Pending, SharedPending
from .pool import Pool
from .shared import in_thread_of_a_connection

if TYPE_CHECKING:
    from .client import Client
    from .persistence import Persistence
    from .route import Route

_MAX_PART = 1 << 22

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
"""Filters for `session.restrict`: what the kernel allows to every user, and the use of open sockets."""


class Session:
    """Owns handles, which end with it."""

    def __init__(self, client: Client, route: Route) -> None:
        """Opens a session. Raises `BrokerError` if there is no broker."""
        self.client = client
        self.is_restricted = False
        """Whether it has given up all privileges."""
        self.excludes_unix_sockets = False
        """Whether the policy does not let it use the Unix sockets of this process."""
        self.handles = 0
        """The number of its open handles of sockets."""
        self.known_options: set[tuple[int, int]] = set()
        """The options that the broker has set on a connection, of those that `setsockopt` need not wait for."""
        self.captures = 0
        """The number of its open captures, which a child process does not get."""
        self._clone: tuple[str, Any] | None = None
        self._clone_failure = ""
        self._persistence: Persistence | None = None
        """What repeats calls, if the session outlives the process that serves it."""
        self._use(Pool(route, None, client.settings.persist))
        # This call also opens a first connection for calls. The anchor alone would make them slower.
        limits = self.call("session.limits", []).value
        self.max_receive: int = limits["receive_bytes"]["value"]
        """The most bytes that one call receives."""
        self.max_part: int = min(limits["frame_bytes"]["value"] // 2, _MAX_PART)
        """The most bytes that one call sends."""
        timeout = client.default_timeout()
        if timeout is not None:
            self.call("socket.setdefaulttimeout", [timeout])

    def _use(self, pool: Pool) -> None:
        self._pool = pool
        self._persistence = None
        if pool.persists:
            from .persistence import Persistence  # for this option alone

            self._persistence = Persistence(self, pool, self.client.settings.reconnect_seconds)

    @property
    def passes_descriptors(self) -> bool:
        """Whether its connections can carry descriptors."""
        return self._pool.route.endpoint.passes_descriptors

    @property
    def ended(self) -> bool:
        """Whether its handles are lost."""
        return self._pool.ended

    @property
    def is_cut_off(self) -> bool:
        """Whether it has ended for this process alone, which may still have descriptors of its sockets."""
        return self._pool.is_cut_off or not self._pool.has_anchor()

    def check_served(self) -> None:
        """Raises `ChannelInterrupted` if the process of the broker that serves it has ended, or is about to."""
        if self._pool.is_closed or self.is_cut_off:
            return
        try:
            self.call("session.info", [])
        except (BrokerError, RuntimeError) as error:
            raise ChannelInterrupted(getattr(error, "strerror", None) or str(error)) from None

    @property
    def identity(self) -> identity.Identity:
        """The identity that the broker has recorded for this process."""
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
        expected_bytes: int = 0,
        takes_descriptors: bool = False,
        undelivered: Any = None,
        before: tuple[str, Any] | None = None,
    ) -> Response:
        """Calls a method. Raises the broker's errors as the exceptions that they stand for.

        `before` is a method with its parameters that the broker executes first, without a response.

        If the exception of a signal handler interrupts the call, this cancels it. If the broker had already done
        the call, this passes the response to `undelivered`.
        """
        if self._persistence is not None:
            message = Message(method, params, attachments, descriptors, before)
            return self._persistence.call(message, expected_bytes, takes_descriptors, undelivered)
        connection = self._pool.take(method)
        if connection is None:
            message = Message(method, params, attachments, descriptors, before)
            return checked(self._call_shared(Call(message), undelivered))
        # Computed before sending: an exception can interrupt the call before that too.
        number, request = connection.number, connection.request + 1
        try:
            connection.send(method, params, attachments, descriptors, before)
            response = connection.receive(expected_bytes, takes_descriptors)
        except BrokerError:
            self._pool.drop(connection)
            self._pool.check_alive()
            if self._pool.is_closed:
                raise self._pool.error() from None
            raise
        except Unsent as error:
            self._pool.give_back(connection)
            raise OSError(error.errno, error.strerror) from None
        except BaseException:
            self._pool.drop(connection)
            if undelivered is not None:
                self.fetch_outcome(number, request, undelivered)
            raise
        self._pool.give_back(connection)
        return checked(response)

    def notify(self, method: str, params: Any) -> None:
        """Makes a call without waiting for its end. What is called later on the same connection comes after it."""
        if self._persistence is not None:
            self.call(method, params)
            return
        connection = self._pool.take(method)
        if connection is None:
            self._pool.share(call := Call(Message(method, params))).notify(call)
            return
        try:
            connection.notify(method, params)
        except BaseException:
            self._pool.drop(connection)
            self._pool.check_alive()
            raise
        self._pool.give_back(connection)

    @property
    def has_single_connection(self) -> bool:
        """Whether all calls have one connection, which keeps their order."""
        return self._pool.route.is_single and self._persistence is None

    @property
    def keeps_order(self) -> bool:
        """Whether the calls of this thread keep their order."""
        return self.has_single_connection or not _thread._count()

    @contextlib.contextmanager
    def pending(self, method: str, params: Any) -> Iterator[Pending | SharedPending]:
        """Makes a call during which this process can wait for something else too."""
        connection = self._pool.take(method)
        if connection is None:
            call = Call(Message(method, params))
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

    def recovers(self) -> bool:
        """Returns to the broker after the loss of a connection, if the session outlives that."""
        return self._persistence is not None and self._persistence.recovers()

    def note_shared(self, handle: int | None) -> None:
        """Records that the program can use a socket by its descriptor from now on."""
        if self._persistence is not None:
            self._persistence.forget_position(handle)

    def follow_identity(self) -> None:
        """Restricts the session to what every user may do, if this process has given up its rights.

        The broker applies that to all connections of the session.
        """
        if not self.is_restricted and identity.current().has_given_up(self.identity):
            self.call("session.restrict", {"filters": _UNPRIVILEGED})
            self.is_restricted = True

    def fetch_outcome(self, number: int, request: int, undelivered: Any) -> None:
        """Asks the broker for the outcome of a call whose connection was dropped."""
        try:
            params = {"connection": number, "request": request}
            response = self.call("call.resolve", params, takes_descriptors=True)
        except Exception:
            return
        found = response.value
        if found["state"] == "answered" and "result" in found["answer"]:
            response.value = found["answer"]["result"]
            undelivered(response)

    def _call_shared(self, call: Call, undelivered: Any) -> Response:
        if sys.is_finalizing():
            raise self._pool.error()  # no thread runs any more that could send it
        shared = self._pool.share(call)
        if in_thread_of_a_connection():
            shared.notify(call)  # a finalizer, which must not wait for the thread that it runs in
            return Response({"result": None})
        try:
            return shared.run(call, undelivered)
        except Unsent as error:
            raise OSError(error.errno, error.strerror) from None
        except BrokerError:
            self._pool.check_alive()
            if self._pool.is_closed:
                raise self._pool.error() from None
            raise

    def end(self, reason: str = "has ended; create the socket again") -> None:
        """Closes every connection, and thereby every handle. The errors of later calls include the reason."""
        self._pool.end(reason)

    # fork(): the child continues with a clone, in which every handle has the same number.

    def before_fork(self) -> None:
        """Creates the clone and its anchor, while the parent still has all its connections."""
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
            checked(anchor.begin("session.attach", {"token": token}))
            if self._persistence is not None:
                anchor.send("session.open", {"persist": True})
                checked(anchor.receive())
        except (OSError, RuntimeError) as error:
            self._clone_failure = str(error)
            anchor.close()
        else:
            self._clone = (token, anchor)

    def after_fork_in_parent(self) -> None:
        """Closes the parent's copy of the anchor of the clone."""
        clone, self._clone = self._clone, None
        if clone is not None:
            clone[1].close()

    def after_fork_in_child(self) -> None:
        """Closes the child's copies of the parent's connections, and continues with the clone if there is one."""
        clone, self._clone = self._clone, None
        failure = self._clone_failure
        self._pool.leave(f"could not be cloned for this child process: {failure}" if failure else "")
        if clone is not None:
            before = self._pool
            self._use(Pool(before.route, clone, before.persists))
            self._pool.identity = before.identity
