"""Converts a broker's error object into the exception that Python's module raises."""

from __future__ import annotations

import builtins
import errno
import os

from . import native
from .hints import Any

_GAI_TEXTS = {  # gai_strerror(3) of glibc
    "EAI_BADFLAGS": "Bad value for ai_flags",
    "EAI_NONAME": "Name or service not known",
    "EAI_AGAIN": "Temporary failure in name resolution",
    "EAI_FAIL": "Non-recoverable failure in name resolution",
    "EAI_NODATA": "No address associated with hostname",
    "EAI_FAMILY": "ai_family not supported",
    "EAI_SOCKTYPE": "ai_socktype not supported",
    "EAI_SERVICE": "Servname not supported for ai_socktype",
    "EAI_ADDRFAMILY": "Address family for hostname not supported",
    "EAI_MEMORY": "Memory allocation failure",
    "EAI_SYSTEM": "System error",
}
_HERROR_TEXTS = {  # hstrerror(3)
    1: "Unknown host",
    2: "Host name lookup failure",
    3: "Unknown server error",
    4: "No address associated with name",
}
_CAPABILITIES = {"socket": "CAP_NET_RAW", "setsockopt": "CAP_NET_ADMIN", "sethostname": "CAP_SYS_ADMIN"}


class BrokerError(OSError):
    """The broker cannot be reached, has ended, or does not speak the protocol. `errno` is `ENETDOWN`."""

    is_unsent = False
    """Whether the broker certainly has not received the call."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENETDOWN, message)


class CallInterrupted(ConnectionAbortedError):
    """The broker was restarted during a call, and whether the call took effect is not known, or data were lost.

    Only a session with `persist` raises it. The socket remains usable. `call` is the call, `handle` the number of the
    socket in the broker, if the call is one of a socket.
    """

    def __init__(self, call: str, handle: int | None, what: str) -> None:
        on = "" if handle is None else f" of socket {handle}"
        super().__init__(errno.ECONNABORTED, f"the broker was restarted during {call}{on}: {what}")
        self.call = call
        self.handle = handle
        self.what = what


class ChannelInterrupted(ConnectionAbortedError):
    """The process of the broker that served a socket of mode `channel` has ended, and with it the channel. What was sent or
    received last may be lost. Natively the end of the data or a closed connection would be reported.
    """

    def __init__(self, reason: str) -> None:
        text = f"the channel of this socket has ended with the process of the broker, and its last data may be lost: {reason}"
        super().__init__(errno.ECONNABORTED, text)


class ArgumentError(Exception):
    """The broker refused an argument. `exception` is what the caller gets if CPython finds nothing wrong."""

    def __init__(self, exception: Exception) -> None:
        super().__init__(str(exception))
        self.exception = exception


class Denied(PermissionError):
    """The policy forbids the call. `rule` is the name of the rule that decided, `grant` the grant that is missing."""

    rule: str
    grant: str


class FilterError(ValueError):
    """A filter expression cannot be compiled, or does not fit the interface."""


def exception(error: dict[str, Any]) -> Exception:
    """Converts an error object of JSON-RPC."""
    data = error.get("data")
    return _from_data(data if isinstance(data, dict) else {}, str(error.get("message", "")))


def _from_data(data: dict[str, Any], message: str) -> Exception:
    kind = data.get("kind")
    number = _number(data)
    if "netns" in data:
        return OSError(number, message)  # the system's text names neither the namespace nor the way out
    if kind == "OSError" or (kind == "cancelled" and number is not None):
        return OSError(message) if number is None else OSError(number, _system_text(number, data.get("call")))
    if kind == "timeout":
        return native.module.timeout("timed out")  # type: ignore[no-any-return]
    if kind == "gaierror":
        return native.module.gaierror(_eai(data), _GAI_TEXTS.get(data.get("name", ""), message))  # type: ignore[no-any-return]
    if kind == "herror":
        return native.module.herror(number, _HERROR_TEXTS.get(number or 0, message))  # type: ignore[no-any-return]
    if kind in ("handle", "descriptor"):
        return OSError(errno.EBADF, os.strerror(errno.EBADF) if kind == "handle" else message)
    if kind == "denied":
        return denied(number or errno.EACCES, message, data)
    if kind == "interrupted":
        return CallInterrupted(str(data.get("call", "")), None, message)
    if kind == "limit":
        return OSError(number or errno.ENOBUFS, message)
    if kind == "argument":
        named = getattr(builtins, str(data.get("exception")), TypeError)
        is_exception = isinstance(named, type) and issubclass(named, Exception)
        return ArgumentError((named if is_exception else TypeError)(message))
    if kind == "method":
        return NotImplementedError(message)
    return RuntimeError(message)


def denied(number: int, message: str, data: dict[str, Any]) -> Denied:
    """The exception of a denial, whose text includes the missing grant."""
    rule, grant = str(data.get("rule", "")), str(data.get("grant", ""))
    text = f"{message}; missing grant: {grant}" if grant and grant not in message else message
    made = Denied(number, text)
    made.rule, made.grant = rule, grant
    return made


def still_refused(refused: OSError, what: str, by_broker: OSError) -> OSError:
    """The kernel's error for a call that the broker did not do either, with the reasons of both in its text."""
    reason = by_broker.strerror or str(by_broker)
    if what.startswith("bind(") and reason == os.strerror(errno.EACCES):
        reason = _lacks("CAP_NET_BIND_SERVICE")
    text = f"{refused.strerror}: the kernel refused {what}, and the broker did not do it: {reason}"
    if not isinstance(by_broker, Denied):
        return OSError(refused.errno, text)
    made = Denied(refused.errno, text)
    made.rule, made.grant = by_broker.rule, by_broker.grant
    return made


def _system_text(number: int, call: Any) -> str:
    """The system's text, with the capability that the broker may lack if the call needs one."""
    text = os.strerror(number)
    capability = _CAPABILITIES.get(call) if number == errno.EPERM else None
    return f"{text}: {call}: {_lacks(capability)}" if capability else text


def _lacks(capability: str) -> str:
    return f"the broker may lack {capability}; start it with this capability"


def _number(data: dict[str, Any]) -> int | None:
    """The error number of this platform: that of the same name, where the broker's platform has another number."""
    number: int | None = data.get("errno")
    return getattr(errno, str(data.get("name")), number) if number is not None else None


def _eai(data: dict[str, Any]) -> int | None:
    return getattr(native.module, str(data.get("name")), data.get("errno"))
