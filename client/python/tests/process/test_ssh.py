"""Brokers behind ssh: by a forwarded socket, and by `sockbroker dial-stdio`."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import unittest

from process.common import SECONDS, Broker, environment
from process.sshd import LOGGED_IN, NO_FORWARDING, PROGRAM_STARTED, Sshd, require_shell, require_ssh

DATA = bytes(range(251)) * 1200


class Lab(unittest.TestCase):
    """A broker, and a server of ssh for it."""

    def lab(self, further=""):
        require_ssh()
        self.broker = Broker()
        self.addCleanup(self.broker.stop)
        self.sshd = Sshd(further)
        self.addCleanup(self.sshd.stop)

    def lab_with_shell(self, further=NO_FORWARDING):
        require_shell()
        self.lab(further)

    def start(self, text, *arguments, url=None, options=("-X", "dev", "-W", "error"), **variables):
        """Starts a program whose variable `url` is the address of the broker."""
        url = url or self.sshd.url(self.broker.path)
        source = "import sys, sockbroker\nurl = sys.argv[1]\n" + textwrap.dedent(text)
        return subprocess.Popen(
            [sys.executable, *options, "-c", source, url, *arguments], env=environment(**self.sshd.variables, **variables),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip

    def outcome(self, process):
        with process:
            try:
                return process.communicate(timeout=SECONDS)
            except BaseException:
                process.kill()
                raise

    def run_program(self, text, *arguments, **options):
        out, errors = self.outcome(self.start(text, *arguments, **options))
        self.assertEqual(errors, "", self.sshd.log())
        return out

    def until(self, what, condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)

    def sessions(self):
        """The number of sessions that clients have opened."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self.broker.path)
            stream.sendall(b'{"jsonrpc":"2.0","id":1,"method":"admin.sessions"}\n')
            with stream.makefile() as lines:
                return sum(session["opened"] for session in json.loads(lines.readline())["result"])

    def expect_nothing_left(self):
        self.until("the session ends", lambda: self.sessions() == 0)
        self.until("ssh ends", lambda: not self.sshd.clients())
        self.until("the folder is removed", lambda: not self.sshd.sockets())

    def logins(self):
        return self.sshd.log().count(LOGGED_IN)


ECHO = """
    with sockbroker.connect(url) as lab:
        socket = lab.socket
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as client, server.accept()[0] as served:
                client.sendall(b"hello")
                print(lab.mode, served.recv(10), client.fileno() >= 2**30)
"""


class Forwarded(Lab):
    def test_sockets_of_the_other_host_need_nothing_there_but_the_broker(self):
        self.lab()
        self.assertEqual(self.run_program(ECHO), "remote b'hello' True\n")
        self.assertEqual(self.logins(), 1)
        self.assertNotIn(PROGRAM_STARTED, self.sshd.log())
        self.expect_nothing_left()

    def test_an_unchanged_program_runs_in_remote_mode(self):
        self.lab()
        text = """
            sockbroker.install(broker=url)
            import socket
            with socket.socket() as sock: print(sock.fileno() >= 2**30)
        """
        self.assertEqual(self.run_program(text), "True\n")
        command = ["-m", "sockbroker", "--broker", self.sshd.url(self.broker.path)]
        done = subprocess.run(
            [sys.executable, *command, "-c", "import socket; print(socket.socket().fileno() >= 2**30)"],
            env=environment(**self.sshd.variables), capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.stderr), ("True\n", ""))
        self.expect_nothing_left()

    def test_sockets_of_two_brokers_are_in_one_select(self):
        self.lab()
        other = Broker()
        self.addCleanup(other.stop)
        text = """
            import select, selectors, socket
            with sockbroker.connect(url) as a, sockbroker.connect(sys.argv[2]) as b, socket.socket(type=2) as native:
                socks = [broker.socket.socket(type=2) for broker in (a, b)] + [native]
                for sock in socks: sock.bind(("127.0.0.1", 0))
                with socket.socket(type=2) as sender, selectors.DefaultSelector() as selector:
                    for sock in socks: selector.register(sock, selectors.EVENT_READ)
                    for sock in socks:
                        sender.sendto(b"x", sock.getsockname())
                        assert select.select(socks, [], [], 120)[0] == [sock]
                        assert [key.fileobj for key, _ in selector.select(120)] == [sock]
                        assert sock.recv(10) == b"x"
                    for sock in socks: sender.sendto(b"y", sock.getsockname())
                    seen = []
                    while len(seen) < 3:
                        for sock in select.select(socks, [], [], 120)[0]: seen.append(sock.recv(10))
                    print(seen, select.select(socks, [], [], 0), a.mode, b.mode)
                for sock in socks: sock.close()
        """
        expected = "[b'y', b'y', b'y'] ([], [], []) remote remote\n"
        self.assertEqual(self.run_program(text, self.sshd.url(other.path)), expected)
        self.assertEqual(self.logins(), 2)
        self.expect_nothing_left()

    def test_sixty_connections_need_one_login(self):
        self.lab()
        text = """
            import os
            with sockbroker.connect(url) as lab, lab.socket.create_server(("127.0.0.1", 0)) as server:
                answers, answer = os.pipe()
                waits, ends = os.pipe()
                children = []
                for _ in range(60):
                    child = os.fork()
                    if not child:
                        os.close(ends)
                        try:
                            right = server.getsockname()[0] == "127.0.0.1"
                        except OSError as error:
                            os.write(2, f"{error}\\n".encode())
                            right = False
                        os.write(answer, b"+" if right else b"-")
                        os.read(waits, 1)
                        os._exit(0)
                    children.append(child)
                got = b""
                while len(got) < 60: got += os.read(answers, 60)
                os.close(ends)
                for child in children: os.waitpid(child, 0)
                print(got.count(b"+"))
        """
        self.assertEqual(self.run_program(text, options=()), "60\n")
        self.assertEqual(self.logins(), 1)
        self.expect_nothing_left()

    def test_a_child_process_continues_after_its_parent_has_closed_the_broker(self):
        self.lab()
        text = """
            import os
            lab = sockbroker.connect(url)
            server = lab.socket.create_server(("127.0.0.1", 0))
            waits, ends = os.pipe()
            child = os.fork()
            if not child:
                os.close(ends)
                os.read(waits, 1)
                with lab.socket.create_connection(server.getsockname()) as client: server.accept()[0].close()
                os.write(1, b"connected\\n")
                os._exit(0)
            lab.close()
            os.close(ends)
            os.waitpid(child, 0)
        """
        self.assertEqual(self.run_program(text, options=()), "connected\n")
        self.assertEqual(self.logins(), 1)
        self.expect_nothing_left()

    def test_ssh_is_not_a_child_that_the_program_could_wait_for(self):
        self.lab()
        text = """
            import os
            with sockbroker.connect(url) as lab, lab.socket.socket():
                try:
                    os.wait()
                except ChildProcessError:
                    print("none")
        """
        self.assertEqual(self.run_program(text), "none\n")
        self.expect_nothing_left()

    def test_a_program_that_closes_all_descriptors_logs_in_again(self):
        self.lab()
        text = """
            import os
            lab = sockbroker.connect(url)
            os.closerange(3, 3000)
            null = [os.open("/dev/null", os.O_RDWR) for _ in range(600)]
            with lab.socket.socket() as sock: print(sock.getsockname())
            lab.close()
            del lab, sock
            for number in null: os.close(number)
        """
        self.assertEqual(self.run_program(text, options=()), "('0.0.0.0', 0)\n")
        self.assertEqual(self.logins(), 2)
        self.expect_nothing_left()


