"""`sockbroker.connect`: several brokers in one program, each with its own module of sockets."""

import subprocess
import sys
import textwrap
import unittest

from process.common import SECONDS, Broker, environment
from sockbroker import preamble, ssh_target

MODES = ("direct", "mediated", "remote")


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.brokers = [Broker(), Broker()]
        for broker in cls.brokers:
            cls.addClassCleanup(broker.stop)

    def check(self, text, expected, *arguments, options=("-X", "dev", "-W", "error"), brokers=None, **variables):
        """Runs a program whose variables `one` and `two` are the paths of brokers."""
        source = "import sys, socket, sockbroker\none, two = sys.argv[1:3]\n" + textwrap.dedent(text)
        paths = [broker.path for broker in brokers or self.brokers]
        done = subprocess.run(
            [sys.executable, *options, "-c", source, *paths, *arguments], env=environment(**variables), cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.stderr), (expected, ""))


class Modules(Programs):
    def test_the_module_has_the_names_of_python_s_and_its_own_sockets(self):
        text = """
            native = socket.socket
            for mode in ("direct", "mediated", "remote"):
                with sockbroker.connect(one, mode=mode) as a, sockbroker.connect("unix:" + two, mode=mode) as b:
                    assert (a.mode, a.url, b.url) == (mode, one, two), (a, b)
                    for broker in (a, b):
                        module = broker.socket
                        assert set(socket.__all__) <= set(dir(module)) and module.AF_INET is module.AddressFamily(2)
                        with module.create_server(("127.0.0.1", 0)) as server:
                            with module.create_connection(server.getsockname()) as client, server.accept()[0] as served:
                                assert type(client) is type(served) is module.socket
                                assert client.family is module.AF_INET
                                client.sendall(b"hello")
                                with served.makefile("rb") as file: assert file.read(5) == b"hello"
                        for end in module.socketpair(): end.close()
                        assert module.getaddrinfo("127.0.0.1", 80, type=module.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
                    assert a.socket.socket is not b.socket.socket
            assert socket.socket is native and not hasattr(sys.modules["_socket"], "native_module")
            print(len([name for name in sys.modules if name.startswith("sockbroker.socket_")]))
        """
        self.check(text, "1\n")  # sockbroker.socket_module

    def test_the_mode_is_mediated_unless_the_program_names_another_one(self):
        text = """
            with sockbroker.connect(one) as broker: print(broker, broker.netns)
            for arguments in ((one, "other"), (one, "direct", "lab1"), ("exec:socat -", "mediated"), ("ftp://x",)):
                try: sockbroker.connect(*arguments)
                except ValueError as error: print(error)
            try: sockbroker.connect("/nonexistent/socket", mode="direct")
            except sockbroker.BrokerError as error: print(error.strerror)
        """
        one = self.brokers[0].path
        expected = (
            f"<sockbroker.Broker {one} mode=mediated> None\n"
            "unknown mode 'other': use one of direct, mediated, remote, channel\n"
            "cannot use the network namespace 'lab1': in mode direct this process makes its sockets itself: use mediated, remote or channel\n"
            "cannot use mode mediated with the broker at exec:socat -: a command passes no descriptors; use remote\n"
            "cannot parse the broker URL 'ftp://x': use /path, unix:/path, ssh://HOST, tls://HOST or exec:COMMAND\n"
            "cannot connect to the broker at /nonexistent/socket: No such file or directory; "
            "check that sockbrokerd runs there, or set --broker or SOCKBROKER\n"
        )
        self.check(text, expected, SOCKBROKER="/nonexistent/other", SOCKBROKER_MODE="remote", SOCKBROKER_NETNS="lab7")

    def test_each_module_has_its_own_default_timeout(self):
        text = """
            for mode in ("direct", "mediated", "remote"):
                with sockbroker.connect(one, mode=mode) as a, sockbroker.connect(two, mode=mode) as b:
                    a.socket.setdefaulttimeout(2.5)
                    b.socket.setdefaulttimeout(0)
                    for module, timeout in ((a.socket, 2.5), (b.socket, 0.0), (socket, None)):
                        assert module.getdefaulttimeout() == timeout
                        with module.socket(type=2) as sock: assert sock.gettimeout() == timeout, (mode, sock.gettimeout())
                        x, y = module.socketpair()
                        with x, y, module.socket(fileno=y.detach()) as z: assert x.gettimeout() == z.gettimeout() == timeout
                    for wrong in (-1, "x"):
                        errors = []
                        for module in (a.socket, socket):
                            try: module.setdefaulttimeout(wrong)
                            except Exception as error: errors.append(repr(error))
                        assert errors[0] == errors[1], errors
                    a.socket.setdefaulttimeout(None)
                    with a.socket.socket() as sock: assert sock.gettimeout() is None
        """
        self.check(text, "")

    def test_sockets_of_two_brokers_and_of_the_kernel_are_in_one_wait(self):
        text = """
            import select, selectors
            for mode in ("mediated", "remote"):
                with sockbroker.connect(one, mode=mode) as a, sockbroker.connect(two, mode="remote") as b:
                    socks = [module.socket(type=2) for module in (a.socket, b.socket, socket, b.socket, a.socket)]
                    for sock in socks: sock.bind(("127.0.0.1", 0))
                    sender = socket.socket(type=2)
                    with selectors.PollSelector() as poll, selectors.EpollSelector() as epoll:
                        for sock in socks:
                            poll.register(sock, selectors.EVENT_READ)
                            epoll.register(sock, selectors.EVENT_READ)
                        assert select.select(socks, [], [], 0) == ([], [], []) and poll.select(0) == epoll.select(0) == []
                        assert select.select(socks, [], [], 0.01) == ([], [], [])
                        for sock in socks:
                            sender.sendto(b"x", sock.getsockname())
                            assert select.select(socks, [], [], 120) == ([sock], [], [])
                            for selector in (poll, epoll): assert [key.fileobj for key, _ in selector.select(120)] == [sock]
                            assert sock.recv(10) == b"x"
                        assert set(select.select([], socks, [])[1]) == set(socks)
                        b.close()
                        gone = {key.fileobj for key, _ in poll.select(120)}
                        assert gone == {socks[1], socks[3]}, gone
                    for sock in (*socks, sender): sock.close()
            print("done")
        """
        self.check(text, "done\n")

    def test_asyncio_uses_sockets_of_two_brokers(self):
        text = """
            import asyncio
            async def echo(reader, writer):
                writer.write(await reader.read(100))
                await writer.drain()
                writer.close()
            async def use(broker):
                server = await asyncio.start_server(echo, sock=broker.socket.create_server(("127.0.0.1", 0)))
                async with server:
                    sock = broker.socket.create_connection(server.sockets[0].getsockname())
                    reader, writer = await asyncio.open_connection(sock=sock)
                    writer.write(b"hello")
                    print(await reader.read())
                    writer.close()
                    await writer.wait_closed()
            async def main(*brokers):
                await asyncio.gather(*map(use, brokers))
            for modes in (("remote", "remote"), ("mediated", "remote")):
                with sockbroker.connect(one, mode=modes[0]) as a, sockbroker.connect(two, mode=modes[1]) as b:
                    asyncio.run(main(a, b))
        """
        self.check(text, "b'hello'\n" * 4, options=("-W", "error"))  # with -X dev, asyncio reports slow calls

    def test_a_broker_and_the_default_of_the_process_are_independent(self):
        text = """
            sockbroker.install(mode="mediated", broker=one)
            other = sockbroker.connect(two, mode="remote")
            import socket
            with socket.socket() as mine, other.socket.socket() as others:
                assert isinstance(mine, socket.socket) and not isinstance(others, socket.socket)
                print(mine.fileno() < 2**30, others.fileno() >= 2**30)
            other.close()
            with socket.socket() as mine: print(mine.getsockname())
        """
        self.check(text, "True True\n('0.0.0.0', 0)\n")


