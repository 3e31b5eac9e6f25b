"""Descriptors of streams whose connection is being made: `agent.connect` of `sockbroker agent`.

Such a descriptor is writable when the connection is made or has failed. It then has the data of the socket, or is at
its end. `SO_ERROR` of the socket is the result of the connection.
"""

from __future__ import annotations

import errno

from .errors import BrokerError
from .hints import TYPE_CHECKING
from .select_functions import is_writable

if TYPE_CHECKING:
    from .handle import Handle

_FAILURES = (
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)
"""The errors of `connect` for an earlier attempt. Others are those of the call itself."""


def begin(handle: Handle) -> int | None:
    """Returns a descriptor for a socket that connects; `None` if the agent has none."""
    try:
        response = handle.session.call("agent.connect", [handle.number], takes_descriptors=True)
    except (OSError, RuntimeError):
        return None
    descriptor = response.take_descriptor()
    if descriptor is not None:
        handle.forget_channel()  # that of an attempt that has failed
        handle.note_channel(descriptor)
        handle.connecting = True
    return descriptor


def note_result(handle: Handle, result: int) -> None:
    """Records what `connect` has returned for an earlier attempt: 0 or an error.

    After a failure, no descriptor has the data of the socket.
    """
    if result in (0, errno.EISCONN):
        handle.connecting = False
    elif handle.connecting and result in _FAILURES:
        handle.forget_channel()


def note_error(handle: Handle, error: OSError) -> None:
    """The same for an exception."""
    if error.errno is not None and not isinstance(error, BrokerError):
        note_result(handle, error.errno)


def note_option(handle: Handle, descriptor: int, value: int) -> None:
    """Records a value of `SO_ERROR`, which the call has cleared."""
    if handle.connecting:
        if value != 0:
            handle.forget_channel()
        elif is_writable(descriptor):
            handle.connecting = False
