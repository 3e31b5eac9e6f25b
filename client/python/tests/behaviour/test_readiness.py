"""Waiting for sockets, alone and with other files: `select`, `poll`, `epoll`, `selectors`, `asyncio`."""

import asyncio
import contextlib
import errno
import os
import select
import selectors
import socket
import unittest

from behaviour.common import SECONDS, tcp_pair, udp_pair


@contextlib.contextmanager
def pipe():
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


class Epoll(unittest.TestCase):
    def test_epoll_reports_sockets_and_other_files(self):
        with tcp_pair() as (a, b), pipe() as (reader, writer), select.epoll() as epoll:
            epoll.register(b, select.EPOLLIN)
            epoll.register(reader, select.EPOLLIN)
            self.assertEqual(epoll.poll(0), [])
            self.assertEqual(epoll.poll(0.01), [])
            a.sendall(b"x")
            self.assertEqual(epoll.poll(SECONDS), [(b.fileno(), select.EPOLLIN)])
            os.write(writer, b"y")
            found = set()
            while len(found) < 2:
                found.update(epoll.poll(SECONDS))
            self.assertEqual(found, {(b.fileno(), select.EPOLLIN), (reader, select.EPOLLIN)})
            self.assertEqual(len(epoll.poll(SECONDS, 1)), 1)
            epoll.unregister(b)
            self.assertEqual(epoll.poll(SECONDS), [(reader, select.EPOLLIN)])

    def test_modify_changes_the_events(self):
        with tcp_pair() as (a, b), select.epoll() as epoll:
            epoll.register(b.fileno(), select.EPOLLIN)
            epoll.modify(b, select.EPOLLOUT)
            self.assertEqual(epoll.poll(SECONDS), [(b.fileno(), select.EPOLLOUT)])
            epoll.modify(b, select.EPOLLIN | select.EPOLLRDHUP)
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(epoll.poll(SECONDS), [(b.fileno(), select.EPOLLIN | select.EPOLLRDHUP)])

    def test_a_one_shot_event_is_reported_once(self):
        with udp_pair() as (a, b), select.epoll() as epoll:
            epoll.register(b, select.EPOLLIN | select.EPOLLONESHOT)
            a.send(b"x")
            self.assertEqual(epoll.poll(SECONDS), [(b.fileno(), select.EPOLLIN)])
            self.assertEqual(epoll.poll(0.05), [])
            epoll.modify(b, select.EPOLLIN | select.EPOLLONESHOT)
            self.assertEqual(epoll.poll(SECONDS), [(b.fileno(), select.EPOLLIN)])

    def test_wrong_numbers_and_repeated_registrations_are_refused(self):
        with udp_pair() as (a, b), select.epoll() as epoll:
            epoll.register(a)
            number = b.fileno()
            for call, expected in (
                (lambda: epoll.register(a), errno.EEXIST),
                (lambda: epoll.modify(b, 1), errno.ENOENT),
                (lambda: epoll.unregister(b), errno.ENOENT),
            ):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, expected)
            b.close()
            with self.assertRaises(OSError) as caught:
                epoll.register(number)
            self.assertEqual(caught.exception.errno, errno.EBADF)
        with self.assertRaises(ValueError):
            epoll.fileno()
        self.assertTrue(epoll.closed)

    def test_epoll_removes_a_closed_socket(self):
        with udp_pair() as (a, b), select.epoll() as epoll:
            epoll.register(b, select.EPOLLIN)
            a.send(b"x")
            b.close()
            self.assertEqual(epoll.poll(0.05), [])


class Poll(unittest.TestCase):
    def test_modify_and_unregister_change_the_events(self):
        with tcp_pair() as (a, b), pipe() as (reader, _):
            poll = select.poll()
            poll.register(b, select.POLLIN)
            poll.register(reader, select.POLLIN)
            self.assertEqual(poll.poll(0), [])
            poll.modify(b, select.POLLOUT)
            self.assertEqual(poll.poll(SECONDS * 1000), [(b.fileno(), select.POLLOUT)])
            poll.unregister(b)
            self.assertEqual(poll.poll(10), [])
            with self.assertRaises(KeyError):
                poll.unregister(b)
            with self.assertRaises(OSError) as caught:
                poll.modify(b, 1)
            self.assertEqual(caught.exception.errno, errno.ENOENT)


class Selectors(unittest.TestCase):
    def test_every_selector_reports_every_socket(self):
        for make in (selectors.DefaultSelector, selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector):
            with self.subTest(selector=make.__name__), tcp_pair() as (a, b), pipe() as (reader, _), make() as selector:
                selector.register(b, selectors.EVENT_READ, "b")
                selector.register(reader, selectors.EVENT_READ, "reader")
                self.assertEqual(selector.select(0.01), [])
                a.sendall(b"x")
                ((key, events),) = selector.select(SECONDS)
                self.assertEqual((key.data, events), ("b", selectors.EVENT_READ))
                selector.modify(b, selectors.EVENT_WRITE, "again")
                ((key, events),) = selector.select(SECONDS)
                self.assertEqual((key.data, events), ("again", selectors.EVENT_WRITE))


class Asyncio(unittest.TestCase):
    def test_a_loop_serves_sockets_created_after_it(self):
        async def talk():
            loop = asyncio.get_running_loop()
            with udp_pair() as (a, b):
                a.setblocking(False)
                b.setblocking(False)
                waiting = asyncio.ensure_future(loop.sock_recv(b, 100))
                await asyncio.sleep(0.01)
                a.send(b"datagram")
                return await asyncio.wait_for(waiting, SECONDS)

        self.assertEqual(asyncio.run(talk()), b"datagram")

    def test_asyncio_runs_child_processes_with_pipes(self):
        async def run():
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(process.communicate(b"through a child"), SECONDS)
            return output

        self.assertEqual(asyncio.run(run()), b"through a child")


if __name__ == "__main__":
    unittest.main()
