"""The connections of the brokered module: a pool of connections in one session, or one shared connection."""

import socket
import subprocess
import threading
import time

from . import values, wire
from .wire import Connection, RpcError


class PoolSession:
    """An anchor that keeps the session alive, and one further connection for each call in progress.

    This is what a blocking client does: a call may start in the middle of another one, so neither a
    shared connection nor one per thread will do.
    """

    carries_descriptors = True

    def __init__(self, path):
        self._path = path
        self._lock = threading.Lock()
        self._idle = []
        self._calls = 0
        self._anchor = Connection.open(path)
        opened = self._anchor.request("session.open", {"attachments": not wire.only_base64})
        self._token = opened.value["token"]

    @property
    def calls(self):
        """Returns the number of calls of the scenario."""
        return self._calls

    def call(self, method, params, parts=None):
        """Calls a method; errors become the exceptions that Python's module raises."""
        connection = self._take()
        try:
            answer = connection.request(method, params, parts)
        except RpcError as error:
            self._give(connection)
            raise values.exception(error) from None
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        return answer

    def _take(self):
        with self._lock:
            self._calls += 1
            if self._idle:
                return self._idle.pop()
        connection = Connection.open(self._path)
        try:
            connection.request("session.attach", {"token": self._token})
        except BaseException:
            connection.close()
            raise
        return connection

    def _give(self, connection):
        with self._lock:
            self._idle.append(connection)

    def end(self):
        """Closes the session and returns the number of handles that were still open."""
        left = self._anchor.request("session.info").value["handles"]
        self._anchor.request("session.close")
        for connection in [self._anchor, *self._idle]:
            connection.close()
        return left


class SharedSession:
    """Makes the calls of all threads on one connection, like an asynchronous client."""

    def __init__(self, connection, carries_descriptors):
        self.carries_descriptors = carries_descriptors
        self._connection = connection
        self._lock = threading.Lock()
        self.calls = 0

    def call(self, method, params, parts=None):
        """As in `PoolSession`."""
        with self._lock:
            self.calls += 1
        try:
            return self._connection.request(method, params, parts)
        except RpcError as error:
            raise values.exception(error) from None

    def end(self):
        """As in `PoolSession`."""
        left = self._connection.request("session.info").value["handles"]
        self._connection.close()
        return left


class Daemon:
    """A broker that serves a Unix socket for as long as this object lives."""

    def __init__(self, binary, folder):
        self._path = f"{folder}/broker.sock"
        self._log = open(f"{folder}/broker.log", "w+b")
        self.process = subprocess.Popen(
            [binary, "--socket", self._path],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, close_fds=True)
        self._wait_until_ready()

    def _wait_until_ready(self):
        deadline = time.monotonic() + 180
        while True:
            try:
                Connection.open(self._path).close()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the broker does not serve {self._path}: {error}\n{self.log()}") from None
                time.sleep(0.02)

    def session(self):
        """Opens a new session."""
        return PoolSession(self._path)

    def log(self):
        """Returns the log of the broker."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def stop(self):
        """Ends the broker and returns its exit status, or 1 if its seccomp filter refused a system call."""
        self.process.terminate()
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        refused = "seccomp refused" in self.log()
        self._log.close()
        return status or int(refused)


class StdioDaemon:
    """Starts a broker for each session, like an editor starts a language server."""

    def __init__(self, binary, folder):
        self._binary = binary
        self._log = open(f"{folder}/broker.log", "w+b")
        self._processes = []

    def session(self):
        """Starts a new broker and returns the session of its only connection."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen([self._binary, "--stdio"], stdin=theirs, stdout=theirs, stderr=self._log)
        self._processes.append(process)
        connection = Connection(ours)
        info = connection.request("session.info").value
        return SharedSession(connection, info["descriptors"])

    @property
    def process(self):
        """The latest broker."""
        return self._processes[-1]

    def log(self):
        """Returns the logs of the brokers."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def stop(self):
        """Waits for the brokers, which end with their only connection; the first bad exit status, 1 if a
        broker's own filter stopped a system call, or 0."""
        statuses = [_reap(process) for process in self._processes]
        statuses.append(int("seccomp refused" in self.log()))
        self._log.close()
        return next((status for status in statuses if status), 0)


def _reap(process):
    try:
        return process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()

