"""A broker that is missing, ends in the middle of calls, or restarts."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from process.common import Broker, code, environment, program
from run import served_by

ALL_MODES = ("mediated", "remote")


class Missing(unittest.TestCase):
    def test_a_missing_broker_raises_an_error_that_names_it(self):
        text = """
            import socket
            try:
                socket.socket()
            except OSError as error:
                print(type(error).__name__, error.errno, error.strerror)
        """
        done = program("/nonexistent/socket", *code(text), mode="mediated")
        expected = "BrokerError 100 cannot connect to the broker at /nonexistent/socket: No such file or directory; check "
        self.assertEqual((done.stdout[: len(expected)], done.stderr), (expected, ""))

    def test_remote_mode_does_not_start_without_a_broker(self):
        done = program("/nonexistent/socket", *code("print('native')"), mode="remote")
        self.assertEqual((done.returncode, done.stdout), (69, ""))
        self.assertIn("cannot connect to the broker at /nonexistent/socket", done.stderr)

    def test_direct_mode_needs_no_broker_for_unprivileged_calls(self):
        text = "import socket\nwith socket.create_server(('127.0.0.1', 0)) as s: print(s.getsockname()[0])"
        done = program("/nonexistent/socket", "-c", text)
        self.assertEqual((done.stdout, done.stderr), ("127.0.0.1\n", ""))

    def test_a_server_that_is_not_a_broker_raises_broker_error(self):
        text = """
            import socket
            try:
                socket.socket()
            except OSError as error:
                print(type(error).__name__)
        """
        for data in (b"", b"HTTP/1.1 200 OK\r\n\r\nhello", b"x" * 10_000):
            with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
                path = f"{folder}/socket"
                server.bind(path)
                server.listen()

                def answer(data=data, server=server):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(10_000)
                        connection.sendall(data)

                thread = threading.Thread(target=answer)
                thread.start()
                done = program(path, *code(text), mode="mediated")
                thread.join()
            self.assertEqual((done.stdout, done.stderr), ("BrokerError\n", ""))


class Dying(unittest.TestCase):
    def setUp(self):
        self.broker = Broker()
        self.addCleanup(self.broker.stop)

    def test_every_blocked_thread_gets_an_error(self):
        text = """
            import os, signal, socket, sys, threading, time
            sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(4)]
            for sock in sockets: sock.bind(("127.0.0.1", 0))
            texts = []
            def wait(sock):
                try:
                    sock.recv(1)
                except OSError as error:
                    texts.append(str(error))
            threads = [threading.Thread(target=wait, args=[sock]) for sock in sockets]
            for thread in threads: thread.start()
            time.sleep(0.3)
            os.kill(int(sys.argv[1]), signal.SIGKILL)
            for thread in threads: thread.join(120)
            print(len(texts), all(text.split("] ")[1].startswith("socket.recv failed: the broker at ") for text in texts))
            try:
                sockets[0].getsockname()
            except OSError as error:
                print(error.errno)
            for sock in sockets: sock.close()
        """
        for mode in ALL_MODES:
            done = program(self.broker.path, *code(text), str(self.broker.process.pid), mode=mode)
            self.assertEqual((done.stdout, done.stderr), ("4 True\n100\n", ""), mode)
            self.broker.kill()
            self.broker.start()

    def test_new_sockets_use_the_next_broker(self):
        text = """
            import socket, sys
            old = socket.socket(type=socket.SOCK_DGRAM)
            print("ready", flush=True)
            sys.stdin.readline()
            with socket.socket(type=socket.SOCK_DGRAM) as new:
                new.bind(("127.0.0.1", 0))
                print(new.getsockname()[0])
            try:
                old.bind(("127.0.0.1", 0))
            except OSError as error:
                print(type(error).__name__)
            old.close()
        """
        command = [sys.executable, "-m", "sockbroker", "--mode", "mediated", "--broker", self.broker.path, *code(text)]
        with subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            self.assertEqual(running.stdout.readline(), "ready\n")
            self.broker.kill()
            self.broker.start()
            output, errors = running.communicate("\n", timeout=180)
        self.assertEqual((output, errors), ("127.0.0.1\nBrokerError\n", ""))


class Leaks(unittest.TestCase):
    def test_thousands_of_failures_leave_no_descriptor(self):
        broker = Broker()
        self.addCleanup(broker.stop)
        text = """
            import os, random, signal, socket, sys, threading, time
            class Interrupted(Exception): pass
            armed = False
            def strike(*_):
                global armed
                if armed:
                    armed = False
                    raise Interrupted
            random.seed(5)
            def failing(number):
                kind = number % 8
                with socket.socket(type=socket.SOCK_DGRAM) as sock:
                    if kind == 0: sock.bind(("192.0.2.1", 0))
                    elif kind == 1: sock.getpeername()
                    elif kind == 2: sock.settimeout(0); sock.recv(random.randrange(1, 5000))
                    elif kind == 3: sock.accept()
                    elif kind == 4: sock.setsockopt(1, 9999, b"x" * random.randrange(50))
                    elif kind == 5: socket.socket(family=99)
                    elif kind == 6:
                        a, b = socket.socketpair()
                        with a, b:
                            socket.send_fds(a, [b"x"], [sock.fileno()] * random.randrange(1, 4))
                            b.settimeout(0)
                            _, descriptors, *_ = socket.recv_fds(b, 1, random.randrange(4))
                            for descriptor in descriptors: os.close(descriptor)
                            b.recv(1)
                    else: sock.connect(("127.0.0.1", 99999))
            def round():
                failures = 0
                for number in range(2400):
                    try:
                        failing(number)
                    except (OSError, OverflowError):
                        failures += 1
                return failures
            def interrupted():
                global armed
                signal.signal(signal.SIGALRM, strike)
                count = 0
                for _ in range(60):
                    with socket.create_server(("127.0.0.1", 0)) as server:
                        try:
                            armed = True
                            signal.setitimer(signal.ITIMER_REAL, 0.002)
                            server.accept()
                        except Interrupted:
                            count += 1
                return count
            def fork():
                child = os.fork()
                if not child: os._exit(0)
                os.waitpid(child, 0)
            round()
            count = lambda: len(os.listdir("/proc/self/fd"))
            before = count(), len(os.listdir(f"/proc/{sys.argv[1]}/fd"))
            failures, strikes = round(), interrupted()
            for _ in range(50): fork()
            # The broker closes what was interrupted at its own time.
            for _ in range(1200):
                after = count(), len(os.listdir(f"/proc/{sys.argv[1]}/fd"))
                if after[1] <= before[1] + 6: break
                time.sleep(0.05)
            print(failures, strikes)
            print(before, after)
        """
        # A connection that stays keeps the worker, so each count below is of one process. Its pair has made the worker
        # start the process that acts as the caller, if it needs one.
        kept = socket.socket(socket.AF_UNIX)
        self.addCleanup(kept.close)
        pid = str(served_by(kept, broker.path))
        kept.sendall(b'{"jsonrpc":"2.0","id":2,"method":"socket.socketpair"}\n')
        self.assertIn(b'"result"', kept.recv(4096))
        held = lambda: len(os.listdir(f"/proc/{pid}/fd"))
        idle = held()
        done = program(broker.path, *code(text), pid, mode="mediated")
        self.assertEqual(done.stderr, "")
        failures, strikes, *counts = (int(word) for word in done.stdout.replace(",", " ").translate(_PLAIN).split())
        self.assertEqual((failures, strikes), (2400, 60))
        before, after = counts[:2], counts[2:]
        # The number of idle connections can differ by a few.
        self.assertLessEqual(after[0] - before[0], 3, done.stdout)
        self.assertLessEqual(after[1] - before[1], 6, done.stdout)
        deadline = time.monotonic() + 120
        while (left := held()) > idle and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertLessEqual(left, idle)


_PLAIN = str.maketrans("", "", "()")

if __name__ == "__main__":
    unittest.main()
