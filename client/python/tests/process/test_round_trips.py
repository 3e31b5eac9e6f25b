"""Remote mode: which calls wait for the broker."""

import subprocess
import sys
import textwrap
import unittest

from process.common import SECONDS, Broker, environment

RECORD = """
import socket as native, sys, threading, sockbroker
from sockbroker import session
calls = []
call = session.Session.call
def record(self, method, *arguments, **parts):
    calls.append(method.partition(".")[2])
    return call(self, method, *arguments, **parts)
session.Session.call = record
def used(action):
    calls.clear()
    try: result = action()
    except OSError as error: return (type(error).__name__, *calls)
    names = tuple(calls)
    result.close()
    return names
broker = sockbroker.connect(sys.argv[1], mode=sys.argv[2])
socket = broker.socket
server = native.create_server(("127.0.0.1", 0))
address = server.getsockname()
"""


class RoundTrips(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.addClassCleanup(cls.broker.stop)

    def check(self, text, mode="remote", options=("-X", "dev", "-W", "error")):
        source = RECORD + textwrap.dedent(text) + "\nserver.close()\nbroker.close()\n"
        done = subprocess.run(
            [sys.executable, *options, "-c", source, self.broker.path, mode], env=environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, cwd="/",
        )  # fmt: skip
        self.assertEqual((done.stdout, done.stderr), ("", ""))

    def test_create_connection_is_one_call(self):
        self.check("""
            one = ("create_connection",)
            assert used(lambda: socket.create_connection(address)) == one
            assert used(lambda: socket.create_connection(("localhost", address[1]), 5, ("127.0.0.1", 0))) == one
            assert used(lambda: socket.create_connection(("127.0.0.1", 1))) == ("ConnectionRefusedError", *one)
            assert used(lambda: socket.create_connection(("nowhere.invalid", 1))) == ("gaierror", *one)
            assert used(lambda: socket.create_connection(address, 0)) == ("BlockingIOError", *one)
            socket.setdefaulttimeout(2.5)
            for timeout, expected in (((), 2.5), ((7,), 7.0), ((None,), None)):
                with socket.create_connection(address, *timeout) as sock:
                    assert type(sock) is socket.socket and sock.gettimeout() == expected
                    assert sock.family is socket.AF_INET and sock.type is socket.SOCK_STREAM
        """)

    def test_other_arguments_and_replaced_functions_use_the_steps_of_the_standard_library(self):
        self.check("""
            for arguments in ((("127.0.0.1", "x"),), (address, -1), (address, "x"), ((None, 1),), ("x",), (address, 1, ("x",))):
                errors = []
                for module in (socket, native):
                    try: module.create_connection(*arguments)
                    except Exception as error: errors.append((type(error), str(error)))
                assert len(errors) == 2 and errors[0] == errors[1], errors
            assert used(lambda: socket.create_connection(address, all_errors=True))[0] == "getaddrinfo"
            seen = []
            look_up = socket.getaddrinfo
            socket.getaddrinfo = lambda *arguments: seen.append(arguments) or look_up(*address)
            assert used(lambda: socket.create_connection(("elsewhere.invalid", 1)))[-2:] == ("socket", "connect")
            assert seen == [("elsewhere.invalid", 1, 0, socket.SOCK_STREAM)]
        """, options=())  # the standard library leaves the socket of a wrong timeout open

    def test_a_timeout_travels_with_the_next_call(self):
        self.check("""
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                for timeout, expected in ((0.01, "TimeoutError"), (0, "BlockingIOError"), (0.02, "TimeoutError")):
                    assert used(lambda: [sock.settimeout(0.5), sock.settimeout(timeout), sock.recv(1)]) == (expected, "recv")
                calls.clear()
                sock.settimeout(0.01)
                assert calls == []
                with sock.dup() as other:
                    assert other.gettimeout() == 0.01
                    assert used(lambda: other.recv(1)) == ("TimeoutError", "recv")
                sock.setblocking(False)
                sock.close()
                try: sock.settimeout(1)
                except OSError as error: assert error.errno == 9
                else: raise AssertionError("set")
        """)

    def test_a_timeout_is_in_effect_for_other_threads_and_processes(self):
        self.check("""
            import os
            def outcome():
                try: sock.recv(1)
                except OSError as error: return type(error).__name__
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                for timeout, expected in ((0, "BlockingIOError"), (0.01, "TimeoutError")):
                    sock.settimeout(timeout)
                    got = []
                    threads = [threading.Thread(target=lambda: got.append(outcome())) for _ in range(8)]
                    for thread in threads: thread.start()
                    for thread in threads: thread.join()
                    assert got == [expected] * 8, got
                    sock.settimeout(None)
                    sock.settimeout(timeout)
                    child = os.fork()
                    if not child: os._exit(outcome() != expected)
                    assert os.waitpid(child, 0)[1] == 0 and outcome() == expected
        """)

    def test_a_timeout_set_in_a_thread_is_in_effect_when_the_call_returns(self):
        self.check("""
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                def run(): sock.settimeout(0); calls.append("end")
                calls.clear()
                thread = threading.Thread(target=run)
                thread.start()
                thread.join()
                assert calls == ["settimeout", "end"], calls
                assert used(lambda: sock.recv(1)) == ("BlockingIOError", "recv")
        """)

    def test_other_modes_set_timeouts_at_once(self):
        self.check("""
            with socket.socket() as sock:
                calls.clear()
                sock.settimeout(1)
                assert calls == ["settimeout"]
        """, mode="mediated")


if __name__ == "__main__":
    unittest.main()
