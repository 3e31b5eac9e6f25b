"""Mode `channel`: connected streams have a descriptor with their data."""

import shutil
import subprocess
import sys
import textwrap
import unittest

import sockbroker

from process.common import SECONDS, Broker, environment
from process.sshd import LOGGED_IN, PROGRAM, Sshd, require_ssh
from process.tls import OnTlsBroker, TlsBroker

TEXTS = {
    # Calls, timeouts and half-close.
    "streams": """
        with lab.create_server(("127.0.0.1", 0)) as server:
            client = lab.create_connection(server.getsockname())
            served, address = server.accept()
        assert address == client.getsockname() and client.getpeername() == served.getsockname()
        assert 0 <= client.fileno() < 1 << 20 and client.family == lab.AF_INET, client
        client.sendall(b"hello"); assert served.recv(9, lab.MSG_PEEK) == served.recv(9) == b"hello"
        served.settimeout(0.01)
        try: served.recv(1)
        except TimeoutError: print("timeout")
        served.setblocking(False)
        try: served.recv(1)
        except BlockingIOError: print("EAGAIN")
        served.settimeout(None)
        client.setsockopt(lab.IPPROTO_TCP, lab.TCP_NODELAY, 1)
        print(client.getsockopt(lab.IPPROTO_TCP, lab.TCP_NODELAY) != 0, client.getsockopt(lab.SOL_SOCKET, lab.SO_ERROR))
        client.sendmsg([b"a", b"b"]); print(served.recvfrom(9), client.send(b"c"), served.recvmsg(1)[0])
        client.shutdown(lab.SHUT_WR); assert served.recv(1) == b""
        with served.makefile("wb") as file: file.write(b"x" * 300000)
        served.close()
        with client, client.makefile("rb") as file: print(len(file.read()))
    """,
    # Numbers: dup, detach, adoption, sendfile, select and child processes.
    "descriptors": """
        server = lab.create_server(("127.0.0.1", 0))
        client, other = lab.socket(), None
        # As natively, a connection that does not wait is never there at once.
        client.setblocking(False); assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
        assert select.select([], [client], [], 60)[1] and client.getsockopt(lab.SOL_SOCKET, lab.SO_ERROR) == 0
        client.setblocking(True)
        served = server.accept()[0]
        copy = client.dup(); client.close(); copy.sendall(b"1"); assert served.recv(9) == b"1"
        adopted = lab.socket(lab.AF_INET, lab.SOCK_STREAM, 0, fileno=copy.detach())
        assert adopted.getpeername() == served.getsockname()
        assert not select.select([served], [], [], 0)[0]
        large = tempfile.TemporaryFile(); large.write(bytes(range(256)) * 1000); large.flush()
        assert adopted.sendfile(large, 5, 100000) == 100000
        assert select.select([served], [], [], 60)[0]
        data = b""
        while len(data) < 100000: data += served.recv(1 << 20)
        large.seek(5); assert large.read(100000) == data
        child = "import os; os.write(1, os.read(0, 9)); os.write(1, b' child')"
        served.sendall(b"of the")
        number = adopted.fileno()
        subprocess.run([sys.executable, "-c", child], stdin=number, stdout=number, check=True)
        print(served.recv(12, lab.MSG_WAITALL).decode())
        if os.fork() == 0: adopted.sendall(b"forked"); adopted.close(); os._exit(0)
        os.wait(); print(served.recv(9).decode())
        adopted.close(); print(served.recv(9))
        foreign = socket.socketpair()[0].detach()
        try: lab.socket(lab.AF_INET, lab.SOCK_STREAM, 0, fileno=foreign)
        except OSError as error: print(errno.errorcode[error.errno])
    """,
    "ssl": """
        context, server_context = ssl.create_default_context(cafile=sys.argv[3]), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(sys.argv[3])
        server = lab.create_server(("127.0.0.1", 0))
        def serve():
            for _ in range(2): answer()
        def answer():
            with server_context.wrap_socket(server.accept()[0], server_side=True) as served:
                data = served.recv(100); served.sendall(data[::-1])
                try: served.unwrap().close()
                except OSError: pass
        thread = threading.Thread(target=serve); thread.start()
        with lab.create_connection(server.getsockname()) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(b"secret"); print(secure.version(), secure.recv(100)); secure.unwrap()
        # It is closed without reading the tickets, and without the end of TLS.
        plain = lab.create_connection(server.getsockname())
        with context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as secure:
            secure.sendall(b"again"); print(secure.recv(100))
        thread.join()
    """,
    "asyncio": """
        server = lab.create_server(("127.0.0.1", 0))
        async def echo(reader, writer):
            while data := await reader.read(1 << 16): writer.write(data); await writer.drain()
            writer.close()
        async def main():
            plain = lab.create_connection(server.getsockname()); served = server.accept()[0]
            accepted = await asyncio.open_connection(sock=served)
            task = asyncio.ensure_future(echo(*accepted))
            reader, writer = await asyncio.open_connection(sock=plain)
            async def write(): writer.write(b"z" * 1000000); await writer.drain(); writer.write_eof()
            writing = asyncio.ensure_future(write())
            print(len(await reader.read())); await writing; await task; writer.close()
        asyncio.run(main())
    """,
    # The requests of calls.
    "requests": """
        from sockbroker import session
        calls, call = [], session.Session.call
        def record(self, method, *arguments, **parts):
            calls.append(method.partition(".")[2])
            return call(self, method, *arguments, **parts)
        session.Session.call = record
        def used(action):
            calls.clear(); result = action(); print(*calls); return result
        server = socket.create_server(("127.0.0.1", 0))
        client = used(lambda: lab.create_connection(server.getsockname(), 60))
        served = server.accept()[0]
        served.sendall(b"data")
        def use():
            client.sendall(b"x"); client.settimeout(7); client.recv(9); client.setblocking(True); client.shutdown(1)
            assert client.getsockopt(lab.SOL_SOCKET, lab.SO_TYPE) == lab.SOCK_STREAM
        used(use)
        used(client.close)
        assert served.recv(1) == b"x" and served.recv(1) == b""
    """,
    # What was written before the program ended is sent.
    "exit": """
        peer = socket.create_server(("127.0.0.1", 0))
        child = os.fork()
        if child == 0:
            client = lab.create_connection(peer.getsockname())
            client.sendall(b"e" * 3000000)
            os._exit(0)
        served = peer.accept()[0]; total = 0
        while data := served.recv(1 << 20): total += len(data)
        os.waitpid(child, 0); print(total)
    """,
    # A peer that closes ends an upload.
    "upload": """
        peer = socket.create_server(("127.0.0.1", 0))
        client = lab.create_connection(peer.getsockname())
        served = peer.accept()[0]; served.sendall(b"413"); served.close()
        print(client.recv(9), client.recv(9))
        try:
            while True: client.sendall(b"x" * 60000)
        except BrokenPipeError as error: print(errno.errorcode[error.errno])
    """,
    # The same as exit, while the peer sends and nothing reads that.
    "answers": """
        peer = socket.socket(); peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        peer.bind(("127.0.0.1", 0)); peer.listen()
        child = os.fork()
        if child == 0:
            client = lab.socket(); client.setsockopt(lab.SOL_SOCKET, lab.SO_SNDBUF, 16384)
            client.connect(peer.getsockname()); client.sendall(b"e" * 180000)
            os._exit(0)
        served = peer.accept()[0]; total = 0
        served.sendall(b"unread"); os.waitpid(child, 0)
        try:
            while data := served.recv(4096):
                total += len(data)
                try: served.send(b"a")
                except OSError: pass
        except ConnectionResetError: pass
        print(total)
    """,
}
EXPECTED = {
    "streams": "timeout\nEAGAIN\nTrue 0\n(b'ab', None) 1 b'c'\n300000\n",
    "descriptors": "of the child\nforked\nb''\nENOTSUP\n",
    "ssl": "TLSv1.3 b'terces'\nb'niaga'\n",
    "asyncio": "1000000\n",
    "requests": "create_connection open\n\n\n",
    "exit": "3000000\n",
    "upload": "b'413' b''\nEPIPE\n",
    "answers": "180000\n",
}
KILLED = """
    def started(program):
        found = []
        for number in filter(str.isdigit, os.listdir("/proc")):
            try: words = open(f"/proc/{number}/cmdline").read().split(chr(0))
            except OSError: continue
            if words[0].endswith(program) and any(os.environ["XDG_RUNTIME_DIR"] in word for word in words):
                found.append(int(number))
        return found
    peer = socket.create_server(("127.0.0.1", 0))
    for program in sys.argv[3:]:
        client = lab.create_connection(peer.getsockname())
        served = peer.accept()[0]
        client.sendall(b"1"); assert served.recv(1) == b"1"
        (victim,) = started(program)
        os.kill(victim, 9)
        for call, data in (client.recv, 1), (client.send, b"x"):
            try:
                while True: call(data)
            except sockbroker.ChannelInterrupted as error: print(errno.errorcode[error.errno])
        print(served.recv(1))
        try: client.getsockname()
        except OSError: print("lost")
        while started("ssh"): pass
"""
WATCHED = """
    from sockbroker import session
    calls, call = [], session.Session.call
    def record(self, method, *arguments, **parts):
        calls.append(method)
        return call(self, method, *arguments, **parts)
    session.Session.call = record
    # Another program waits for the descriptor natively.
    waits = "import select; p = select.poll(); p.register(0, select.POLLIN); print(len(p.poll({})))"
    def ready(sock, milliseconds):
        command = [sys.executable, "-I", "-S", "-c", waits.format(milliseconds)]
        return subprocess.run(command, stdin=sock.fileno(), capture_output=True, text=True, check=True).stdout.strip()
    server = lab.create_server(("127.0.0.1", 0)); server.setblocking(False)
    peers = [socket.create_connection(server.getsockname())]
    print(ready(server, 60000), select.select([server], [], [], 60)[0] == [server])
    server.accept()[0].close()
    try: server.accept()
    except BlockingIOError: print("EAGAIN", ready(server, 0))
    peers.append(socket.create_connection(server.getsockname()))
    copy = server.dup(); copy.setblocking(True); copy.accept()[0].close(); copy.close()
    sock = lab.socket(lab.AF_INET, lab.SOCK_DGRAM); sock.bind(("127.0.0.1", 0)); sock.setblocking(False)
    native = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(100): native.sendto(b"%d" % number, sock.getsockname())
    print(ready(sock, 60000))
    calls.clear(); got = []
    while len(got) < 100:
        assert select.select([sock], [], [], 60)[0]
        try: got.append(sock.recvfrom(65535))
        except BlockingIOError: pass
    assert [int(data) for data, _ in got] == list(range(100))
    assert {address[1] for _, address in got} == {native.getsockname()[1]}
    print(set(calls), len(calls) < 50)
    # A child waits by calls.
    child = os.fork()
    if child == 0: os._exit(0 if sock.fileno() >= 1 << 30 else 1)
    print(os.waitpid(child, 0)[1])
    number = sock.fileno(); sock.close()
    try: os.fstat(number)
    except OSError: print("closed")
"""
INTERRUPTED = """
    peer = socket.create_server(("127.0.0.1", 0))
    client, other = [lab.create_connection(peer.getsockname()) for _ in range(2)]
    served, second = peer.accept()[0], peer.accept()[0]
    # The end of the data is that of the peer.
    second.sendall(b"all"); second.close()
    print(other.recv(9), other.recv(9))
    served.sendall(b"some"); assert client.recv(4, lab.MSG_PEEK) == b"some"
    print("connected", flush=True); sys.stdin.readline()
    print(client.recv(4))
    calls = [
        lambda: client.recv(1), lambda: client.recvfrom(1), lambda: client.recv_into(bytearray(1)),
        lambda: client.recvfrom_into(bytearray(1)), lambda: client.recvmsg(1), lambda: client.recvmsg_into([bytearray(1)]),
        lambda: client.send(b"x"), lambda: client.sendall(b"x"), lambda: client.sendmsg([b"x"]), client.makefile("rb").read,
    ]
    for call in calls:
        try: call()
        except sockbroker.ChannelInterrupted as error: print(errno.errorcode[error.errno], end=" ")
    print(served.recv(1))
"""
STOPPED = """
    peer = socket.create_server(("127.0.0.1", 0))
    client = lab.create_connection(peer.getsockname())
    served = peer.accept()[0]
    def drain():
        while served.recv(1 << 20): pass
    thread = threading.Thread(target=drain); thread.start()
    client.sendall(b"x" * 100000); print("streams", flush=True)
    try:
        while True: client.sendall(b"x" * 60000)
    except ConnectionError: print("ended")
    thread.join()
    try: lab.create_connection(peer.getsockname())
    except (sockbroker.BrokerError, OSError): print("lost")
"""
TCP = """
    peer = socket.create_server(("127.0.0.1", 0))
    client = lab.create_connection(peer.getsockname())
    served = peer.accept()[0]
    with socket.socket(fileno=os.dup(client.fileno())) as native:
        native.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(native.family == socket.AF_INET and native.getpeername() != client.getpeername())
    client.sendall(b"unread")
    while len(served.recv(9, socket.MSG_PEEK)) < 6: pass
    served.close()
    try: client.recv(1)
    except ConnectionResetError as error: print(errno.errorcode[error.errno])
"""
WRAPPED = """
import socket, ssl, sys, threading
context, server_context = ssl.create_default_context(cafile=sys.argv[1]), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(sys.argv[1])
server = socket.create_server(("127.0.0.1", 0))
def serve():
    with server_context.wrap_socket(server.accept()[0], server_side=True) as served:
        served.sendall(served.recv(9)[::-1])
        served.recv(1)
thread = threading.Thread(target=serve)
thread.start()
with context.wrap_socket(socket.socket(), server_hostname="localhost") as secure:
    secure.connect(server.getsockname())
    secure.sendall(b"again")
    print(secure.recv(9), 0 <= secure.fileno() < 1 << 20)
thread.join()
"""
HEAD = "import asyncio, errno, os, select, socket, ssl, subprocess, sys, tempfile, threading\nimport sockbroker\n"


