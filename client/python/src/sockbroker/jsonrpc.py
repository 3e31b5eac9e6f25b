"""The JSON of requests, and answers with their attachments and descriptors."""

from __future__ import annotations

import binascii
import json
from typing import Any, Callable, Iterable, Sequence

from . import frame

encode = frame.encoder()
decode: Callable[[str, int], tuple[Any, int]] = (
    json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # frames have nothing around their JSON
)


class Answer:
    """A result, or an error object, with what came beside it."""

    __slots__ = ("id", "value", "error", "attachments", "descriptors", "missing")

    def __init__(
        self, message: Any, attachments: Sequence[bytes] = (), descriptors: Iterable[int] = (), missing: int = 0
    ) -> None:
        self.id = message.get("id")
        self.error = message.get("error")
        self.value = message.get("result")
        self.attachments = attachments
        self.descriptors = [*descriptors]
        self.missing = missing
        """How many descriptors the broker sent that this process had no room for."""

    def data(self, value: Any) -> bytes:
        """The bytes that a value of the result spells."""
        if type(value) is dict:
            return self.attachments[value["attachment"]]
        return binascii.a2b_base64(value)

    def take(self) -> int | None:
        """The next descriptor, which is the caller's from now on; `None` if there is none left."""
        return self.descriptors.pop(0) if self.descriptors else None


class _AnswerWithDescriptors(Answer):
    """Descriptors that nobody takes are closed. Most answers have none, and are spared the finalizer."""

    __slots__ = ()

    def __del__(self) -> None:
        frame.close_all(self.descriptors)


def request(number: int | None, method: str, params: Any) -> bytes:
    """The JSON of a request, or of a notification if it has no number."""
    identifier = "" if number is None else '"id":%d,' % number
    return ('{"jsonrpc":"2.0",%s"method":"%s","params":%s}' % (identifier, method, encode(params))).encode()


def answer_of(text: bytes, attachments: Sequence[bytes], received: Sequence[int], announced: int) -> Answer:
    """The answer in a frame, which announced this number of descriptors."""
    message = decode(text.decode(), 0)[0]
    if announced:
        return _AnswerWithDescriptors(message, attachments, received, announced - len(received))
    return Answer(message, attachments)
