"""Programs that live through crashes of a worker and restarts of the service, under a stand-in for systemd."""

import hashlib
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import unittest

from process.common import BROKER, environment

SERVE = pathlib.Path(__file__).resolve().parents[4] / "tests" / "restart" / "serve.py"
SECONDS = 120
MODES = ("mediated", "remote")
ENDS = ("worker", "crash", "restart")
LENGTH = 4 << 20
DATA = b"".join(hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(LENGTH // 32))


class Service:
    """A broker whose service manager keeps its sockets."""

    def __init__(self):
        command = [sys.executable, str(SERVE), BROKER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.path = self.process.stdout.readline().strip()
        assert self.path, "the broker did not start"

    def command(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == name

    def end(self, kind, worker):
        """Ends the worker of this number, or the service."""
        if kind == "worker":
            os.kill(worker, 9)
        else:
            self.command(kind)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()


PRELUDE = """
    import hashlib, os, select, socket, sys, threading, time
    import sockbroker.process as process
    def say(*words): print(*words, flush=True)
    def worker(): return process.default().current().call("broker.info", []).value["process"]["pid"]
    def ready(*words): say("ready", worker(), *words)
    def go(): sys.stdin.readline()
"""


class Program:
    """A program of brokered sockets that this test talks to."""

    def __init__(self, service, mode, text, *options, persist=True):
        command = [sys.executable, "-m", "sockbroker", "--mode", mode, "--broker", service.path]
        command += ["--persist"] if persist else []
        command += [*options, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(text)]
        self.process = subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.timer = threading.Timer(SECONDS, self.process.kill)
        self.timer.start()

    def ready(self):
        """Waits until the program says that it is ready. Returns the number of its worker, and other words."""
        line = self.process.stdout.readline()
        word, _, rest = line.partition(" ")
        assert word == "ready", line + self.process.stdout.read()
        worker, *others = rest.split()
        return int(worker), others

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_for_response(self):
        """Waits until a thread of the program waits in `recvmsg` or `recvfrom` for a response."""
        while self.process.poll() is None:
            for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
                try:
                    if (task / "wchan").read_text() == "unix_stream_data_wait" or (task / "syscall").read_text().split()[0] in ("45", "47"):
                        return
                except OSError:
                    pass

    def end(self):
        """What the program has printed."""
        output, _ = self.process.communicate(timeout=SECONDS)
        self.timer.cancel()
        return output


def stop(worker):
    """Stops a process, and waits until it has stopped: until then one of its threads could answer."""
    os.kill(worker, signal.SIGSTOP)
    while ") T " not in pathlib.Path(f"/proc/{worker}/stat").read_text():
        pass


def listener():
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(SECONDS)
    return server


def accepted(server):
    peer, _ = server.accept()
    peer.settimeout(SECONDS)
    return peer


class Persistence(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.service = Service()
        self.addCleanup(self.service.stop)

    def each(self, run):
        for mode in MODES:
            for end in ENDS:
                with self.subTest(mode=mode, end=end), listener() as server:
                    run(mode, end, server)

    def test_waits_continue(self):
        text = """
            server = socket.create_server(("127.0.0.1", 0))
            udp = socket.socket(type=socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 0))
            stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
            ports = server.getsockname()[1], udp.getsockname()[1]
            results = {}
            def run(name, call): results[name] = call()
            def receive_selected():
                chosen, _, _ = select.select([udp], [], [], 60)
                return udp.recv(9) if chosen == [udp] else chosen
            calls = {"accept": lambda: server.accept()[0], "stream": lambda: stream.recv(9), "datagram": receive_selected}
            threads = [threading.Thread(target=run, args=item) for item in calls.items()]
            ready(*ports)
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            with results["accept"] as accepted: say(accepted.recv(9), results["stream"], results["datagram"])
            for sock in (server, udp, stream): sock.close()
        """
        def run(mode, end, server):
            program = Program(self.service, mode, text.replace("sys.argv[1]", str(server.getsockname()[1])))
            peer = accepted(server)
            worker, (to_server, to_udp) = program.ready()
            program.wait_for_response()
            self.service.end(end, worker)
            with peer, socket.create_connection(("127.0.0.1", int(to_server)), SECONDS) as client:
                with socket.socket(type=socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"datagram", ("127.0.0.1", int(to_udp)))
                peer.sendall(b"stream")
                client.sendall(b"accepted")
                self.assertEqual(program.end(), "b'accepted' b'stream' b'datagram'\n")

        self.each(run)

    def test_a_stream_loses_and_repeats_no_byte(self):
        text = f"""
            data = b"".join(hashlib.sha256(n.to_bytes(8, "big")).digest() for n in range({LENGTH} // 32))
            with socket.create_connection(("127.0.0.1", PORT)) as stream:
                ready()
                stream.sendall(data[:1 << 20])
                for at in range(1 << 20, len(data), 30000): stream.sendall(data[at : at + 30000])
                stream.shutdown(socket.SHUT_WR)
                received = hashlib.sha256()
                stream.settimeout(0.001)
                try: stream.recv(1)
                except TimeoutError: pass
                stream.settimeout(None)
                ready()
                go()
                while part := stream.recv(30000): received.update(part)
                say(received.hexdigest() == hashlib.sha256(data).hexdigest())
        """
        def run(mode, end, server):
            program = Program(self.service, mode, text.replace("PORT", str(server.getsockname()[1])))
            with accepted(server) as peer:
                worker, _ = program.ready()
                received = bytearray()
                while len(received) < LENGTH // 3:
                    received += peer.recv(1 << 16)
                self.service.end(end, worker)
                while part := peer.recv(1 << 16):
                    received += part
                if received != DATA:
                    self.fail(f"{len(received)} bytes\n{program.end()}")
                worker, _ = program.ready()
                program.go()
                peer.sendall(DATA[: LENGTH // 2])
                self.service.end(end, worker)
                try:
                    peer.sendall(DATA[LENGTH // 2 :])
                    peer.shutdown(socket.SHUT_WR)
                except OSError as error:
                    self.fail(f"{error}: {program.end()}")
                self.assertEqual(program.end(), "True\n")

        self.each(run)

    def test_threads_that_receive_from_one_socket_share_the_stream(self):
        text = """
            stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
            parts = []
            def receive():
                while part := stream.recv(4): parts.append(part)
            threads = [threading.Thread(target=receive) for _ in range(3)]
            for thread in threads: thread.start()
            ready()
            while sys.stdin.readline(): ready()
            for thread in threads: thread.join()
            print(hashlib.sha256(bytes(sorted(b"".join(parts)))).hexdigest())
        """
        data = DATA[: 20 * 1200]
        for mode in MODES:
            with self.subTest(mode=mode), listener() as server:
                program = Program(self.service, mode, text.replace("sys.argv[1]", str(server.getsockname()[1])))
                with accepted(server) as peer:
                    for at in range(0, len(data), 1200):
                        worker, _ = program.ready()
                        peer.sendall(data[at : at + 1200])
                        os.kill(worker, 9)
                        program.go()
                program.ready()
                self.assertEqual(program.end(), hashlib.sha256(bytes(sorted(data))).hexdigest() + "\n")

    def test_a_connection_of_an_ended_process_is_not_used_again(self):
        # A thread that waits for another one's receive would use it until that ends.
        text = """
            sock = socket.socket(type=socket.SOCK_DGRAM)
            pool = process.default().current()._pool
            held = pool.take("socket.recv")
            ready()
            go()
            sock.getsockname()
            # As by a call of another thread whose response came just before the end.
            pool.give_back(held)
            taken = pool.take("socket.recv")
            say(taken is not held, taken.epoch == pool.epoch() > held.epoch)
            pool.give_back(taken)
        """
        program = Program(self.service, "mediated", text)
        worker, _ = program.ready()
        self.service.end("worker", worker)
        program.go()
        self.assertEqual(program.end(), "True True\n")

    def test_the_error_of_lost_bytes_is_call_interrupted(self):
        text = """
            session = process.default().current()
            with socket.create_connection(("127.0.0.1", PORT)) as stream:
                handle = session.call("session.handles", []).value[0]["handle"]
                stream.recv(5)
                ready()
                go()
                try:
                    session.call("socket.resume", [handle, 3])
                except OSError as error:
                    say(type(error).__name__, error.errno, error.call, error.what)
                say(stream.recv(9))
        """
        with listener() as server:
            program = Program(self.service, "mediated", text.replace("PORT", str(server.getsockname()[1])))
            with accepted(server) as peer:
                peer.sendall(b"01234")
                worker, _ = program.ready()
                ended = os.pidfd_open(worker)
                self.addCleanup(os.close, ended)
                self.service.end("worker", worker)
                select.select([ended], [], [], SECONDS)  # what resumed is lost with a process that ends meanwhile
                program.go()
                peer.sendall(b"56789")
                expected = "CallInterrupted 103 resume 2 received bytes are lost with the process that served the session"
                self.assertEqual(program.end(), f"{expected}\nb'56789'\n")

    def test_calls_in_flight_are_repeated_found_or_reported(self):
        text = """
            from sockbroker import CallInterrupted
            udp = socket.socket(type=socket.SOCK_DGRAM)
            udp.connect(("127.0.0.1", 9))
            stream = socket.create_connection(("127.0.0.1", PORT))
            doomed = socket.socket()
            def outcome(call):
                try:
                    return call()
                except CallInterrupted as error:
                    return type(error).__name__, error.call, error.handle > 0, error.strerror.partition(": ")[2]
            def made():
                with socket.socket(type=socket.SOCK_DGRAM) as sock: return sock.type.name
            calls = [lambda: udp.send(b"once"), lambda: stream.sendall(b"whole"), doomed.close, made,
                     lambda: udp.getpeername()[1], lambda: udp.send(b"remains")]
            for call in calls:
                ready()
                go()
                say(outcome(call))
            udp.close()
            stream.close()
        """
        expected = [
            "('CallInterrupted', 'send', True, 'whether this call took effect is not known')", "None", "None", "SOCK_DGRAM",
            "9",
        ]  # fmt: skip
        for mode in MODES:
            with self.subTest(mode=mode), listener() as server:
                program = Program(self.service, mode, text.replace("PORT", str(server.getsockname()[1])))
                with accepted(server) as peer:
                    for line in expected:
                        worker, _ = program.ready()
                        stop(worker)  # it receives the request, and does not answer
                        program.go()
                        program.wait_for_response()
                        os.kill(worker, 9)
                        said = program.process.stdout.readline()
                        if said != line + "\n":
                            program.process.kill()
                            self.fail(f"{said}{program.end()} instead of {line}")
                    program.ready()
                    program.go()
                    self.assertEqual(program.end(), "7\n")
                    self.assertEqual(peer.recv(99), b"whole")

    def test_timeouts_and_reconnect_seconds_end_the_wait(self):
        text = """
            udp = socket.socket(type=socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 0))
            udp.settimeout(0.3)
            udp.gettimeout(), udp.getsockname()
            other = socket.socket(type=socket.SOCK_DGRAM)
            ready()
            go()
            for call in (lambda: udp.recv(9), other.getsockname):
                try:
                    say(call())
                except OSError as error:
                    say(type(error).__name__, error)
            ready_again = say("again")
            go()
            while True:
                try:
                    say(udp.getsockname()[0])
                    break
                except OSError: pass
            udp.close()
            other.close()
        """
        for mode in MODES:
            with self.subTest(mode=mode):
                program = Program(self.service, mode, text, "--reconnect-seconds", "1")
                program.ready()
                self.service.command("down")
                program.go()
                read = program.process.stdout.readline
                self.assertEqual(read(), "TimeoutError timed out\n")
                self.assertRegex(read(), r"BrokerError .* is not reachable for 1 seconds \(reconnect_seconds\): .*systemctl status")
                self.assertEqual(read(), "again\n")
                self.service.command("up")
                program.go()
                self.assertEqual(program.end(), "127.0.0.1\n")

    def test_a_child_process_lives_on_too(self):
        text = """
            stream = socket.create_connection(("127.0.0.1", PORT))
            child = os.fork()
            if not child:
                stream.sendall(b"child ")
                ready()
                go()
                stream.sendall(b"lives on")
                os._exit(0)
            os.waitpid(child, 0)
            stream.sendall(b", so does its parent")
            stream.close()
        """
        for mode in MODES:
            with self.subTest(mode=mode), listener() as server:
                program = Program(self.service, mode, text.replace("PORT", str(server.getsockname()[1])))
                with accepted(server) as peer:
                    worker, _ = program.ready()
                    self.assertEqual(peer.recv(99), b"child ")
                    self.service.end("crash", worker)
                    program.go()
                    self.assertEqual(program.end(), "")
                    received = b""
                    while part := peer.recv(99):
                        received += part
                    self.assertEqual(received, b"lives on, so does its parent")

    def test_without_the_option_a_waiting_call_fails(self):
        text = """
            udp = socket.socket(type=socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 0))
            ready()
            try:
                udp.recv(9)
            except OSError as error:
                say(type(error).__name__)
            udp.close()
        """
        program = Program(self.service, "mediated", text, persist=False)
        worker, _ = program.ready()
        program.wait_for_response()
        self.service.end("worker", worker)
        self.assertEqual(program.end(), "BrokerError\n")

    def test_names_are_found_in_direct_mode(self):
        text = """
            socket.gethostname()
            process.default().current()
            with socket.create_server(("127.0.0.1", 0)) as server:
                ready()
                go()
                say(process.default().current().call("socket.getservbyname", ["http"]).value, server.getsockname()[0])
        """
        program = Program(self.service, "direct", text)
        worker, _ = program.ready()
        self.service.end("crash", worker)
        program.go()
        self.assertEqual(program.end(), "80 127.0.0.1\n")


class Settings(unittest.TestCase):
    def test_modes_that_cannot_return_are_refused(self):
        for arguments in (["--mode", "channel", "--broker", "/x"], ["--mode", "remote", "--broker", "exec:true"]):
            command = [sys.executable, "-m", "sockbroker", *arguments, "--persist", "-c", "pass"]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS)
            self.assertEqual(done.returncode, 2, done)
            self.assertIn("cannot use persist", done.stderr)


if __name__ == "__main__":
    unittest.main()
