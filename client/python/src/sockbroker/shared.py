"""One connection to the broker with many calls in progress, each from another thread.

A thread of this module sends the requests and reads the responses. So the exception of a signal handler interrupts
the caller while it waits for a lock, never between the bytes of a frame. The thread ends after it has been idle.
"""

from __future__ import annotations

import _thread
import collections
import itertools
import select as _select
import threading
from collections.abc import Callable, Sequence

from . import frame, native
from .call import Call
from .connection import LOST, Connection, Unsent
from .control_socket import with_high_number
from .errors import BrokerError
from .jsonrpc import Response, decode_response, encode_cancellation

MAX_CALLS = 200
"""The calls in progress on one connection, below the broker's `calls_in_flight`."""
_MAX_BYTES = 1 << 23  # the size of their requests, below the broker's `buffered_bytes`
_IDLE_MILLISECONDS = 1000
_READ_BYTES = 1 << 18
_DONTWAIT = int(native.module.MSG_DONTWAIT | native.module.MSG_NOSIGNAL)
_READ_FLAGS = int(native.module.MSG_DONTWAIT | native.module.MSG_CMSG_CLOEXEC)
_poll = _select.poll

_threads: set[int] = set()


def in_thread_of_a_connection() -> bool:
    """Whether this is a thread of this module. A finalizer that runs in it must not wait for the thread itself."""
    return _thread.get_ident() in _threads


class _Output:
    """Bytes to send: a request or a cancellation."""

    __slots__ = ("call", "data", "descriptors", "has_begun")

    def __init__(self, call: Call | None, data: bytes, descriptors: Sequence[int] = ()) -> None:
        self.call = call
        self.data = memoryview(data)
        self.descriptors = descriptors
        self.has_begun = False


