"""The attempts of a call in a session that outlives the processes of the broker: its request, and how an attempt can fail."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from .call import Message
from .call_kinds import POLL, CallFacts
from .hints import Any

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5


class NotSent(Exception):
    """The broker has not received the whole request."""


class Lost(Exception):
    """The connection ended before the response."""

    def __init__(self, number: int, request: int, epoch: int) -> None:
        super().__init__()
        self.number, self.request, self.epoch = number, request, epoch


class Unsettled(Exception):
    """The process must know how much the program has received, before a receive."""


class Ended(Exception):
    """The process that the anchor leads to has ended, and the anchor does not show it yet."""


class Request:
    """A message that is sent until the call has a result."""

    __slots__ = ("message", "expected_bytes", "takes_descriptors", "deadline", "is_repeated", "facts", "epoch")

    def __init__(self, message: Message, expected_bytes: int = 0, takes_descriptors: bool = False) -> None:
        self.message = message
        self.expected_bytes, self.takes_descriptors = expected_bytes, takes_descriptors
        self.deadline: float | None = None
        """When the timeout of the socket ends. The broker observes it in the first attempt."""
        self.is_repeated = False
        self.epoch = 0
        """The process that the last attempt was sent to."""
        self.facts = CallFacts(message.method, message.params, message.attachments, message.descriptors)

    def to_send(self) -> tuple[Any, Sequence[Any]]:
        """The parameters and attachments of the next attempt."""
        params, attachments = self.message.params, self.message.attachments
        if self.facts.skipped:
            attachments = [memoryview(attachments[0])[self.facts.skipped :]]
        if self.is_repeated and self.facts.kind == POLL and self.deadline is not None:
            params = [params[0], max(0.0, self.deadline - time.monotonic())]
        return params, attachments

    def left(self) -> float | None:
        """What is left of the timeout, where this process has to observe it."""
        if not self.is_repeated or self.deadline is None or self.facts.kind == POLL:
            return None
        return max(0.001, self.deadline - time.monotonic())


def pauses_between() -> Iterator[float]:
    step = _FIRST_PAUSE
    while True:
        yield step * (0.5 + random.random() / 2)
        step = min(2 * step, _LONGEST_PAUSE)
