"""The package's own connections to the broker: their number, and programs that close their descriptors."""

import pathlib
import tempfile
import unittest

from process.common import Broker, code, program

BROKERED = ("mediated", "remote")
CONTROL_SOCKETS = """
import os, socket
from sockbroker import control_socket
def own():
    return [sock.fileno() for sock in list(control_socket._control_sockets) if sock.fileno() >= 0]
"""


class Programs:
    """Helpers of both classes."""

    def broker(self, config=None):
        options = ()
        if config is not None:
            file = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()), "config.toml")
            file.write_text(config)
            options = ("--config", str(file))
        broker = Broker(*options)
        self.addCleanup(broker.stop)
        return broker

    def check(self, text, expected, broker, *arguments, modes=BROKERED):
        for mode in modes:
            with self.subTest(mode=mode):
                done = program(broker.path, *code(CONTROL_SOCKETS + text), *arguments, mode=mode)
                self.assertEqual((done.stdout, done.stderr), (expected, ""))


class Sharing(Programs, unittest.TestCase):
    def test_hundreds_of_blocked_threads_share_few_connections(self):
        text = """
import threading
threading.stack_size(1 << 17)
pairs = [socket.socketpair() for _ in range(600)]
got = []
def read(end, started):
    started.release()
    got.append(end.recv(10))
started = threading.Semaphore(0)
readers = [threading.Thread(target=read, args=[end, started]) for end, _ in pairs]
for reader in readers: reader.start()
for _ in readers: started.acquire()
print(len(own()) < 50)
for number, (_, end) in enumerate(pairs): end.send(b"%d" % number)
for reader in readers: reader.join()
print(sorted(map(int, got)) == list(range(600)))
for pair in pairs:
    for end in pair: end.close()
"""
        self.check(text, "True\nTrue\n", self.broker())

    def test_hundreds_of_forked_children_use_an_inherited_socket_at_once(self):
        text = """
inherited = socket.create_server(("127.0.0.1", 0))
answers, answer = os.pipe()
end, ended = os.pipe()
children = []
for _ in range(600):
    child = os.fork()
    if child == 0:
        os.close(ended)
        works = inherited.getsockname()[0] == "127.0.0.1"
        os.write(answer, b"+" if works else b"-")
        os.read(end, 1)
        os._exit(0)
    children.append(child)
os.close(answer)
got = b""
while len(got) < 600: got += os.read(answers, 600) or b"x" * 600
os.close(ended)
for child in children: os.waitpid(child, 0)
print(got.count(b"+"))
"""
        self.check(text, "600\n", self.broker())

    def test_threads_that_wait_for_one_socket_do_not_delay_its_other_calls(self):
        text = """
import threading
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
got = []
threads = [threading.Thread(target=lambda: got.append(sock.recv(10))) for _ in range(60)]
for thread in threads: thread.start()
address = sock.getsockname()
for _ in range(60): sock.sendto(b"x", address)
for thread in threads: thread.join()
print(len(got), len(own()) < 200)
sock.close()
"""
        self.check(text, "60 True\n", self.broker())

    def test_an_exception_while_the_anchor_begins_to_be_shared_does_not_lose_it(self):
        text = """
from sockbroker import pool
sock = socket.socket(type=socket.SOCK_DGRAM)
pool.Pool.take = lambda self, method: None  # every call shares a connection
shared = pool.SharedConnection
def interrupted(*_):  # as by the handler of a signal
    pool.SharedConnection = shared
    raise KeyboardInterrupt
pool.SharedConnection = interrupted
try: sock.bind(("127.0.0.1", 0))
except KeyboardInterrupt: print("interrupted")
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[0])
sock.close()
"""
        self.check(text, "interrupted\n127.0.0.1\n", self.broker())

    def test_large_messages_pass_over_shared_connections(self):
        text = """
import threading
data = os.urandom(1 << 20)
pairs = [socket.socketpair() for _ in range(30)]
same = []
def read(end):
    got = b""
    while len(got) < len(data): got += end.recv(1 << 20)
    same.append(got == data)
threads = [threading.Thread(target=read, args=[end]) for end, _ in pairs]
threads += [threading.Thread(target=end.sendall, args=[data]) for _, end in pairs]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(same.count(True))
for pair in pairs:
    for end in pair: end.close()
"""
        self.check(text, "30\n", self.broker())

    def test_hundreds_of_children_use_an_inherited_socket_at_once(self):
        text = """
server = socket.create_server(("127.0.0.1", 0))
reader, writer = os.pipe()
waits, ends = os.pipe()
children = []
for _ in range(300):
    child = os.fork()
    if not child:
        os.close(ends)
        try:
            server.getsockname()
            os.write(writer, b"+")
        except OSError as error:
            os.write(writer, b"-")
        os.read(waits, 1)
        os._exit(0)
    children.append(child)
results = b""
while len(results) < 300: results += os.read(reader, 1000)
os.close(ends)
for child in children: os.waitpid(child, 0)
print(results.count(b"+"))
server.close()
"""
        self.check(text, "300\n", self.broker())

    def test_calls_continue_after_the_broker_was_stopped_for_a_while(self):
        text = """
import signal, sys, threading, time
sockets = [socket.socket() for _ in range(140)]
wrong = []
ready = threading.Barrier(len(sockets) + 1)
def ask(sock):
    ready.wait()
    try:
        sock.getsockname()
    except OSError as error:
        wrong.append(error)
threads = [threading.Thread(target=ask, args=[sock]) for sock in sockets]
for thread in threads: thread.start()
os.kill(int(sys.argv[1]), signal.SIGSTOP)
ready.wait()
time.sleep(0.5)
os.kill(int(sys.argv[1]), signal.SIGCONT)
for thread in threads: thread.join()
print(wrong, sockets[0].getsockname())
for sock in sockets: sock.close()
"""
        broker = self.broker()
        self.check(text, "[] ('0.0.0.0', 0)\n", broker, str(broker.process.pid))

    def test_processes_wait_while_the_backlog_is_full(self):
        text = """
import signal, sys, time
from sockbroker import native
broker, path = int(sys.argv[1]), sys.argv[2]
os.kill(broker, signal.SIGSTOP)
while ") T " not in open(f"/proc/{broker}/stat").read(): pass
waiting = []
while True:
    waiting.append(native.module.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    waiting[-1].setblocking(False)
    if waiting[-1].connect_ex(path): break
children = []
reader, writer = os.pipe()
for _ in range(20):
    child = os.fork()
    if not child:
        try:
            socket.socket().getsockname()
            os.write(writer, b"+")
        except OSError as error:
            os.write(2, f"{error}\\n".encode())
        os._exit(0)
    children.append(child)
time.sleep(0.5)
for connection in waiting: connection.close()
os.kill(broker, signal.SIGCONT)
for child in children: os.waitpid(child, 0)
print(len(waiting) > 20, len(os.read(reader, 1000)))
"""
        broker = self.broker()
        self.check(text, "True 20\n", broker, str(broker.process.pid), broker.path, modes=["mediated"])

    def test_the_error_of_a_child_beyond_the_limit_names_the_limit(self):
        text = """
server = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if not child:
    try:
        server.getsockname()
    except OSError as error:
        print(type(error).__name__, error.strerror.partition("child process: ")[2].split(":")[0], flush=True)
    os._exit(0)
os.waitpid(child, 0)
server.close()
"""
        broker = self.broker("[limits]\nsessions_per_user = 1\n")
        expected = "BrokerError the limit sessions_per_user (1) was exceeded\n"
        self.check(text, expected, broker, modes=["remote"])


