"""A broker with a TLS port, whose files the command line has made, and the configuration of a client for it."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from process.common import Broker
from process.sshd import PROGRAM

POLICY = """version = 1
[[rule]]
name = "lab"
subject = { certificates = ["uri:spiffe://lab/*"] }
allow = [
    "session", "create", "bind", "listen", "accept", "connect", "send", "receive", "option", "inspect", "resolve",
    "capture", "interfaces",
]
option = ["ordinary", "packet"]
"""


class TlsBroker(Broker):
    """A broker for the client `spiffe://lab/alice`."""

    def __init__(self, host="localhost", prefix=()):
        """`host` is its name, or its address, at which it listens."""
        self._files = tempfile.TemporaryDirectory()
        self.files = place = self._files.name
        for words in (["init"], ["server", host], ["client", "spiffe://lab/alice"]):
            subprocess.run([PROGRAM, "pki", words[0], "--folder", place, *words[1:]], check=True, capture_output=True)
        of_client = f"{place}/sockbroker/{host}"
        os.makedirs(of_client)
        for name in ("ca", "cert", "key"):
            shutil.copy(f"{place}/alice/{name}", of_client)
        files = {"certificate": f"{host}.pem", "key": f"{host}.key", "client_ca": "ca.pem"}
        address = "127.0.0.1" if host == "localhost" else "0.0.0.0"
        lines = ["[remote]", f'listen = ["{address}:0"]', *(f'{key} = "{place}/{file}"' for key, file in files.items())]
        if os.geteuid() != 0:
            lines += ["[confine]", "tracing = true"]
        config = f"{place}/config.toml"
        with open(config, "w", encoding="ascii") as file:
            file.write("\n".join(lines))
        super().__init__("--config", config, policy=POLICY, prefix=prefix)
        port = ""
        while not port:  # it can accept local connections before
            assert self.process.poll() is None, "the broker has ended"
            with open(f"{self.folder}/log", encoding="utf-8") as log:
                port = re.match(r"(\d+\s)?", log.read().partition(f"bound={address}:")[2])[0].strip()
        self.url = f"tls://{host}:{port}"
        self.variables = {"XDG_CONFIG_HOME": place, "XDG_RUNTIME_DIR": place, "SOCKBROKER_AGENT": str(PROGRAM)}

    def stop(self):
        """Stops the broker, and removes its files."""
        super().stop()
        self._files.cleanup()


class OnTlsBroker:
    """Test cases with a `TlsBroker`, `cls.url` of it, and the variables `cls.more` of a client's environment."""

    @classmethod
    def setUpClass(cls):
        if not PROGRAM.exists():
            raise unittest.SkipTest("the program sockbroker is not built")
        cls.broker = TlsBroker()
        cls.url, cls.more = cls.broker.url, cls.broker.variables
        cls.addClassCleanup(cls.broker.stop)
