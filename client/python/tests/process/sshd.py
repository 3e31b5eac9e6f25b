"""An OpenSSH server on loopback, with keys and configuration of its own, and the configuration of a client for it."""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

from process.common import BROKER

_SERVER = "/usr/sbin/sshd"
PROGRAM = pathlib.Path(BROKER).with_name("sockbroker")
"""The command line, if it is built."""
_PRIVILEGE_SEPARATION = "/run/sshd"

NO_FORWARDING = "AllowStreamLocalForwarding no"
"""A line of `sshd_config`, so that clients use `dial-stdio`."""
PROGRAM_STARTED = "Starting session: command"
"""What the server logs when it starts a program."""
LOGGED_IN = "Accepted publickey"
"""What the server logs for each login."""


def require_ssh():
    """Skips the test if ssh or its server is missing."""
    if not os.path.exists(_SERVER) or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        raise unittest.SkipTest("ssh, ssh-keygen or sshd is not installed")


def require_shell():
    """Skips the test if sshd cannot start `sockbroker` as this user."""
    if not pwd.getpwuid(os.geteuid()).pw_shell.endswith("bash"):
        raise unittest.SkipTest("bash is not the login shell of this user")
    if not PROGRAM.exists():
        raise unittest.SkipTest("the program sockbroker is not built")


class Sshd:
    """Accepts one key for this user. The listener starts `sshd -i` for each connection, so the kernel chooses the port."""

    def __init__(self, further=""):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sockbroker-sshd-"))
        for name in ("home", "runtime", "config/sockbroker/127.0.0.1"):
            (self.folder / name).mkdir(parents=True)
        if os.geteuid() == 0:
            os.makedirs(_PRIVILEGE_SEPARATION, exist_ok=True)
        for key in ("host_key", "user_key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        self.write("authorized_keys", self.read("user_key.pub"))
        # Without PAM, a server of another user than root takes accounts for locked whose shadow entry it cannot read.
        pam = "no" if os.geteuid() == 0 else "yes"
        self.write("sshd_config", f"""
HostKey {self.folder}/host_key
AuthorizedKeysFile {self.folder}/authorized_keys
StrictModes no
UsePAM {pam}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile none
LogLevel VERBOSE
PrintMotd no
PrintLastLog no
SetEnv HOME={self.folder}/home PATH={PROGRAM.parent}:/usr/bin:/bin
{further}
""")
        self.write("config/sockbroker/127.0.0.1/ssh_config", f"""
IdentityFile {self.folder}/user_key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {self.folder}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
""")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.know("host_key")
        self.variables = {
            "XDG_CONFIG_HOME": f"{self.folder}/config", "XDG_RUNTIME_DIR": f"{self.folder}/runtime",
        }  # fmt: skip
        self._is_stopped = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def read(self, name):
        """The text of a file of the server; empty if there is none."""
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def write(self, name, text):
        """Writes a file of the server."""
        (self.folder / name).write_text(text)

    def know(self, key):
        """Makes the client expect this key of the server."""
        public = self.read(f"{key}.pub")
        self.write("known_hosts", f"[127.0.0.1]:{self._port} {public}")

    def url(self, path):
        """The URL of a socket behind the server."""
        return f"ssh://127.0.0.1:{self._port}{path}"

    def log(self):
        """The log of the server."""
        return self.read("sshd.log")

    def clients(self):
        """The processes of ssh that clients with these variables have started."""
        found = []
        for number in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = pathlib.Path("/proc", number, "cmdline").read_bytes().split(b"\0")
                if words[0] == b"ssh" and any(os.fsencode(self.folder) in word for word in words):
                    found.append(int(number))
        return found

    def sockets(self):
        """The names in the folder of the sockets of clients."""
        return os.listdir(self.folder / "runtime")

    def _serve(self):
        children = []
        while True:
            connection, _ = self._listener.accept()
            if self._is_stopped:
                connection.close()
                break
            with connection, open(self.folder / "sshd.log", "ab") as log:
                command = [_SERVER, "-i", "-e", "-f", self.folder / "sshd_config"]
                children.append(subprocess.Popen(command, stdin=connection, stdout=connection, stderr=log))
        for child in children:
            child.kill()  # a client that a failed test left behind could keep it
            child.wait()

    def stop(self):
        """Stops the server, and removes its files."""
        self._is_stopped = True
        socket.create_connection(("127.0.0.1", self._port)).close()  # wakes the thread
        self._thread.join()
        self._listener.close()
        # Unlike `shutil.rmtree` it ignores what is removed meanwhile: clients can still be about to end.
        subprocess.run(["rm", "-rf", self.folder], check=True)