BLOCKED = """
    import os, threading
    lab = sockbroker.connect(url)
    sock = lab.socket.socket(type=2)
    sock.bind(("127.0.0.1", 0))
    def wait():
        print("waits", flush=True)
        try: sock.recv(10)
        except sockbroker.BrokerError as error: print(error.strerror, flush=True)
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    try: sock.getsockname()
    except sockbroker.BrokerError as error: print(error.strerror, flush=True)
    sock.close()
    with lab.socket.socket() as sock: print(sock.getsockname(), flush=True)
    lab.close()
"""


class Ending(Lab):
    def test_a_killed_ssh_ends_calls_and_the_next_socket_logs_in_again(self):
        for further in ("", NO_FORWARDING):
            with self.subTest(further=further):
                if further:
                    self.lab_with_shell(further)
                else:
                    self.lab(further)
                process = self.start(BLOCKED)
                self.assertEqual(process.stdout.readline(), "waits\n")
                self.until("one ssh remains", lambda: (self.sessions(), len(self.sshd.clients())) == (1, 1))
                os.kill(self.sshd.clients()[0], signal.SIGKILL)
                out, errors = self.outcome(process)
                self.assertEqual(errors, "")
                lost, later, new = out.splitlines()
                self.assertIn("socket.recv failed: the broker at ssh://127.0.0.1:", lost)
                self.assertIn("cannot use this socket: its session with the broker at ssh://", later)
                self.assertEqual(new, "('0.0.0.0', 0)")
                self.expect_nothing_left()

    def test_a_killed_program_leaves_no_ssh_no_session_and_no_folder(self):
        for further in ("", NO_FORWARDING):
            with self.subTest(further=further):
                if further:
                    self.lab_with_shell(further)
                else:
                    self.lab(further)
                process = self.start(BLOCKED)
                self.assertEqual(process.stdout.readline(), "waits\n")
                self.until("one ssh remains", lambda: len(self.sshd.clients()) == 1)
                process.kill()
                self.outcome(process)
                self.expect_nothing_left()

    def test_data_sent_right_before_the_exit_arrive(self):
        text = """
            import os
            lab = sockbroker.connect(url)
            sock = lab.socket.create_connection(("127.0.0.1", int(sys.argv[2])))
            sock.sendall(bytes(range(251)) * 1200)
            if sys.argv[3] == "exit": os._exit(0)
        """
        for further in ("", NO_FORWARDING):
            if further:
                self.lab_with_shell(further)
            else:
                self.lab(further)
            for how in ("exit", "end"):
                with self.subTest(further=further, how=how), socket.create_server(("127.0.0.1", 0)) as server:
                    process = self.start(text, str(server.getsockname()[1]), how, options=())
                    server.settimeout(SECONDS)
                    with server.accept()[0] as stream:
                        stream.settimeout(SECONDS)
                        received = b""
                        while part := stream.recv(1 << 20):
                            received += part
                    self.assertEqual(self.outcome(process), ("", ""))
                    self.assertTrue(received == DATA, len(received))
                    self.expect_nothing_left()


