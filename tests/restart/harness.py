"""A broker under a stand-in for systemd: it keeps what the broker stores, and passes it to the next broker."""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import tempfile
import threading

# Seconds after which something will not happen any more.
HANG = 180
POLICY = """
version = 1
[[rule]]
name = "sockets"
subject = { everyone = true }
allow = ["create", "option", "resolve"]
[[rule]]
name = "own ports"
subject = { everyone = true }
allow = ["bind", "listen", "accept"]
local = ["127.0.0.0/8", "0.0.0.0/0"]
[[rule]]
name = "peers"
subject = { everyone = true }
allow = ["connect", "send", "receive"]
remote = ["127.0.0.0/8"]
"""
PERSIST = """[[rule]]
name = "persist"
subject = { everyone = true }
allow = ["persist"]
"""


class Failed(Exception):
    """An answer is an error."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.kind = error["data"]["kind"]
        self.data = error["data"]


def receive(end, flags=0):
    """A message and its descriptors. `socket.recv_fds` ignores its flags."""
    space = socket.CMSG_SPACE(253 * 4)
    text, items, _, _ = end.recvmsg(4096, space, flags | socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for _, _, data in items:
        numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return text, list(numbers)


class Store:
    """The notification socket of a service manager, and its descriptor store."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.kept = {}
        self.lock = threading.Condition()
        self.ready = 0
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        while True:
            text, descriptors = receive(self.socket)
            fields = dict(line.split("=", 1) for line in text.decode().splitlines())
            with self.lock:
                name = fields.get("FDNAME")
                if "FDSTORE" in fields:
                    self.kept.setdefault(name, []).extend(descriptors)
                    descriptors = []
                if "FDSTOREREMOVE" in fields:
                    for descriptor in self.kept.pop(name, []):
                        os.close(descriptor)
                if "READY" in fields:
                    self.ready += 1
                for descriptor in descriptors:
                    os.close(descriptor)
                self.lock.notify_all()

    def notice_end(self, pid):
        """Wakes `wait` at the end of a process."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass
        with self.lock:
            self.lock.notify_all()

    def wait(self, condition):
        with self.lock:
            assert self.lock.wait_for(condition, HANG), "the broker does not notify the service manager"

    def drop(self):
        for descriptors in self.kept.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self.kept = {}


class Broker:
    """The broker as a service. It has the same listening socket and store after each start."""

    def __init__(self, program, *, store=512, limits=(), config="", environment=()):
        self.folder = tempfile.TemporaryDirectory(prefix="restart-")
        name = self.folder.name
        os.chmod(name, 0o755)
        self.program = program
        self.keeps = store
        self.environment = dict(environment)
        self.store = Store(name)
        self.path = os.path.join(name, "socket")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o666)
        self.listener.listen(64)
        self.log_path = os.path.join(name, "log")
        limits = {"worker_starts_per_second": 100000, **dict(limits)}
        with open(os.path.join(name, "config.toml"), "w") as file:
            file.write("[limits]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items()) + config)
        self.write_policy(POLICY + PERSIST)
        self.pid = None
        self.start()

    def start(self):
        self.wait_until_up(self.launch())

    def launch(self):
        """Starts the process. Returns what `wait_until_up` takes."""
        ready = self.store.ready
        with self.store.lock:
            stored = [(name, fd) for name, fds in self.store.kept.items() for fd in fds]
        passed = [("sockbrokerd.socket", self.listener.fileno()), *stored]
        # Away from the numbers that the broker gets.
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 500) for _, fd in passed]
        log = os.open(self.log_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        environment = {
            **self.environment,
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": self.store.path,
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
        }
        # An earlier systemd keeps descriptors and does not state it.
        if self.keeps is not None:
            environment["FDSTORE"] = str(self.keeps)
        arguments = [self.program, "--config", os.path.join(self.folder.name, "config.toml"),
                     "--policy", os.path.join(self.folder.name, "policy.toml")]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                os.dup2(log, 1)
                os.dup2(log, 2)
                for number, descriptor in enumerate(moved, 3):
                    os.dup2(descriptor, number)
                environment["LISTEN_PID"] = str(os.getpid())
                os.execve(self.program, arguments, environment)
            finally:
                os._exit(99)
        for descriptor in [log, *moved]:
            os.close(descriptor)
        threading.Thread(target=self.store.notice_end, args=(self.pid,), daemon=True).start()
        return ready

    def wait_until_up(self, ready):
        self.store.wait(lambda: self.store.ready > ready or self.ended())
        if self.ended():
            raise ChildProcessError(self.log())

    def write_policy(self, text):
        with open(os.path.join(self.folder.name, "policy.toml"), "w") as file:
            file.write(text)

    def reload(self, text):
        """Puts another policy in force."""
        self.write_policy(text)
        ready = self.store.ready
        os.kill(self.pid, signal.SIGHUP)
        self.store.wait(lambda: self.store.ready > ready)

    def ended(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def processes(self):
        """The processes of the session that the broker leads."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as file:
                        fields = file.read().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(name))
        return found

    def kill(self):
        """Ends the service as systemd does after a crash: no process is left."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.sweep()

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        self.sweep()

    def sweep(self):
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def log(self):
        with open(self.log_path) as file:
            return file.read()

    def close(self):
        if not self.ended():
            self.kill()
        self.store.drop()
        self.folder.cleanup()


class Client:
    """A connection with newline-delimited JSON."""

    next_request = 0

    def __init__(self, broker):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(HANG)
        self.socket.connect(broker.path)
        self.rest = b""
        self.number = None

    def send(self, method, params):
        Client.next_request += 1
        request = {"jsonrpc": "2.0", "id": Client.next_request, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        return Client.next_request

    def answer(self):
        while b"\n" not in self.rest:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError("the broker has closed the connection")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"]

    def call(self, method, **params):
        self.send(method, params)
        return self.answer()

    def open(self, **params):
        opened = self.call("session.open", persist=True, **params)
        self.number = opened["connection"]
        return opened

    def attach(self, token):
        opened = self.call("session.attach", token=token)
        self.number = opened["connection"]
        return opened

    def worker(self):
        return self.call("broker.info")["process"]["pid"]

    def handles(self):
        return {info["handle"]: info for info in self.call("session.handles")}

    def close(self):
        self.socket.close()


def attached(broker, token):
    """A connection to the session, through the worker that recovers it."""
    client = Client(broker)
    return client, client.attach(token)


@contextlib.contextmanager
def user(uid):
    """Acts as another user. The caller is root."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def client_of(broker, uid):
    with user(uid):
        return Client(broker)


def kill_worker(client):
    """Kills the worker, and waits until the connection has ended."""
    os.kill(client.worker(), signal.SIGKILL)
    try:
        while client.socket.recv(65536):
            pass
    except OSError:
        pass
    client.close()
