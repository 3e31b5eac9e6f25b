"""A network namespace that this process makes without privileges, and that the broker uses by its descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from . import creation
from .hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .broker import Broker
    from .capture_stream import Interfaces
    from .packet_capture import Capture

_HOLDER = """
import fcntl, os, socket, struct, sys
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    flags = struct.unpack_from("16sH", fcntl.ioctl(sock, 0x8913, struct.pack("16s16x", b"lo")))[1]  # SIOCGIFFLAGS
    fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
print("ready", flush=True)
sys.stdin.read()
"""
"""The program of the process that keeps the namespace in existence: it sets `lo` up, and waits for its end."""


class OwnNamespace:
    """A network namespace with `lo` alone, in a user namespace of this user. It ends with its context."""

    def __init__(self, broker: Broker) -> None:
        """Raises `OSError` if the system does not let this user make one."""
        self._broker = broker
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-I", "-S", "-c", _HOLDER]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._descriptor = -1
        try:
            if self._holder.stdout is None or self._holder.stdout.readline() != "ready\n":
                errors = self._holder.communicate()[1].strip()
                raise OSError(
                    f"cannot make a network namespace: {errors.splitlines()[-1] if errors else 'unshare failed'}"
                )
            self.path = f"/proc/{self._holder.pid}/ns/net"
            """The namespace, for other programs."""
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor of the namespace."""
        return self._descriptor

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Any:
        """A new socket of the broker in this namespace."""
        made = creation.create(self._broker._client, family, type, proto, netns=self._descriptor)
        return self._broker.socket.socket(fileno=made)

    def capture(self, interface: Interfaces = "lo", filter: str | bytes = "", **options: Any) -> Capture:
        """Captures packets in this namespace, as `sockbroker.capture`."""
        return self._broker.capture(interface, filter, netns=self._descriptor, **options)

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Runs a program in this namespace, where it is root, with the options of `subprocess.run`."""
        return subprocess.run([*self.prefix(), *arguments], **options)

    def prefix(self) -> list[str]:
        """What starts a program in this namespace, in front of its arguments."""
        return ["nsenter", f"--target={self._holder.pid}", "--user", "--preserve-credentials", "--net", "--"]

    def close(self) -> None:
        """Ends the namespace, as soon as no socket and no program uses it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._holder.kill()
        self._holder.communicate()

    def __enter__(self) -> OwnNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
