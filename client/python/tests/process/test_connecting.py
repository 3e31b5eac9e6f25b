"""Mode `channel` with a broker of another machine: connections that do not wait, and servers of event loops."""

import os
import subprocess
import sys
import textwrap
import unittest

from process.common import SECONDS, environment
from process.tls import OnTlsBroker

CONNECTIONS = 1000 if os.environ.get("SOCKBROKER_FULL_COUNTS") else 100
HEAD = """
import asyncio, errno, os, select, selectors, socket, sys, threading
import sockbroker
lab = sockbroker.connect(sys.argv[1], mode="channel").socket if len(sys.argv) > 1 else socket
def name(number): return errno.errorcode.get(number, number)
def is_writable(sock, seconds=60): return bool(select.select([], [sock.fileno()], [], seconds)[1])
def result_of(sock): return name(sock.getsockopt(lab.SOL_SOCKET, lab.SO_ERROR))
def unused(kept=[]):  # an address on which nothing listens, and which nobody else gets
    kept.append(socket.socket()); kept[-1].bind(("127.0.0.1", 0))
    return kept[-1].getsockname()
"""


class Connecting(OnTlsBroker, unittest.TestCase):
    def run_text(self, text, *arguments):
        return subprocess.run(
            [sys.executable, "-c", HEAD + textwrap.dedent(text), *arguments], env=environment(**self.broker.variables),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, cwd="/",
        )  # fmt: skip

    def check(self, text, expected):
        ended = self.run_text(text, self.broker.url)
        self.assertEqual((ended.stdout, ended.returncode), (expected, 0), ended.stderr)

    def check_as_natively(self, text, expected):
        """Native sockets are the oracle."""
        native = self.run_text(text)
        self.assertEqual((native.stdout, native.returncode), (expected, 0), native.stderr)
        self.check(text, expected)

    def test_connect_returns_before_the_connection_is_made(self):
        self.check_as_natively("""
            full = socket.socket(); full.bind(("127.0.0.1", 0)); full.listen(0)
            place = full.getsockname()
            first = socket.create_connection(place)  # the queue is full: the kernel drops further requests
            select.select([full], [], [])
            client = lab.socket(); client.setblocking(False)
            try: client.connect(place)
            except BlockingIOError as error: print(name(error.errno))
            print(0 <= client.fileno() < 1 << 20, is_writable(client, 0), name(client.connect_ex(place)), result_of(client))
            for call in (lambda: client.send(b"early"), lambda: client.recv(1)):
                try: call()
                except BlockingIOError as error: print(name(error.errno))
            full.accept()
            print(is_writable(client), result_of(client))
            client.sendall(b"late"); client.shutdown(lab.SHUT_WR)
            served = full.accept()[0]
            received = b""
            while data := served.recv(9): received += data
            served.sendall(b"answer")
            print(received, select.select([client], [], [], 60)[0] == [client], client.recv(9), name(client.connect_ex(place)))
        """, "EINPROGRESS\nTrue False EALREADY 0\nEAGAIN\nEAGAIN\nTrue 0\nb'late' True b'answer' EISCONN\n")  # fmt: skip

    def test_failed_connection_is_reported_by_so_error_and_the_socket_connects_again(self):
        self.check_as_natively("""
            server = socket.create_server(("127.0.0.1", 0))
            client = lab.socket(); client.setblocking(False)
            for _ in range(2):
                print(name(client.connect_ex(unused())), is_writable(client), result_of(client), result_of(client))
                print(client.recv(1), name(client.connect_ex(unused())))
            # The result is that of the next call, too.
            print(name(client.connect_ex(unused())), is_writable(client), name(client.connect_ex(unused())))
            print(name(client.connect_ex(server.getsockname())), is_writable(client), result_of(client))
            server.accept()[0].sendall(b"there")
            client.setblocking(True); print(client.recv(5))
            # And a socket that waits after it has not waited.
            client = lab.socket(); client.setblocking(False)
            print(name(client.connect_ex(unused())), is_writable(client), name(client.connect_ex(unused())))
            client.setblocking(True); client.connect(server.getsockname())
            server.accept()[0].sendall(b"again"); print(client.recv(5))
        """, "EINPROGRESS True ECONNREFUSED 0\nb'' ECONNABORTED\n" * 2 + "EINPROGRESS True ECONNREFUSED\n"
            "EINPROGRESS True 0\nb'there'\nEINPROGRESS True ECONNREFUSED\nb'again'\n")  # fmt: skip

    def test_sockets_that_are_closed_while_they_connect_or_after_a_failure_do_not_stay(self):
        self.check("""
            full = socket.socket(); full.bind(("127.0.0.1", 0)); full.listen(0)
            first = socket.create_connection(full.getsockname())
            select.select([full], [], [])
            broker = lab.socket()._client
            def handles(): return broker.call("session.handles", {})[1].value
            for address in (full.getsockname(), unused()):
                clients = [lab.socket() for _ in range(8)]
                numbers = {client._handle.number for client in clients}
                for client in clients:
                    client.setblocking(False)
                    assert client.connect_ex(address) == errno.EINPROGRESS
                if address != full.getsockname(): assert all(map(is_writable, clients))
                for client in clients: client.close()
                while numbers & {one["handle"] for one in handles()}: pass
            print("closed")
        """, "closed\n")

    def test_event_loop_serves_and_connects(self):
        self.check("""
            async def serve(reader, writer):
                writer.write((await reader.readline()).upper())
                await writer.drain()
                writer.close()
            async def main():
                listener = lab.create_server(("127.0.0.1", 0)); listener.setblocking(False)
                server = await asyncio.start_server(serve, sock=listener)
                loop = asyncio.get_running_loop()
                async def talk(number):
                    client = lab.socket(); client.setblocking(False)
                    await loop.sock_connect(client, listener.getsockname())
                    reader, writer = await asyncio.open_connection(sock=client)
                    writer.write(b"line %d\\n" % number)
                    text = await reader.read()
                    writer.close()
                    return text
                texts = await asyncio.gather(*map(talk, range(8)))
                print(texts == [b"LINE %d\\n" % number for number in range(8)])
                refused = lab.socket(); refused.setblocking(False)
                try: await loop.sock_connect(refused, unused())
                except ConnectionRefusedError: print("refused")
                server.close()
            asyncio.run(main())
            # The same by selectors, whose descriptor of the listener a program in C could wait for.
            listener = lab.create_server(("127.0.0.1", 0)); listener.setblocking(False)
            with selectors.DefaultSelector() as selector:
                selector.register(listener, selectors.EVENT_READ)
                client = socket.create_connection(listener.getsockname())
                print(len(selector.select(60)), 0 <= listener.fileno() < 1 << 20)
                listener.accept()[0].close()
        """, "True\nrefused\n1 True\n")

    def test_listener_serves_each_of_many_connections_and_keeps_no_descriptor(self):
        self.check(f"""
            count, clients = {CONNECTIONS}, 20
            async def serve(reader, writer):
                writer.write(await reader.readexactly(4))
                writer.close()
                await writer.wait_closed()
            def ask(first):
                for number in range(first, count, clients):
                    with socket.create_connection(place, SECONDS) as peer, peer.makefile("rb") as answer:
                        peer.sendall(b"%04d" % number)
                        assert answer.read() == b"%04d" % number, number
                return len(range(first, count, clients))
            async def main():
                server = await asyncio.start_server(serve, sock=listener, backlog=count)
                loop = asyncio.get_running_loop()
                with ThreadPoolExecutor(clients) as pool:
                    asking = [loop.run_in_executor(pool, ask, first) for first in range(clients)]
                    try:
                        asked = await asyncio.gather(*asking)
                    except Exception:  # the other clients would wait for this loop, and it for them
                        traceback.print_exc()
                        os._exit(1)
                await asyncio.gather(*asyncio.all_tasks() - {{asyncio.current_task()}})
                server.close()
                return sum(asked)
            import traceback
            from concurrent.futures import ThreadPoolExecutor
            SECONDS = {SECONDS}
            listener = lab.create_server(("127.0.0.1", 0), backlog=count); listener.setblocking(False)
            place = listener.getsockname()
            # What the package keeps for its calls is there after the first connection.
            ask_one = threading.Thread(target=lambda: socket.create_connection(place, SECONDS).close())
            ask_one.start(); select.select([listener], [], [], 60); listener.accept()[0].close(); ask_one.join()
            listener.fileno()
            before = len(os.listdir("/proc/self/fd"))
            print(asyncio.run(main()) == count, len(os.listdir("/proc/self/fd")) <= before)
        """, "True True\n")


if __name__ == "__main__":
    unittest.main()
