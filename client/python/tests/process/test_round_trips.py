"""Remote mode: which calls wait for the broker."""

import subprocess
import sys
import textwrap
import unittest

from process.common import SECONDS, Broker, environment
from process.tls import OnTlsBroker

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
        cls.url, cls.more = cls.broker.path, {}
        cls.addClassCleanup(cls.broker.stop)

    def check(self, text, mode="remote", options=("-X", "dev", "-W", "error")):
        source = RECORD + textwrap.dedent(text) + "\nserver.close()\nbroker.close()\n"
        done = subprocess.run(
            [sys.executable, *options, "-c", source, self.url, mode], env=environment(**self.more),
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

    def test_close_and_options_that_were_set_before_are_not_waited_for(self):
        self.check("""
            sent, notify = [], session.Session.notify
            def note(self, method, params):
                sent.append(method.partition(".")[2])
                return notify(self, method, params)
            session.Session.notify = note
            nodelay = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            def requests(action):
                calls.clear(); sent.clear(); action()
                return [*calls], [*sent]
            with socket.create_server(("127.0.0.1", 0)) as listener:
                for turn in range(2):
                    client = socket.create_connection(address)
                    peer = server.accept()[0]
                    other = native.create_connection(listener.getsockname())
                    served = listener.accept()[0]
                    for sock in (client, served):
                        expected = (["setsockopt"], []) if turn == 0 and sock is client else ([], ["setsockopt"])
                        assert requests(lambda: sock.setsockopt(*nodelay)) == expected, (turn, calls, sent)
                        assert sock.getsockopt(*nodelay[:2]) == 1
                        # The others can fail, and do.
                        try: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1 << 30)
                        except OSError as error: assert error.errno == 22
                        else: raise AssertionError("set")
                        assert requests(sock.close) == ([], ["close"])
                        sock.close()
                    assert peer.recv(1) == b"" == other.recv(1)
                    peer.close(), other.close()
                # This close can wait for the peer, and a listener has its port until it is closed.
                client = socket.create_connection(address)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
                server.accept()[0].close()
                assert requests(client.close) == (["close"], [])
                assert requests(listener.close) == (["close"], [])
        """)

    def test_file_of_a_socket_reads_what_has_arrived_at_once(self):
        self.check("""
            client = socket.create_connection(address)
            peer = server.accept()[0]
            lines = b"".join(b"%07d\\n" % number for number in range(5000))
            peer.sendall(lines); peer.close()
            while len(client.recv(1 << 20, socket.MSG_PEEK)) < len(lines): pass
            calls.clear()
            with client.makefile("rb") as file: assert [*file] == lines.splitlines(True)
            assert calls == ["recv_into", "recv_into"], calls  # the second finds the end
            # A program that chooses its buffer gets it.
            client.close()
            client = socket.create_connection(address)
            peer = server.accept()[0]
            peer.sendall(b"x" * 48)
            with client.makefile("rb", 16) as file: assert file.peek() == b"x" * 16
            client.close(), peer.close()
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


class OverTls(OnTlsBroker, RoundTrips):
    """The same on the one connection of a client with a certificate, which keeps the order of all calls."""

    test_other_modes_set_timeouts_at_once = None

    def test_a_timeout_set_in_a_thread_is_in_effect_when_the_call_returns(self):
        self.check("""
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                calls.clear()
                thread = threading.Thread(target=lambda: sock.settimeout(0))
                thread.start()
                thread.join()
                assert calls == [], calls  # it is not waited for
                assert used(lambda: sock.recv(1)) == ("BlockingIOError", "recv")
        """)


if __name__ == "__main__":
    unittest.main()
