"""Direct mode in one exchange: a socket without a handle, and one call on a socket of this process."""

from __future__ import annotations

import errno
import os

from . import creation, native
from .encoding import RequestParts, c_int, encode_address, integer, octets
from .errors import Denied
from .handle import UNMEDIATED, SocketSpec, Transit
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response

if TYPE_CHECKING:
    from .client import Client

_INET, _STREAM = int(native.module.AF_INET), int(native.module.SOCK_STREAM)
_RCVALL = (_INET, int(native.module.SOCK_RAW), 0)
_NONBLOCK = int(native.module.SOCK_NONBLOCK)
_FLAGS = _NONBLOCK | int(native.module.SOCK_CLOEXEC)
_FILTERS = ((int(native.module.SOL_SOCKET), 26), (int(native.module.SOL_SOCKET), 27))  # SO_ATTACH_FILTER, SO_DETACH_FILTER


def create(client: Client, family: int, type_: int, proto: int) -> Transit:
    """Creates a socket of this process. If the policy does not pass the descriptor, the broker serves the socket."""
    if (family, type_ & ~_FLAGS, max(proto, 0)) == _RCVALL:
        return creation.create(client, family, type_, proto)  # the emulation of `SIO_RCVALL`, which has a handle
    try:
        _, response = client.call("socket.delegate", [family, type_, proto], takes_descriptors=True)
    except Denied:
        return creation.create_served(client, family, type_, proto)  # perhaps the policy forbids the descriptor alone
    return Transit(_descriptor(response), UNMEDIATED, _spec(client, family, type_, proto))


def apply(sock: Any, name: str, *args: Any) -> bool:
    """Makes a call on a socket of this process. Returns whether it is a call that the broker applies."""
    with RequestParts() as parts:
        params = _params(sock, name, args, parts)
        if params is None:
            return False
        descriptor = native.Socket.fileno(sock)
        creation.check_not_control_socket(descriptor)
        sock._client.call("socket.apply", params, attachments=parts.attachments, descriptors=[descriptor])
    return True


def _params(sock: Any, name: str, args: tuple[Any, ...], parts: RequestParts) -> dict[str, Any] | None:
    if name == "bind":
        return {"bind": encode_address(native.family_of(sock), *args)}
    if name != "setsockopt":
        return None
    place = (c_int(args[0]), c_int(args[1]))
    if place in _FILTERS:
        return None  # its value is a pointer
    value, *length = args[2:]
    option: dict[str, Any] = {"level": place[0], "optname": place[1]}
    if value is None:
        option["optlen"] = integer(*length)
    elif hasattr(value, "__index__"):
        option["value"] = integer(value)
    else:
        with octets(value) as data:
            option["value"] = parts.data(bytes(data))
    return {"option": option}


def _descriptor(response: Response) -> int:
    descriptor = response.take_descriptor()
    if descriptor is None:  # the kernel dropped it
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return descriptor


def _spec(client: Client, family: int, type_: int, proto: int) -> SocketSpec:
    """The attributes of a new socket, as CPython has them."""
    kind = _STREAM if type_ == -1 else type_
    timeout = 0.0 if kind & _NONBLOCK else client.default_timeout()
    return SocketSpec(_INET if family == -1 else family, kind & ~_FLAGS, max(proto, 0), timeout)