class ClosedDescriptors(Programs, unittest.TestCase):
    def test_new_sockets_work_after_every_descriptor_was_closed(self):
        text = """
import gc
socket.gethostname()
for _ in range(3):
    os.closerange(3, 3000)
    with socket.socket() as sock: print(sock.getsockname())
    gc.collect()
"""
        self.check(text, "('0.0.0.0', 0)\n" * 3, self.broker())

    def test_files_of_the_program_with_reused_numbers_stay_open(self):
        text = """
import gc
from sockbroker import BrokerError
kept = socket.socket(type=socket.SOCK_DGRAM)
others = [socket.socket() for _ in range(3)]
numbers = own()
assert len(numbers) >= 1
for number in numbers: os.close(number)
null = os.open("/dev/null", os.O_RDWR)
files = [os.dup2(null, number) for number in numbers]
for other in others:
    try: other.close()
    except OSError: pass
# In remote mode the session is lost once the broker has seen the end of its connections, which may be later.
try: kept.bind(("127.0.0.1", 0))
except BrokerError: assert kept.fileno() >= 2**30
with socket.socket() as new: new.getsockname()
try: kept.close()
except OSError: pass
del kept, others, other
gc.collect()
print(all(os.path.samefile(f"/proc/self/fd/{number}", "/dev/null") for number in files))
"""
        self.check(text, "True\n", self.broker())

    def test_a_socket_with_a_descriptor_works_after_the_connections_were_closed(self):
        text = """
with socket.create_server(("127.0.0.1", 0)) as server:
    for number in own(): os.close(number)
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as served:
        client.sendall(b"still here")
        print(served.recv(100))
"""
        self.check(text, "b'still here'\n", self.broker(), modes=["mediated"])

    def test_the_program_cannot_adopt_the_package_s_own_connection(self):
        text = """
socket.gethostname()
found = set()
for call in (lambda number: socket.socket(fileno=number), lambda number: socket.fromfd(number, 1, 1)):
    for number in own():
        try:
            call(number)
            print("adopted")
        except OSError as error:
            found.add((error.errno, "package's own" in error.strerror))
print(found)
"""
        self.check(text, "{(9, True)}\n", self.broker())


if __name__ == "__main__":
    unittest.main()
