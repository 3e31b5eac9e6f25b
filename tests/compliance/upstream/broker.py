"""Starts and ends a broker for one run of tests. All users of the machine can connect to it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

LONGEST_WAIT = 180


class Broker:
    """A broker that serves at `path`, started by `command`; its log is a file."""

    def __init__(self, command, path, log):
        self.path = self.url = path
        self.variables = {}
        """What programs need in their environment to use it."""
        self._log = open(log, "w+", encoding="utf-8", errors="replace")
        environment = {**os.environ, "SOCKBROKER_LOG": "debug"}
        self._process = subprocess.Popen([*command, "--socket", path], stdin=subprocess.DEVNULL, stdout=self._log,
                                         stderr=self._log, env=environment)  # fmt: skip
        self._wait_until_it_serves()
        os.chmod(path, 0o666)

    def _wait_until_it_serves(self):
        """Connects to the broker. After that, the caller can change the mode of the socket."""
        deadline = time.monotonic() + LONGEST_WAIT
        while True:
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    return sock.connect(self.path)
                except OSError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"the broker does not serve ({error}):\n{self.log()}") from None
            time.sleep(0.02)

    def log(self):
        """Returns the log."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def stop(self):
        """Ends the broker and returns the number of served calls, and its faults, one line each."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(LONGEST_WAIT)
        log = self.log()
        self._log.close()
        wrong = [line for line in log.splitlines() if "seccomp refused" in line or "panicked" in line]
        if status != 0:
            wrong.append(f"it ended with {status}:\n{log[-2000:]}")
        return sum(int(count) for count in re.findall(r"\bcalls=(\d+)", log)), wrong


TLS_POLICY = """
version = 1

[[rule]]
name = "the tested programs"
subject = { certificates = ["uri:spiffe://tests/*"] }
allow = [
    "create", "bind", "listen", "accept", "connect", "send", "receive", "option", "ioctl", "inspect", "session",
    "resolve", "interfaces", "hostname",
]
"""


class TlsBroker(Broker):
    """A broker with a TLS port, which programs reach by `sockbroker agent` with a certificate."""

    def __init__(self, binary, program, folder):
        """`program` is the command line, which makes the certificates."""
        files, host = f"{folder}/tls", "localhost"
        os.mkdir(files, 0o700)
        for words in (["init"], ["server", host], ["client", "spiffe://tests/cpython"]):
            subprocess.run([program, "pki", words[0], "--folder", files, *words[1:]], check=True, capture_output=True)
        of_client = f"{files}/sockbroker/{host}"
        os.makedirs(of_client, 0o700)
        for name in ("ca", "cert", "key"):
            shutil.copy(f"{files}/cpython/{name}", of_client)
        with open(f"{files}/policy.toml", "w", encoding="ascii") as policy:
            policy.write(TLS_POLICY)
        names = {"certificate": f"{host}.pem", "key": f"{host}.key", "client_ca": "ca.pem"}
        lines = ["[remote]", 'listen = ["127.0.0.1:0"]', *(f'{key} = "{files}/{name}"' for key, name in names.items())]
        with open(f"{files}/config.toml", "w", encoding="ascii") as config:
            config.write("\n".join(lines))
        command = [binary, "--config", f"{files}/config.toml", "--policy", f"{files}/policy.toml"]
        super().__init__(command, f"{folder}/broker.socket", f"{folder}/broker.log")
        port = re.search(r"bound=127\.0\.0\.1:(\d+)", self.log())[1]
        self.url = f"tls://{host}:{port}"
        # The agent ends ten seconds after the last program.
        self.variables = {"XDG_CONFIG_HOME": files, "XDG_RUNTIME_DIR": files, "SOCKBROKER_AGENT": program}