class Ending(Programs):
    def test_closing_ends_calls_in_every_thread(self):
        text = """
            import threading
            for mode in ("mediated", "remote"):
                broker = sockbroker.connect(one, mode=mode)
                socks = [broker.socket.socket(type=2) for _ in range(40)]
                for sock in socks: sock.bind(("127.0.0.1", 0))
                started, texts = threading.Semaphore(0), []
                def wait(sock):
                    started.release()
                    try: sock.recv(10)
                    except sockbroker.BrokerError as error: texts.append("closed by this program" in str(error))
                threads = [threading.Thread(target=wait, args=[sock]) for sock in socks]
                for thread in threads: thread.start()
                for _ in threads: started.acquire()
                broker.close()
                for thread in threads: thread.join()
                for sock in socks: sock.close()
                for call in (broker.socket.socket, broker.socket.gethostname):
                    try: call()
                    except sockbroker.BrokerError as error: texts.append("closed by this program" in error.strerror)
                broker.close()
                print(texts.count(True), len(texts))
        """
        self.check(text, "42 42\n" * 2)

    def test_brokers_leave_no_descriptors_threads_and_modules(self):
        text = """
            import gc, os, threading, weakref
            def use(mode, closes):
                broker = sockbroker.connect(one, mode=mode)
                with broker.socket.socket(type=2) as sock: sock.bind(("127.0.0.1", 0))
                if closes: broker.close()
                return weakref.ref(broker.socket.socket)
            def count():
                gc.collect()
                return len(os.listdir("/proc/self/fd")), threading.active_count()
            use("remote", True)
            before = count()
            classes = [use(mode, closes) for _ in range(20) for mode in ("direct", "mediated", "remote") for closes in (True, False)]
            after = count()
            print(after == before or (before, after), sum(made() is not None for made in classes))
        """
        self.check(text, "True 0\n")

    def test_a_broker_that_ends_affects_the_sockets_of_no_other(self):
        brokers = [Broker(), Broker()]
        for broker in brokers:
            self.addCleanup(broker.stop)
        text = """
            import os, signal, select
            with sockbroker.connect(one, mode="remote") as a, sockbroker.connect(two, mode="remote") as b:
                mine, others = a.socket.socket(type=2), b.socket.socket(type=2)
                mine.bind(("127.0.0.1", 0)); others.bind(("127.0.0.1", 0))
                os.kill(int(sys.argv[3]), signal.SIGKILL)
                assert select.select([mine, others], [], [], 120)[0] == [mine]
                try: mine.getsockname()
                except sockbroker.BrokerError as error: print(one in str(error))
                others.sendto(b"x", others.getsockname())
                print(others.recv(10), select.select([others], [], [], 0))
                mine.close(); others.close()
        """
        self.check(text, "True\nb'x' ([], [], [])\n", str(brokers[0].process.pid), brokers=brokers)

    def test_threads_connect_and_close_at_once(self):
        text = """
            import threading
            wrong = []
            def use(number):
                try:
                    with sockbroker.connect((one, two)[number % 2], mode=("mediated", "remote", "direct")[number % 3]) as broker:
                        with broker.socket.create_server(("127.0.0.1", 0)) as server:
                            with broker.socket.create_connection(server.getsockname()) as client, server.accept()[0] as served:
                                client.sendall(b"%d" % number)
                                if served.recv(10) != b"%d" % number: wrong.append(number)
                except BaseException as error:
                    wrong.append(repr(error))
            threads = [threading.Thread(target=use, args=[number]) for number in range(24)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(wrong)
        """
        self.check(text, "[]\n")


