"""Descriptors for sockets without a channel, which are readable when the socket is: `agent.watch` of `sockbroker agent`.

`epoll`, `selectors` and event loops in C wait for such a descriptor. The agent writes a byte to it when the socket is
readable. After each receive or accept, this package takes the byte, and its answer lets the agent wait again.
"""

from __future__ import annotations

import os
from _thread import RLock

from .hints import TYPE_CHECKING
from .select_functions import is_readable

if TYPE_CHECKING:
    from .handle import Handle

NONE = -1
"""The value of `Handle.watch` of a socket that gets no descriptor."""
_BYTES = 16
_lock = RLock()


def begin(handle: Handle) -> int | None:
    """Returns a descriptor for a socket; `None` if the agent has none, which then is not asked again."""
    try:
        descriptor = handle.session.call("agent.watch", [handle.number], takes_descriptors=True).take_descriptor()
    except (OSError, RuntimeError):
        descriptor = None
    handle.watch = NONE if descriptor is None else os.getpid()
    return descriptor


def renew(handle: Handle, descriptor: int) -> None:
    """Lets the agent wait for the socket again, if it has reported it, and if the program has taken what is here."""
    if handle.undelivered is not None and (handle.undelivered.messages or handle.undelivered.accepted):
        return
    with _lock:
        try:
            if is_readable(descriptor) and os.read(descriptor, _BYTES):
                os.write(descriptor, b"\0")
        except OSError:
            pass  # the agent has ended: the next call of the socket reports it
