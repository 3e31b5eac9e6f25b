"""Calls together with threads, forks, signals and garbage collection."""

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import threading
import time
import unittest
import warnings

from asyncio_echo import talk
from behaviour.common import SECONDS, tcp_pair, udp_pair


class Interrupted(Exception):
    """The exception of a signal handler."""


@contextlib.contextmanager
def alarm(seconds, handler):
    """Calls a handler in the main thread after this many seconds."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raising(_number, _frame):
    raise Interrupted


class Signals(unittest.TestCase):
    def test_a_handler_that_raises_ends_a_receive_without_loss(self):
        with tcp_pair() as (a, b):
            for round_ in range(5):
                with self.assertRaises(Interrupted), alarm(0.05, raising):
                    b.recv(10)
                text = b"part %d" % round_
                a.sendall(text)
                self.assertEqual(b.recv(100), text)

    def test_a_receive_continues_after_a_handler_that_returns(self):
        seen = []
        with tcp_pair() as (a, b):
            handled = threading.Event()

            def handle(*_):
                seen.append(1)
                handled.set()

            sender = threading.Thread(target=lambda: handled.wait() and a.sendall(b"late"))
            sender.start()
            with alarm(0.05, handle):
                self.assertEqual(b.recv(10), b"late")
            sender.join()
        self.assertEqual(seen, [1])

    def test_accept_and_connect_can_be_interrupted(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            with self.assertRaises(Interrupted), alarm(0.05, raising):
                server.accept()
            with socket.create_connection(server.getsockname()) as client:
                accepted, address = server.accept()
                with accepted:
                    self.assertEqual(address, client.getsockname())

    def test_interruptions_of_a_stream_lose_no_more_than_natively(self):
        total, received, interruptions, armed = 3000, 0, 0, False

        def strike(_number, _frame):
            nonlocal armed
            if armed:
                armed = False
                raise Interrupted

        def send(sock):
            for _ in range(total):
                sock.sendall(b"x")
                time.sleep(0.0002)
            sock.shutdown(socket.SHUT_WR)

        with tcp_pair() as (a, b):
            sender = threading.Thread(target=send, args=[a])
            before = signal.signal(signal.SIGALRM, strike)
            signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
            try:
                sender.start()
                while True:
                    try:
                        armed = True
                        data = b.recv(3)
                        armed = False
                    except Interrupted:
                        interruptions += 1
                        continue
                    if not data:
                        break
                    received += len(data)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
                sender.join()
        self.assertGreater(interruptions, 10)
        # Natively too, a handler can run between the system call and the assignment of its result.
        self.assertLess(total - received, interruptions / 2)

    def test_the_traceback_of_a_handler_includes_the_handler(self):
        with udp_pair() as (a, _):
            try:
                with alarm(0.05, raising):
                    a.recv(1)
            except Interrupted as error:
                trace = error.__traceback__
            else:
                self.fail("the handler did not end the call")
            while trace.tb_next:
                trace = trace.tb_next
            self.assertEqual(trace.tb_frame.f_code.co_name, "raising")


class Threads(unittest.TestCase):
    def test_many_threads_use_sockets_at_once(self):
        failures = []

        def echo(number):
            try:
                with tcp_pair() as (a, b):
                    for round_ in range(20):
                        text = b"%d.%d" % (number, round_)
                        a.sendall(text)
                        if b.recv(100) != text:
                            failures.append(number)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=echo, args=[number]) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        self.assertEqual(failures, [])

    def test_a_blocked_receive_does_not_delay_a_send(self):
        with tcp_pair() as (a, b):
            got = []
            reader = threading.Thread(target=lambda: got.append(a.recv(10)))
            reader.start()
            time.sleep(0.1)
            a.sendall(b"ping")
            self.assertEqual(b.recv(10), b"ping")
            b.sendall(b"pong")
            reader.join(SECONDS)
        self.assertEqual(got, [b"pong"])


class Forks(unittest.TestCase):
    def test_the_stream_ends_after_parent_and_child_have_closed_the_socket(self):
        with tcp_pair() as (a, b):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    b.close()
                    a.sendall(b"from the child")
                    status = 0
                finally:
                    os._exit(status)
            self.assertEqual(b.recv(100), b"from the child")
            _, status = os.waitpid(child, 0)
            self.assertEqual(status, 0)
            a.sendall(b"from the parent")
            self.assertEqual(b.recv(100), b"from the parent")
            a.close()
            self.assertEqual(b.recv(100), b"")

    def test_a_child_creates_sockets(self):
        with udp_pair():
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    with udp_pair() as (a, b):
                        a.send(b"inside")
                        os.write(writer, b.recv(10))
                finally:
                    os._exit(0)
            os.close(writer)
            with os.fdopen(reader, "rb") as file:
                self.assertEqual(file.read(), b"inside")
            os.waitpid(child, 0)


class Collection(unittest.TestCase):
    def test_garbage_collection_warns_of_an_open_socket_and_closes_it(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            accepted.settimeout(SECONDS)
            with accepted, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del client
                gc.collect()
                self.assertEqual([item.category for item in caught], [ResourceWarning])
                self.assertEqual(accepted.recv(1), b"")

    def test_an_exception_does_not_keep_the_socket(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sock = socket.socket(type=socket.SOCK_DGRAM)
            kept = None
            try:
                sock.getpeername()
            except OSError as error:
                kept = error
            self.assertIsNotNone(kept.__traceback__)
            gc.disable()
            try:
                kept.__traceback__ = None
                del sock
                self.assertEqual(len(caught), 1)
            finally:
                gc.enable()


class Waiting(unittest.TestCase):
    def test_select_and_poll_report_readiness(self):
        with tcp_pair() as (a, b):
            self.assertEqual(select.select([b], [b], [], 0), ([], [b], []))
            a.sendall(b"x")
            self.assertEqual(select.select([b], [], [b], SECONDS), ([b], [], []))
            poll = select.poll()
            poll.register(b, select.POLLIN)
            self.assertEqual(poll.poll(SECONDS * 1000), [(b.fileno(), select.POLLIN)])
            poll.unregister(b)
            self.assertEqual(poll.poll(0), [])

    def test_select_waits_for_pipes_and_sockets_together(self):
        reader, writer = os.pipe()
        with tcp_pair() as (a, b):
            self.assertEqual(select.select([reader, b], [], [], 0.05), ([], [], []))
            threading.Timer(0.1, os.write, [writer, b"x"]).start()
            self.assertEqual(select.select([reader, b], [], [], SECONDS)[0], [reader])
            a.sendall(b"y")
            self.assertEqual(select.select([b], [], [], SECONDS)[0], [b])
            self.assertEqual(select.select([reader, b], [], [], SECONDS)[0], [reader, b])
        os.close(reader)
        os.close(writer)

    def test_select_refuses_a_closed_number(self):
        with tcp_pair() as (a, b):
            number = b.fileno()
            b.close()
            with self.assertRaises((OSError, ValueError)):
                select.select([number], [], [], 0)

    def test_asyncio_serves_streams(self):
        self.assertEqual(asyncio.run(asyncio.wait_for(talk(), SECONDS)), b"HELLO\n")


if __name__ == "__main__":
    unittest.main()
