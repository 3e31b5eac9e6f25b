"""What is done with a call whose process in the broker has ended before the response."""

from __future__ import annotations

from collections.abc import Sequence

from .hints import Any

REPEAT, POLL, CLOSE, CREATE, ACCEPT, BIND, CONNECT, SEND, RECEIVE, UNKNOWN = range(10)
"""Repeat it; the same with the rest of its time; the same, and a missing handle means that it is done; find the handle
that it made; the same for one from the network; ask the socket; the same; compare the position in the stream; the same;
nobody knows."""

_MSG_OOB, _MSG_PEEK = 1, 2
_KINDS = {
    "poll": POLL, "close": CLOSE, "accept": ACCEPT, "bind": BIND, "connect": CONNECT, "connect_ex": CONNECT,
    **dict.fromkeys(("socket", "socketpair", "dup", "fromfd", "create_connection", "create_server"), CREATE),
    **dict.fromkeys(("send", "sendall", "sendto", "sendmsg", "sendfile"), SEND),
    **dict.fromkeys(("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"), RECEIVE),
    **dict.fromkeys(
        ("setsockopt", "settimeout", "setdefaulttimeout", "set_inheritable", "listen", "shutdown", "attributes", "fileno",
         "delegate", "ioctl", "attach_filter", "detach_filter", "constants", "has_dualstack_ipv6"), REPEAT,
    ),
}  # fmt: skip
_SAFE_STARTS = ("get", "if_", "hton", "ntoh", "inet_", "CMSG_")
_SAFE = frozenset((
    "session.info", "session.limits", "session.handles", "session.restrict", "session.clone", "session.close",
    "capture.stats", "capture.interfaces",
))  # fmt: skip
_FLAGS_AT = {"socket.recvmsg": 3, "socket.recvmsg_into": 3, "socket.sendmsg": 3}


def kind_of(method: str) -> int:
    """The kind of a method."""
    space, _, name = method.partition(".")
    if space != "socket":
        return REPEAT if method in _SAFE or space in ("broker", "policy") else UNKNOWN
    return _KINDS.get(name, REPEAT if name.startswith(_SAFE_STARTS) else UNKNOWN)


class CallFacts:
    """A call, as far as recovery needs to know it."""

    __slots__ = ("method", "kind", "handle", "length", "peeks", "is_special", "skipped", "counted")

    def __init__(self, method: str, params: Any, attachments: Sequence[Any], descriptors: Sequence[int]) -> None:
        kind = kind_of(method)
        listed = params if isinstance(params, list) else []
        handle = params.get("handle") if isinstance(params, dict) else (listed[0] if listed else None)
        flags = listed[_FLAGS_AT.get(method, 2)] if len(listed) > _FLAGS_AT.get(method, 2) else 0
        flags = flags if kind in (SEND, RECEIVE) and isinstance(flags, int) else 0
        self.method = method
        self.kind = kind
        self.handle: int | None = handle if isinstance(handle, int) and (kind != CREATE or method == "socket.dup") else None
        self.length = sum(map(len, attachments)) if kind == SEND else 0
        """How many bytes a send carries."""
        self.peeks = bool(flags & _MSG_PEEK)
        self.is_special = bool(flags & _MSG_OOB or (kind == SEND and (descriptors or (method == "socket.sendmsg" and listed[2]))))
        """Whether it concerns urgent data, descriptors or other ancillary data."""
        self.skipped = 0
        """How many bytes earlier attempts have sent."""
        self.counted = 0
        """How many bytes that the result counts are recorded already."""

    def call(self) -> str:
        """The name of the call without its namespace."""
        return self.method.rpartition(".")[2]
