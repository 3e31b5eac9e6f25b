"""Calls of a session that outlives the processes of the broker: each is sent until it has a result, or an exception that
says why not.

The rules are those of PROTOCOL.md, "Persistent sessions".
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Sequence

from . import errors, native
from .attempts import Ended, Lost, NotSent, Request, Unsettled, pauses_between
from .call import Call, Message
from .call_kinds import ACCEPT, BIND, CLOSE, CONNECT, CREATE, POLL, RECEIVE, REPEAT, SEND, CallFacts
from .connection import Connection, Unsent
from .errors import BrokerError, CallInterrupted, Denied
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response, checked
from .shared import in_thread_of_a_connection
from .stream_positions import StreamPositions, is_tcp

if TYPE_CHECKING:
    from .pool import Pool
    from .session import Session

_TIMED = (ACCEPT, CONNECT, SEND, RECEIVE)
_UNIX = 1
_LOSSY = (2, 3, 10)
"""`SOCK_DGRAM`, `SOCK_RAW` and `SOCK_PACKET`."""
_NOT_KNOWN = "whether this call took effect is not known"


class Persistence:
    """What repeats the calls of a session."""

    def __init__(self, session: Session, pool: Pool, seconds: float) -> None:
        self._session = session
        self._pool = pool
        self._seconds = seconds
        self._positions = StreamPositions()
        # A finalizer can make a call while its own thread connects again.
        self._lock = threading.RLock()
        self._generation = 0
        """How often the anchor was replaced."""
        self._down_since: float | None = None

    def forget_position(self, handle: int | None) -> None:
        """Records that others can use a stream from now on, and reports that to the broker."""
        if handle is None or not self._positions.readers.knows(handle):
            self._positions.forget(handle)
            return
        try:
            # It removes the position too.
            response = self.call(Message("socket.fileno", [handle]), takes_descriptors=True)
            descriptor = response.take_descriptor()
        except OSError:
            self._positions.share(handle)  # the next call on the socket has the same error
        else:
            if descriptor is not None:
                os.close(descriptor)

    def call(
        self, message: Message, expected_bytes: int = 0, takes_descriptors: bool = False, undelivered: Any = None
    ) -> Response:
        """`Session.call`."""
        request = Request(message, expected_bytes, takes_descriptors)
        facts = request.facts
        self._note_timeout(message.method, message.params)
        if message.before is not None:
            self._note_timeout(*message.before)
        timeout = self._positions.timeouts.get(facts.handle) if facts.handle is not None else None
        if facts.kind == POLL:
            timeout = message.params[1]
        if timeout and (facts.kind in _TIMED or facts.kind == POLL):
            request.deadline = time.monotonic() + timeout
        self._positions.begin(facts)
        try:
            response = self._run(request, undelivered)
        except BaseException as error:
            self._positions.abandon(facts, error)
            raise
        failed = (response.error.get("data") or {}).get("sent", 0) if response.error is not None else None
        self._positions.end(facts, response.value, failed)
        return checked(response)

    def _note_timeout(self, method: str, params: Any) -> None:
        if method == "socket.settimeout":
            self._positions.timeouts[params[0]] = params[1]

    def _run(self, request: Request, undelivered: Any) -> Response:
        pauses = pauses_between()
        while True:
            generation = self._generation
            verdict: Response | int
            try:
                self._prepare(request.facts)
                response = self._attempt(request, undelivered)
            except Unsettled:
                if not self._report_position(request.facts, request.facts.handle):
                    time.sleep(next(pauses))
                continue
            except NotSent:
                self.reattach(generation, request.deadline, True)
                time.sleep(next(pauses))
                continue
            except Lost as lost:
                verdict = self._settle(lost, request, generation)
                if verdict == 0 and request.is_repeated and request.deadline is not None and request.deadline <= time.monotonic():
                    return self._expired(request)
            else:
                data = (response.error or {}).get("data") or {}
                if data.get("kind") != "cancelled" or data.get("errno") is not None:
                    return self._after_repeating(request, response)
                # The broker is about to end.
                verdict = self._stopped(request.facts, data.get("sent") or 0)
                self.reattach(generation, request.deadline, True)
            request.is_repeated = True
            if isinstance(verdict, Response):
                return verdict
            request.facts.skipped += verdict
            time.sleep(next(pauses))

    def _expired(self, request: Request) -> Response:
        if request.facts.kind == POLL:
            return Response({"result": []})
        raise native.module.timeout("timed out")

    def _attempt(self, request: Request, undelivered: Any = None) -> Response:
        """Sends the request once. Raises `NotSent` or `Lost`."""
        params, attachments = request.to_send()
        pool, is_sent = self._pool, False
        try:
            connection = pool.take(request.message.method)
        except BrokerError:
            if pool.ended:
                raise
            raise NotSent from None
        if connection is None:
            return self._attempt_shared(request, params, attachments, undelivered)
        number, wanted, epoch = connection.number, connection.request + 1, connection.epoch
        left = request.left()
        if not self._begin_attempt(request, epoch):
            pool.give_back(connection)
            raise Unsettled
        try:
            if left is not None:
                connection.stream.settimeout(left)
            message = request.message
            connection.send(message.method, params, attachments, message.descriptors, message.before)
            is_sent = True
            response = connection.receive(request.expected_bytes, request.takes_descriptors)
            self._note_received(request, response)
            if left is not None:
                connection.stream.settimeout(None)
        except BrokerError:
            pool.drop(connection)
            if pool.is_closed:
                raise pool.error() from None
            raise (Lost(number, wanted, epoch) if is_sent else NotSent()) from None
        except Unsent as error:
            pool.give_back(connection)
            raise OSError(error.errno, error.strerror) from None
        except BaseException:
            pool.drop(connection)
            if undelivered is not None:
                self._session.fetch_outcome(number, wanted, undelivered)
            raise
        finally:
            self._end_attempt(request)
        pool.give_back(connection)
        return response

    def _begin_attempt(self, request: Request, epoch: int) -> bool:
        """Whether the process `epoch` knows what it has to know before the request."""
        request.epoch = epoch
        facts = request.facts
        if facts.kind != RECEIVE or facts.handle is None:
            return True
        return self._positions.readers.begin_attempt(facts.handle, epoch)

    def _note_received(self, request: Request, response: Response) -> None:
        """Records received bytes before the end of the attempt, for other threads that wait for that."""
        facts = request.facts
        if facts.kind == RECEIVE and facts.handle is not None and response.error is None and not facts.peeks:
            facts.counted = response.value["n"]
            self._positions.readers.add(facts.handle, facts.counted)

    def _end_attempt(self, request: Request) -> None:
        if request.facts.kind == RECEIVE and request.facts.handle is not None:
            self._positions.readers.end_attempt(request.facts.handle)

    def _prepare(self, facts: CallFacts) -> None:
        """Before a call that waits for data: reports all positions to the process. Before a receive: raises what that found."""
        if facts.kind == RECEIVE and facts.handle is not None:
            error = self._positions.readers.take_error(facts.handle)
            if error is not None:
                raise error
        if facts.kind != POLL:
            return
        pauses = pauses_between()
        for handle in self._positions.readers.unsettled(self._pool.epoch()):
            while not self._report_position(facts, handle):
                time.sleep(next(pauses))

    def _report_position(self, facts: CallFacts, handle: int | None) -> bool:
        """Reports to the process how many bytes of a connection the program has received. `False` if that is not possible yet."""
        readers = self._positions.readers
        assert handle is not None
        is_complete, received = readers.question(handle)
        if not is_complete:
            return False
        request = Request(Message("socket.resume", [handle, received]))
        generation = self._generation
        try:
            taken = checked(self._attempt(request)).value
        except (NotSent, Lost):
            self.reattach(generation, None, True)
            return False
        except CallInterrupted as error:
            lost = _interrupted(facts, error.what)
            is_receive = facts.kind == RECEIVE
            readers.lose(handle, request.epoch, None if is_receive else lost)
            if is_receive:
                raise lost from None
        except BrokerError:
            raise
        except (OSError, ValueError):
            readers.remove(handle)  # no connection of TCP, or gone: the call itself finds that
        else:
            readers.settle(handle, request.epoch, taken)
        return True

    def _attempt_shared(self, request: Request, params: Any, attachments: Sequence[Any], undelivered: Any) -> Response:
        if sys.is_finalizing():
            raise self._pool.error()
        message = request.message
        call = Call(Message(message.method, params, attachments, message.descriptors, message.before))
        try:
            shared = self._pool.share(call)
        except BrokerError:
            if self._pool.ended:
                raise
            raise NotSent from None
        if in_thread_of_a_connection():
            shared.notify(call)  # a finalizer, which must not wait for the thread that it runs in
            return Response({"result": None})
        if not self._begin_attempt(request, shared.connection.epoch):
            raise Unsettled
        try:
            response = shared.run(call, undelivered)
            self._note_received(request, response)
            return response
        except Unsent as error:
            raise OSError(error.errno, error.strerror) from None
        except BrokerError:
            if self._pool.is_closed:
                raise self._pool.error() from None
            lost = Lost(shared.connection.number, call.number, shared.connection.epoch)
            raise (lost if call.number else NotSent()) from None
        finally:
            self._end_attempt(request)

    # The way back to the session.

    def recovers(self) -> bool:
        """Attaches to the session again after the loss of a connection. Returns whether that succeeds."""
        try:
            self.reattach(self._generation, None)
        except OSError:
            return False
        return True

    def reattach(self, generation: int, deadline: float | None, is_suspect: bool = False) -> None:
        """Connects again, unless another thread has done that since `generation`, or the anchor is alive and not suspect.

        Raises `timeout` at `deadline`, and `BrokerError` after `reconnect_seconds` and if there is no such session.
        """
        left = -1 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._lock.acquire(timeout=left):
            raise native.module.timeout("timed out")
        try:
            if self._generation != generation:
                return
            if self._pool.ended:
                raise self._pool.error()
            if not is_suspect and self._pool.is_anchor_alive():
                return
            self._pool.replace_anchor(self._connection(deadline))
            self._generation += 1
            self._down_since = None
        finally:
            self._lock.release()

    def _connection(self, deadline: float | None) -> Connection:
        """A new connection of the session."""
        if self._down_since is None:
            self._down_since = time.monotonic()
        give_up = self._down_since + self._seconds
        until = give_up if deadline is None else min(deadline, give_up)
        for pause in pauses_between():
            try:
                return self._pool.attach_by(until)
            except Denied:
                raise
            except OSError as error:
                if self._pool.ended:
                    raise
                reason = error.strerror or str(error)
            left = until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(pause, left))
        if until < give_up:
            raise native.module.timeout("timed out")
        self._down_since = None  # the next call waits as long again
        text = f"the broker at {self._pool.route.endpoint} is not reachable for {self._seconds:g} seconds (reconnect_seconds)"
        advice = "check the service (`systemctl status sockbrokerd`), or wait longer with a larger reconnect_seconds"
        raise BrokerError(f"{text}: {reason}; {advice}")

    # What became of a call.

    def _settle(self, lost: Lost, request: Request, generation: int) -> Response | int:
        """The result of a lost call, or how many further bytes it has sent before it is repeated."""
        for pause in pauses_between():
            self.reattach(generation, request.deadline)
            generation = self._generation
            try:
                return self._resolve(lost, request)
            except (NotSent, Lost):
                time.sleep(pause)
            except Ended:
                self.reattach(generation, request.deadline, True)
                generation = self._generation
        raise AssertionError

    def _ask(self, method: str, params: Any) -> Any:
        """The result of a call that recovery makes; bytes of an option."""
        response = checked(self._attempt(Request(Message(method, params))))
        is_bytes = method == "socket.getsockopt" and not isinstance(response.value, int)
        return response.data(response.value) if is_bytes else response.value

    def _resolve(self, lost: Lost, request: Request) -> Response | int:
        facts, kind = request.facts, request.facts.kind
        if self._pool.epoch() == lost.epoch:
            return self._kept(lost, facts)
        if kind in (REPEAT, POLL, CLOSE):
            return 0
        try:
            if kind in (CREATE, ACCEPT):
                return self._created(lost, request)
            if kind in (BIND, CONNECT):
                return self._looked_up(facts)
            if kind in (SEND, RECEIVE):
                return self._transferred(facts)
        except (CallInterrupted, BrokerError):
            raise
        except OSError as error:
            if error.errno == errno.EBADF:
                raise  # the handle is gone, as the next call would find
            raise _interrupted(facts, f"{_NOT_KNOWN}, because {error}") from None
        raise _interrupted(facts, _NOT_KNOWN)

    def _kept(self, lost: Lost, facts: CallFacts) -> Response | int:
        """The process is the same and keeps the response."""
        resolve = Message("call.resolve", {"connection": lost.number, "request": lost.request})
        response = checked(self._attempt(Request(resolve, takes_descriptors=True)))
        found = response.value
        if found["state"] == "answered":
            response.value, response.error = found["answer"].get("result"), found["answer"].get("error")
            return response
        if found["state"] == "interrupted":
            raise Ended
        return self._stopped(facts, found.get("sent") or 0)

    def _stopped(self, facts: CallFacts, sent: int) -> Response | int:
        """The broker has cancelled the call, which had sent this many bytes."""
        if not sent or facts.kind != SEND:
            return 0
        if facts.method != "socket.sendall":
            return Response({"result": sent})
        self._positions.add_sent(facts.handle, sent)
        return sent

    def _created(self, lost: Lost, request: Request) -> Response | int:
        """Looks for the sockets that the call made."""
        maker = {"connection": lost.number, "request": lost.request}
        found = [info for info in self._ask("session.handles", []) if info.get("maker") == maker]
        wanted = 2 if request.message.method == "socket.socketpair" else 1
        if len(found) != wanted:
            for info in found:
                self._ask("socket.close", [info["handle"]])
            return 0
        made = [{name: info[name] for name in ("handle", "family", "type", "proto", "timeout")} for info in found]
        if request.facts.kind == ACCEPT:
            made[0]["address"] = found[0]["peer"]
        response = Response({"result": made if wanted == 2 else made[0]})
        params = request.message.params
        wants = params.get("want_fd") if isinstance(params, dict) else params[1:2] == [True]
        for one in made if wants else ():
            fileno = Message("socket.fileno", [one["handle"]])
            passed = checked(self._attempt(Request(fileno, takes_descriptors=True)))
            descriptor = passed.take_descriptor()
            if descriptor is not None:
                response.descriptors.append(descriptor)
        return response

    def _looked_up(self, facts: CallFacts) -> Response | int:
        """Whether a socket has the address or the peer that the call gives it."""
        done = Response({"result": 0 if facts.method == "socket.connect_ex" else None})
        if facts.kind == BIND:
            name = self._ask("socket.getsockname", [facts.handle])
            is_bound = name[1] if isinstance(name, list) and len(name) > 1 and isinstance(name[1], int) else name
            return done if is_bound and not isinstance(is_bound, list) else 0
        try:
            self._ask("socket.getpeername", [facts.handle])
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        else:
            return done
        number = self._ask("socket.getsockopt", [facts.handle, "SOL_SOCKET", "SO_ERROR"])
        if not number:
            return 0
        if facts.method == "socket.connect_ex":
            return Response({"result": number})
        data = {"kind": "OSError", "errno": number, "name": errno.errorcode.get(number), "call": "connect"}
        return Response({"error": {"code": 1000, "message": os.strerror(number), "data": data}})

    def _transferred(self, facts: CallFacts) -> Response | int:
        """Compares the position of a stream."""
        handle = facts.handle
        assert handle is not None
        if facts.kind == RECEIVE and facts.peeks:
            return 0
        made = self._ask("socket.attributes", [handle])
        if facts.kind == RECEIVE and made["type"] in _LOSSY and made["family"] != _UNIX:
            return 0
        if facts.kind == RECEIVE:
            if facts.is_special or not is_tcp(made) or not self._positions.readers.knows(handle):
                raise _interrupted(facts, _NOT_KNOWN)
            return 0  # the position is reported to the process first
        is_first = self._positions.find(self._ask, handle, self._pool.epoch()) if is_tcp(made) else None
        if is_first is None or facts.is_special:
            raise _interrupted(facts, _NOT_KNOWN)
        length = facts.length - facts.skipped
        sent = self._positions.sent(handle, length)
        if sent is None:
            raise _interrupted(facts, _NOT_KNOWN)
        if sent and (facts.method != "socket.sendall" or sent == length):
            facts.counted = sent
            return Response({"result": None if facts.method == "socket.sendall" else sent})
        return sent

    def _after_repeating(self, request: Request, response: Response) -> Response:
        """The response to the last attempt: an earlier one may have succeeded."""
        if not request.is_repeated:
            return response
        data = (response.error or {}).get("data") or {}
        kind = request.facts.kind
        if kind == CLOSE and data.get("kind") == "handle":
            return Response({"result": None})
        if kind == CONNECT and errno.EISCONN in (data.get("errno"), response.value):
            return Response({"result": 0 if request.message.method == "socket.connect_ex" else None})
        return response


def _interrupted(facts: CallFacts, what: str) -> CallInterrupted:
    made: CallInterrupted = errors.CallInterrupted(facts.call(), facts.handle, what)
    return made