CONNECT = """
    try:
        sockbroker.connect(url)
    except sockbroker.BrokerError as error:
        print(error.strerror)
"""


class Failing(Lab):
    def fails(self, *parts, **options):
        printed = self.run_program(CONNECT, **options)
        for part in ("cannot connect to the broker at ssh://127.0.0.1:", *parts):
            self.assertIn(part, printed)
        self.expect_nothing_left()

    def test_errors_contain_the_messages_of_ssh(self):
        self.lab()
        self.sshd.know("other_key")
        self.fails("ssh failed", "HOST IDENTIFICATION HAS CHANGED", "Host key verification failed")
        self.sshd.write("known_hosts", "")
        self.fails("Host key verification failed", "to add an unknown key, run `ssh -F ", " once, and confirm it")
        self.sshd.know("host_key")
        self.sshd.write("authorized_keys", "")
        self.fails("Permission denied (publickey)")
        self.fails("ssh failed: connect to host 127.0.0.1 port 1: Connection refused", url="ssh://127.0.0.1:1/s")
        self.fails("ssh: not found", PATH=str(self.sshd.folder))

    def test_a_missing_broker_is_reported_by_the_program_on_the_other_host(self):
        self.lab_with_shell("")
        url = self.sshd.url(f"{self.broker.folder}/none")
        printed = self.run_program(CONNECT, url=url)
        self.assertIn("/none (ENOENT)", printed)
        self.assertIn("/none on 127.0.0.1, and `sockbroker dial-stdio` there has ended: ", printed)
        self.expect_nothing_left()

    def test_modes_with_descriptors_are_refused(self):
        self.lab()
        text = """
            for mode in ("direct", "mediated"):
                try: sockbroker.connect(url, mode=mode)
                except ValueError as error: print(error)
        """
        lines = self.run_program(text).splitlines()
        for mode, line in zip(("direct", "mediated"), lines, strict=True):
            self.assertIn(f"cannot use mode {mode} with the broker at ssh://", line)
        self.assertEqual(self.logins(), 0)


class DialStdio(Lab):
    def test_without_forwarding_one_connection_carries_all_calls(self):
        self.lab_with_shell()
        text = """
            import select, socket, threading
            with sockbroker.connect(url) as lab:
                socks = [lab.socket.socket(type=2) for _ in range(20)]
                for sock in socks: sock.bind(("127.0.0.1", 0))
                got = []
                threads = [threading.Thread(target=lambda sock=sock: got.append(sock.recv(10))) for sock in socks]
                for thread in threads: thread.start()
                with lab.socket.socket(type=2) as sender:
                    for sock in socks: sender.sendto(b"x", sock.getsockname())
                    for thread in threads: thread.join()
                    sender.sendto(b"y", socks[3].getsockname())
                    assert select.select(socks, [], [], 120)[0] == [socks[3]]
                print(len(got))
                for sock in socks: sock.close()
        """
        self.assertEqual(self.run_program(text), "20\n")
        self.assertIn(PROGRAM_STARTED, self.sshd.log())
        self.assertEqual(self.logins(), 2)  # one to find out, and the connection
        self.expect_nothing_left()

    def test_text_of_the_login_shell_is_skipped(self):
        self.lab_with_shell()
        self.sshd.write("home/.bashrc", "echo welcome to lab7; echo Content is 7\n")
        self.assertEqual(self.run_program(ECHO), "remote b'hello' True\n")
        self.expect_nothing_left()

    def test_a_key_can_be_restricted_to_dial_stdio(self):
        self.lab_with_shell("")
        key = self.sshd.read("user_key.pub")
        self.sshd.write("authorized_keys", f'restrict,command="sockbroker dial-stdio --socket {self.broker.path}" {key}')
        self.assertEqual(self.run_program(ECHO, url=self.sshd.url("/nowhere")), "remote b'hello' True\n")
        self.expect_nothing_left()

    def test_a_child_process_gets_a_connection_of_its_own(self):
        self.lab_with_shell()
        text = """
            import os
            with sockbroker.connect(url) as lab, lab.socket.create_server(("127.0.0.1", 0)) as server:
                child = os.fork()
                if not child:
                    with lab.socket.create_connection(server.getsockname()): server.accept()[0].close()
                    os.write(1, b"connected\\n")
                    os._exit(0)
                os.waitpid(child, 0)
                with lab.socket.create_connection(server.getsockname()): server.accept()[0].close()
                print("parent too")
        """
        self.assertEqual(self.run_program(text, options=()), "connected\nparent too\n")
        self.expect_nothing_left()


if __name__ == "__main__":
    unittest.main()