class Processes(Programs):
    def test_a_child_process_uses_the_sockets_of_all_brokers(self):
        text = """
            import os
            for mode in ("direct", "mediated", "remote"):
                a, b = sockbroker.connect(one, mode=mode), sockbroker.connect(two, mode=mode)
                servers = [broker.socket.create_server(("127.0.0.1", 0)) for broker in (a, b)]
                waits, ends = os.pipe()
                child = os.fork()
                if not child:
                    os.close(ends)
                    os.read(waits, 1)  # until the parent has closed its own
                    for broker, server in zip((a, b), servers):
                        with broker.socket.create_connection(server.getsockname()) as client, server.accept()[0] as served:
                            client.sendall(b"x")
                            os.write(1, served.recv(10))
                    os._exit(0)
                os.close(waits)
                a.close(); b.close()
                for server in servers: server.close()
                os.close(ends)
                os.waitpid(child, 0)
        """
        self.check(text, "xx" * 3, options=())

    def test_threads_open_brokers_while_others_fork(self):
        text = """
            import os, threading
            stop = threading.Event()
            wrong = []
            def connect():
                while not stop.is_set():
                    try:
                        with sockbroker.connect(one, mode="remote") as broker, broker.socket.socket() as sock: sock.getsockname()
                    except BaseException as error:
                        wrong.append(repr(error))
            threads = [threading.Thread(target=connect) for _ in range(3)]
            for thread in threads: thread.start()
            with sockbroker.connect(two, mode="remote") as broker, broker.socket.socket() as sock:
                for _ in range(40):
                    child = os.fork()
                    if not child: os._exit(sock.getsockname() != ("0.0.0.0", 0))
                    wrong += [status for status in (os.waitpid(child, 0)[1],) if status]
            stop.set()
            for thread in threads: thread.join()
            print(wrong)
        """
        self.check(text, "[]\n", options=())


    def test_threads_fork_at_once(self):
        text = """
            import os, threading
            wrong = []
            with sockbroker.connect(one, mode="remote") as a, sockbroker.connect(two, mode="mediated") as b:
                with a.socket.socket() as x, b.socket.socket() as y:
                    def fork():
                        for _ in range(10):
                            child = os.fork()
                            if not child: os._exit(x.getsockname() != ("0.0.0.0", 0) or y.getsockname() != ("0.0.0.0", 0))
                            if os.waitpid(child, 0)[1]: wrong.append(child)
                    threads = [threading.Thread(target=fork) for _ in range(6)]
                    for thread in threads: thread.start()
                    for thread in threads: thread.join()
            print(wrong)
        """
        self.check(text, "[]\n", options=())


