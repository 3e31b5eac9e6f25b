"""Text that precedes the protocol: the start-up files of a login shell can print some."""

from __future__ import annotations

from . import native
from .hints import Any

_MARKER = b"sockbroker dial-stdio 1"
"""The line that `sockbroker dial-stdio` prints before the first byte of the broker."""
_HEAD = b"content-length:"
"""The beginning of the first message without a marker. Header fields may have any case."""
_BYTES_MAX = 1 << 16
_SHOWN_MAX = 200
_PEEK = int(native.module.MSG_PEEK)


class Printed(EOFError):
    """The command printed text, and then no protocol."""

    def __init__(self, text: bytes) -> None:
        shown = text.decode(errors="replace").strip()[:_SHOWN_MAX]
        advice = "a start-up file of the shell can do that; use `sockbroker dial-stdio`, before which such text is skipped"
        super().__init__(f"the command printed {shown!r} before the protocol: {advice}" if shown else "")


def skip(stream: Any) -> None:
    """Reads up to the first byte of the protocol. Raises `Printed` for text without a marker."""
    skipped = b""
    while True:
        try:
            found = stream.recv(_BYTES_MAX, _PEEK)
        except ConnectionResetError:
            found = b""  # it has ended without reading the request
        length = scan(skipped + found)
        rest = len(found) if length is None else length - len(skipped)
        skipped += stream.recv(rest) if rest > 0 else b""
        if length is not None:
            return
        if not found or len(skipped) > _BYTES_MAX:
            raise Printed(skipped)


def scan(text: bytes) -> int | None:
    """The number of bytes before the protocol; `None` if more are needed. Only a marker can follow other text."""
    at = 0
    for line in text.splitlines(keepends=True):
        if line[: len(_HEAD)].lower() == _HEAD:
            if at:
                raise Printed(text[:at])
            return 0
        at += len(line)
        if line.endswith(b"\n") and line.rstrip() == _MARKER:
            return at
    return None