class SharedConnection:
    """A connection that several threads use at the same time."""

    def __init__(self, connection: Connection, ended: Callable[[SharedConnection], None] | None) -> None:
        """With `ended`, the connection closes after it has been idle, and calls `ended`."""
        self.connection = connection
        self._stream = connection.stream
        self._when_ended = ended
        self._numbers = itertools.count(connection.request + 1)
        self._calls: dict[Call, None] = {}
        self._queue: collections.deque[Call] = collections.deque()
        self._sent: dict[int, Call] = {}
        self._output: collections.deque[_Output] = collections.deque()
        self._reader = frame.Reader()
        self._guard = threading.RLock()
        self._is_running = False
        self._closes_at_end = ended is not None
        self.ended = False
        self._woken, self._waker = (with_high_number(end) for end in native.module.socketpair())

    def has_room_for(self, call: Call) -> bool:
        """Whether the call can begin at once: no other call uses its socket, and no limit of the broker is exceeded."""
        present = list(self._calls)
        return (
            not self.ended
            and len(present) < MAX_CALLS
            and (call.handle is None or all(call.handle != other.handle for other in present))
            and (not present or sum(other.size() for other in present) + call.size() <= _MAX_BYTES)
        )

    def add(self, call: Call) -> None:
        """Reserves a place for the call before it begins."""
        self._calls[call] = None

    def load(self) -> int:
        """The number of calls in progress."""
        return len(self._calls)

    def carries(self, connection: Connection) -> bool:
        """Whether this object shares that connection."""
        return self.connection is connection

    def is_ours(self) -> bool:
        """Whether the program has left the descriptors of this connection alone."""
        return self._stream.is_ours() and self._woken.is_ours() and self._waker.is_ours()

    def run(self, call: Call, undelivered: Callable[[Response], None] | None) -> Response:
        """Makes a call that was added, and waits for its response. Raises `BrokerError` if the broker has gone.

        If an exception interrupts the wait, this cancels the call. If the broker had already done the call, this
        passes the response to `undelivered`.
        """
        try:
            self.begin(call)
            call.done.acquire()
        except BrokerError:
            raise
        except BaseException:
            self.cancel(call, undelivered)
            raise
        return self.result(call)

    def result(self, call: Call) -> Response:
        """The response to a call that has ended."""
        if call.error is not None:
            raise call.error
        if call.response is None:
            raise BrokerError(self.connection.loss_during(call.method))
        return call.response

    def notify(self, call: Call) -> None:
        """Sends a notification, which has no response."""
        call.is_notification = True
        self.begin(call)

    def cancel(self, call: Call, undelivered: Callable[[Response], None] | None) -> None:
        """Cancels a call, and waits for its end."""
        call.cancelled = True
        if not call.finished:
            if call not in self._calls:
                return  # it has not begun
            self.begin(call)
            if not call.finished:
                call.done.acquire()
        if undelivered is not None and call.response is not None and call.response.error is None:
            undelivered(call.response)

    def begin(self, call: Call) -> None:
        """Passes a call to the thread: a new call, or one to cancel."""
        if not self.is_ours():
            self._fail()
        with self._guard:
            if self.ended:
                self._calls.pop(call, None)
                raise BrokerError(self.connection.loss_during(call.method))
            self._queue.append(call)
            if not self._is_running:
                self._is_running = True
                _thread.start_new_thread(self._serve, ())
            self._wake()

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0", _DONTWAIT)
        except BlockingIOError:
            pass  # enough bytes that wake the thread are waiting

    def end(self) -> None:
        """Ends all calls. The thread closes the connection, if it runs."""
        with self._guard:
            self.ended = self._closes_at_end = True
            is_running = self._is_running
            if is_running and self.is_ours():
                self._wake()
        if not is_running:
            self.close()

    # The following methods run in the thread.

    def _serve(self) -> None:
        _threads.add(_thread.get_ident())
        try:
            while self._step():
                pass
        except (OSError, ValueError, EOFError, StopIteration):
            self._fail()
            with self._guard:
                self._is_running = False
        finally:
            _threads.discard(_thread.get_ident())
        if self._when_ended is not None:
            self._when_ended(self)
        if self.ended and self._closes_at_end:
            self.close()

    def _step(self) -> bool:
        """Sends what is queued, waits, and reads what has arrived. Returns whether the thread continues."""
        if not self.is_ours():
            raise EOFError
        while self._queue:
            self._begin(self._queue.popleft())
        self._write()
        poll = _poll()
        stream, woken = self._stream.fileno(), self._woken.fileno()
        poll.register(stream, _select.POLLIN | (_select.POLLOUT if self._output else 0))
        poll.register(woken, _select.POLLIN)
        ready = dict(poll.poll(None if self._calls else _IDLE_MILLISECONDS))
        if not self.is_ours():
            raise EOFError
        if not ready:
            return not self._end_if_idle()
        if ready.get(woken):
            self._woken.recv(_READ_BYTES, _DONTWAIT)
        if ready.get(stream, 0) & ~_select.POLLOUT:
            self._read()
        return True

    def _end_if_idle(self) -> bool:
        """Marks the thread as ended if there is still no call. Returns whether it did."""
        if not self._guard.acquire(blocking=False):
            return False
        try:
            if self._queue or self._calls:
                return False
            self._is_running = False
            self.ended = self._when_ended is not None
            return True
        finally:
            self._guard.release()

    def _begin(self, call: Call) -> None:
        if call.finished:
            return
        if call.is_notification:
            self._output.append(_Output(None, call.frame()))
            self._finish(call)
            return
        if not call.cancelled:
            call.number = next(self._numbers)
            self._sent[call.number] = call
            self._output.append(_Output(call, call.frame(), call.descriptors))
            return
        waiting = next((output for output in self._output if output.call is call and not output.has_begun), None)
        if waiting is not None:
            self._output.remove(waiting)
        if waiting is not None or not call.number:
            self._finish(call)
            return
        text = encode_cancellation(call.number)
        self._output.append(_Output(None, frame.encode_header(len(text), (), 0) + text))

    def _write(self) -> None:
        while self._output:
            output = self._output[0]
            try:
                sent = self._stream.sendmsg([output.data], frame.rights(output.descriptors), _DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if output.call is None or not output.descriptors or error.errno in LOST or not self.is_ours():
                    raise
                output.call.error = Unsent(error.errno, error.strerror)
                self._output.popleft()
                self._finish(output.call)
                continue
            output.has_begun, output.descriptors = True, ()
            output.data = output.data[sent:]
            if not output.data:
                self._output.popleft()

    def _read(self) -> None:
        try:
            data, ancillary, flags, _ = self._stream.recvmsg(_READ_BYTES, frame.DESCRIPTOR_SPACE, _READ_FLAGS)
        except BlockingIOError:
            return
        self._reader.feed(data, ancillary, flags)
        while (parts := self._reader.next()) is not None:
            response = decode_response(*parts)
            call = self._sent.get(response.id)
            if call is not None:
                call.response = response
                self._finish(call)
        if not data:
            raise EOFError

    def _finish(self, call: Call) -> None:
        self._sent.pop(call.number, None)
        self._calls.pop(call, None)
        call.finish()

    def _fail(self) -> None:
        """Ends all calls, because the connection is lost."""
        self.ended = True
        while self._calls:
            try:
                call, _ = self._calls.popitem()
            except KeyError:
                break
            if not call.finished:
                call.finish()

    def close(self) -> None:
        """Closes the connection."""
        self._fail()
        with self._guard:  # no other thread wakes this one now
            self._reader.close()
            self.connection.close()
            self._woken.close()
            self._waker.close()

    def forget(self) -> None:
        """Closes the copies of a child process after a fork."""
        self._reader.close()
        self._woken.close()
        self._waker.close()