class OnThisMachine(unittest.TestCase):
    expected = EXPECTED
    pair = None

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.url = cls.broker.path
        cls.more = {}
        cls.addClassCleanup(cls.broker.stop)

    def check(self, name, *arguments):
        self.run_text(TEXTS[name], self.expected[name], *arguments)

    def run_text(self, text, expected, *arguments):
        text = f"{HEAD}\nlab = sockbroker.connect(sys.argv[1], mode=sys.argv[2], pair={self.pair!r}).socket\n{textwrap.dedent(text)}"
        ended = subprocess.run(
            [sys.executable, "-c", text, self.url, "channel", *arguments], env=environment(**self.more),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, cwd="/",
        )  # fmt: skip
        self.assertEqual((ended.stdout, ended.returncode), (expected, 0), ended.stderr)

    def test_streams_have_the_calls_of_native_ones(self):
        self.check("streams")

    def test_descriptors_are_used_like_those_of_native_sockets(self):
        self.check("descriptors")

    def certificate(self):
        """A file with a key and a certificate."""
        if not shutil.which("openssl"):
            raise unittest.SkipTest("needs openssl")
        file = f"{self.broker.folder}/both.pem"
        names = ["-addext", "subjectAltName=DNS:localhost", "-subj", "/CN=localhost", "-days", "2"]
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", *names]
        subprocess.run([*command, "-keyout", file, "-out", f"{file}.certificate"], check=True, capture_output=True)
        with open(f"{file}.certificate", encoding="ascii") as certificate, open(file, "a", encoding="ascii") as both:
            both.write(certificate.read())
        return file

    def test_unmodified_program_connects_a_wrapped_socket(self):
        program = f"{self.broker.folder}/program.py"
        with open(program, "w", encoding="ascii") as file:
            file.write(WRAPPED)
        command = ["-m", "sockbroker", "--broker", self.url, "--mode", "channel"]
        command += ["--pair", self.pair] if self.pair else []
        ended = subprocess.run(
            [sys.executable, *command, program, self.certificate()], env=environment(**self.more),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, cwd="/",
        )  # fmt: skip
        self.assertEqual((ended.stdout, ended.returncode), ("b'niaga' True\n", 0), ended.stderr)

    def test_end_of_the_process_is_not_the_end_of_the_data(self):
        broker = Broker()
        text = f"{HEAD}\nlab = sockbroker.connect({broker.path!r}, 'channel').socket\n{textwrap.dedent(INTERRUPTED)}"
        with subprocess.Popen(
            [sys.executable, "-c", text], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd="/",
        ) as program:  # fmt: skip
            try:
                self.assertEqual(program.stdout.readline(), "b'all' b''\n")
                self.assertEqual(program.stdout.readline(), "connected\n")
                broker.kill()
                out, err = program.communicate("\n", timeout=SECONDS)
            finally:
                program.kill()
        broker.stop()
        self.assertEqual((out, program.returncode), ("b'some'\n" + "ECONNABORTED " * 10 + "b''\n", 0), err)

    def test_ssl_uses_the_descriptor(self):
        self.check("ssl", self.certificate())

    def test_asyncio_uses_the_descriptor(self):
        self.check("asyncio")

    def test_data_timeouts_and_close_need_no_requests(self):
        self.check("requests")

    def test_program_that_ends_loses_nothing(self):
        self.check("exit")

    def test_program_that_ends_loses_nothing_while_its_peer_answers(self):
        self.check("answers")

    def test_upload_fails_when_the_peer_closes(self):
        self.check("upload")