class Addresses(unittest.TestCase):
    def test_targets_of_ssh_are_parsed_and_shown(self):
        for text, destination, port, path in (
            ("ssh://lab7", "lab7", None, None),
            ("ssh://alice@lab7:2222/run/x/s", "alice@lab7", 2222, "/run/x/s"),
            ("ssh://[::1]:22/s", "::1", 22, "/s"),
            ("ssh://a.b@c@[fe80::1]", "a.b@c@fe80::1", None, None),
        ):
            target = ssh_target.parse(text[4:])
            self.assertEqual((target.destination, target.port, target.path, str(target)), (destination, port, path, text))
        self.assertEqual(str(ssh_target.parse("//lab7/")), "ssh://lab7")

    def test_targets_that_ssh_or_a_shell_could_misread_are_refused(self):
        for rest in (
            "lab7", "//", "///run/s", "//-oProxyCommand=x", "//a b", "//u@", "//-l@h", "//h:0", "//h:", "//h:65536",
            "//h:x", "//[::1", "//[::1]x", "//..", "//h/a:b", "//h/a b", "//h/%h", "//h/$(x)", "//h/a;b", "//h/a'b",
            "//h/\u00e9", "//h\n/s", "//@h", "//h/s\n", "//h:1\n",
        ):  # fmt: skip
            with self.subTest(rest=rest), self.assertRaisesRegex(ValueError, "use ssh://"):
                ssh_target.parse(rest)

    def test_the_protocol_begins_at_once_or_after_the_marker(self):
        for text, expected in (
            (b"Content-Length: 2\r\n\r\n{}", 0),
            (b"content-length:", 0),
            (b"sockbroker dial-stdio 1\nContent", 24),
            (b"welcome\nto lab7\r\nsockbroker dial-stdio 1\r\n", 42),
            (b"sockbroker dial-stdio 1", None),
            (b"welcome sockbroker dial-stdio 1\n", None),
            (b"Content-", None),
            (b"", None),
        ):
            self.assertEqual(preamble.scan(text), expected, text)
        with self.assertRaisesRegex(EOFError, "printed 'welcome to lab7' before the protocol"):
            preamble.scan(b"welcome to lab7\nContent-Length: 2\r\n\r\n{}")

    def test_text_before_the_protocol_of_a_command_is_skipped_or_reported(self):
        broker = Broker()
        self.addCleanup(broker.stop)
        text = """
            import sockbroker, sys
            try:
                with sockbroker.connect(sys.argv[1]) as broker, broker.socket.socket() as sock: print(sock.getsockname())
            except sockbroker.BrokerError as error:
                print(error.strerror)
        """
        relay = f"{broker.folder}/relay"
        marker = "print('sockbroker dial-stdio 1', flush=True)\n"
        for printed, expected in (
            (marker, "('0.0.0.0', 0)\n"),
            (f"print('welcome', 'x' * 60000, sep='\\n', flush=True)\n{marker}", "('0.0.0.0', 0)\n"),
            ("print('welcome to lab7', flush=True)\n", "printed 'welcome to lab7' before the protocol"),
            ("print('welcome to lab7', flush=True)\nsys.exit()\n", "printed 'welcome to lab7' before the protocol"),
            ("print('x' * 70000, flush=True)\nsys.exit()\n", "printed 'xxxx"),
            ("sys.exit()\n", "closed a new connection"),
        ):
            with open(relay, "w", encoding="utf-8") as file:
                file.write(f"import sys, socket, threading\n{printed}{RELAY}")
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(text), f"exec:sh -c 'exec {sys.executable} -S {relay} {broker.path} 2>&-'"],
                env=environment(), capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            self.assertEqual(done.stderr, "")
            self.assertIn(expected, done.stdout)


RELAY = """
upper = socket.socket(fileno=0)
lower = socket.socket(socket.AF_UNIX)
lower.connect(sys.argv[1])
def move(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
threading.Thread(target=move, args=[lower, upper], daemon=True).start()
move(upper, lower)
"""


if __name__ == "__main__":
    unittest.main()
