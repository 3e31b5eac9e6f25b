"""Starts and ends a broker for one run of tests. All users of the machine can connect to it."""

import os
import re
import signal
import socket
import subprocess
import time

LONGEST_WAIT = 180


class Broker:
    """A broker that serves at `path`, started by `command`; its log is a file."""

    def __init__(self, command, path, log):
        self.path = path
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