class Remote:
    """Through `sockbroker agent`, which the package starts."""

    expected = {**EXPECTED, "requests": "create_connection\n\n\n"}

    # For a broker of this machine, which can be killed while the others serve on.
    test_end_of_the_process_is_not_the_end_of_the_data = None

    def test_listeners_and_datagram_sockets_have_descriptors_to_wait_for(self):
        self.run_text(WATCHED, "1 True\nEAGAIN 0\n1\n{'socket.recvmmsg'} True\n0\nclosed\n")

    def check_stop(self, broker, url, more):
        """Stops a broker while a program sends."""
        text = f"{HEAD}\nlab = sockbroker.connect({url!r}, 'channel', pair={self.pair!r}).socket\n{textwrap.dedent(STOPPED)}"
        with subprocess.Popen(
            [sys.executable, "-c", text], env=environment(**more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd="/",
        ) as program:  # fmt: skip
            try:
                self.assertEqual(program.stdout.readline(), "streams\n")
                broker.stop()
                out, err = program.communicate(timeout=SECONDS)
            finally:
                program.kill()
        self.assertEqual((out, program.returncode), ("ended\nlost\n", 0), err)


class OverSsh(Remote, OnThisMachine):
    """By ssh."""

    @classmethod
    def setUpClass(cls):
        require_ssh()
        if not PROGRAM.exists():
            raise unittest.SkipTest("the program sockbroker is not built")
        super().setUpClass()
        cls.sshd = Sshd()
        cls.addClassCleanup(cls.sshd.stop)
        cls.url = cls.sshd.url(cls.broker.path)
        cls.more = {**cls.sshd.variables, "SOCKBROKER_AGENT": str(PROGRAM)}

    def test_programs_share_one_agent(self):
        self.check("streams")
        before = self.sshd.log().count(LOGGED_IN)
        self.check("streams")
        self.assertEqual(self.sshd.log().count(LOGGED_IN), before)

    def test_killed_agent_or_ssh_ends_sockets_and_the_next_socket_logs_in_again(self):
        before = self.sshd.log().count(LOGGED_IN)
        self.run_text(KILLED, "ECONNABORTED\nECONNABORTED\nb''\nlost\n" * 2, "/sockbroker", "ssh")
        self.assertEqual(self.sshd.log().count(LOGGED_IN), max(before, 1) + 1)

    def test_stopped_broker_ends_sockets(self):
        broker = Broker()
        self.check_stop(broker, self.sshd.url(broker.path), self.more)


class OverTls(OnTlsBroker, Remote, OnThisMachine):
    """The same with a certificate."""

    def test_killed_agent_ends_sockets_and_the_next_socket_starts_another(self):
        self.run_text(KILLED, "ECONNABORTED\nECONNABORTED\nb''\nlost\n" * 2, "/sockbroker", "/sockbroker")

    def test_stopped_broker_ends_sockets(self):
        broker = TlsBroker()
        self.check_stop(broker, broker.url, broker.variables)

    def test_token_is_refused_with_the_way_out(self):
        text = f"import sockbroker; sockbroker.connect({self.url!r}, mode='channel')"
        more = {**self.more, "SOCKBROKER_TOKEN": "sbk_none", "XDG_RUNTIME_DIR": f"{self.broker.files}/sockbroker"}
        ended = subprocess.run(
            [sys.executable, "-c", text], env=environment(**more), capture_output=True, text=True, timeout=SECONDS
        )
        self.assertIn("use a certificate", ended.stderr)


class OverTlsWithTcp(OverTls):
    """The same with TCP sockets as descriptors."""

    pair = "tcp"

    # As natively, a program that ends without reading everything resets its connection, and data can be lost.
    test_program_that_ends_loses_nothing_while_its_peer_answers = None

    def test_descriptors_are_tcp_sockets_with_exact_resets(self):
        self.run_text(TCP, "True\nECONNRESET\n")


class WithoutProgram(unittest.TestCase):
    def test_tcp_is_refused_where_a_broker_passes_its_sockets(self):
        for url, mode in (("/run/none", "channel"), ("tls://lab7", "remote")):
            with self.assertRaisesRegex(ValueError, "mode channel with ssh: and tls:"):
                sockbroker.connect(url, mode, pair="tcp")
        with self.assertRaisesRegex(ValueError, "use one of unix, tcp"):
            sockbroker.connect("tls://lab7", "channel", pair="sctp")

    def test_error_names_the_way_out(self):
        text = "import sockbroker; sockbroker.connect('ssh://127.0.0.1:1', mode='channel')"
        ended = subprocess.run(
            [sys.executable, "-c", text], env=environment(SOCKBROKER_AGENT="/nonexistent/sockbroker"),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        self.assertIn("cannot start the agent for the broker at ssh://127.0.0.1:1", ended.stderr)
        self.assertIn("SOCKBROKER_AGENT", ended.stderr)


if __name__ == "__main__":
    unittest.main()
