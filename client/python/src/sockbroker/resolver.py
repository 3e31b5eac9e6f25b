"""Functions of the module that the broker serves: names, services, interfaces, the host name."""

from __future__ import annotations

import os
import sys

from . import native, process
from .arguments import function
from .encoding import c_int, decode_address, encode_address, host, integer
from .hints import Any
from .settings import CALLER

_LONG_MAX = (1 << 63) - 1
_UNSIGNED_MAX = (1 << 32) - 1
_STRICT_PORTS = sys.version_info < (3, 12)
_UNSPECIFIED = int(native.module.AF_UNSPEC)


def _call(name: str, params: list[Any]) -> Any:
    return process.call(f"socket.{name}", params)[1].value


def _call_in(name: str, params: list[Any], netns: str | None = None) -> Any:
    """The same in a network namespace, which is the last parameter: `netns`, or the one of new sockets."""
    netns = netns or process.configured().netns
    return _call(name, params if netns is None else [*params, netns])


def _is_here() -> bool:
    """Whether names and interfaces are those of this process, whose network namespace new sockets have."""
    return process.configured().netns == CALLER


@function
def getaddrinfo(
    host: Any, port: Any, family: Any = 0, type: Any = 0, proto: Any = 0, flags: Any = 0
) -> list[Any]:
    sys.audit("socket.getaddrinfo", host, port, family, type, proto)
    return look_up(None, host, port, family, type, proto, flags)


def look_up(
    netns: str | None, host: Any, port: Any, family: Any = 0, type: Any = 0, proto: Any = 0, flags: Any = 0
) -> list[Any]:
    """`getaddrinfo` in a network namespace, by default in that of new sockets. This process knows the names of its own."""
    if (netns or process.configured().netns) == CALLER:
        return native.module.getaddrinfo(host, port, family, type, proto, flags)  # type: ignore[no-any-return]
    numbers = [integer(item) for item in (family, type, proto, flags)]
    found = _call_in("getaddrinfo", [_host(host), _port(port), *numbers], netns)
    return [(*row[:4], decode_address(row[4], row[0])) for row in found]


def _host(name: Any) -> str | None:
    if isinstance(name, (bytearray, memoryview)):
        raise TypeError("getaddrinfo() argument 1 must be string or None")
    return host(name)


def _port(port: Any) -> str | None:
    """The resolver takes services and ports as text. Before 3.12 an integer had to fit into a C long."""
    if port is None:
        return None
    if isinstance(port, bytes):
        return port.decode("ascii")
    if isinstance(port, str):
        return port
    number = integer(port)
    if _STRICT_PORTS and not -_LONG_MAX - 1 <= number <= _LONG_MAX:
        raise OverflowError("Python int too large to convert to C long")
    return str(number)


@function
def getnameinfo(sockaddr: Any, flags: Any, /) -> tuple[str, str]:
    if not isinstance(sockaddr, tuple):
        raise TypeError("getnameinfo() argument 1 must be a tuple")
    if len(sockaddr) < 2 or not isinstance(sockaddr[0], str):
        raise TypeError("getnameinfo() argument 1 must be a tuple of a str and an int")
    c_int(sockaddr[1])
    sys.audit("socket.getnameinfo", sockaddr)
    if _is_here():
        return native.module.getnameinfo(sockaddr, flags)  # type: ignore[no-any-return]
    return tuple(_call_in("getnameinfo", [encode_address(int(native.module.AF_INET6), sockaddr), integer(flags)]))


@function
def gethostbyname(hostname: Any, /) -> str:
    sys.audit("socket.gethostbyname", hostname)
    if _is_here():
        return native.module.gethostbyname(hostname)  # type: ignore[no-any-return]
    return _call_in("gethostbyname", [_name(hostname)])  # type: ignore[no-any-return]


@function
def gethostbyname_ex(hostname: Any, /) -> tuple[str, list[str], list[str]]:
    sys.audit("socket.gethostbyname", hostname)
    if _is_here():
        return native.module.gethostbyname_ex(hostname)  # type: ignore[no-any-return]
    return tuple(_call_in("gethostbyname_ex", [_name(hostname)]))


@function
def gethostbyaddr(ip_address: Any, /) -> tuple[str, list[str], list[str]]:
    sys.audit("socket.gethostbyaddr", ip_address)
    if _is_here():
        return native.module.gethostbyaddr(ip_address)  # type: ignore[no-any-return]
    return tuple(_call_in("gethostbyaddr", [_name(ip_address)]))


def _name(name: Any) -> str:
    text = host(name)
    if text is None:
        raise TypeError("the host name must not be None")
    return text


@function
def getprotobyname(protocolname: Any, /) -> int:
    return _call("getprotobyname", [_text(protocolname)])  # type: ignore[no-any-return]


@function
def getservbyname(servicename: Any, *protocolname: Any) -> int:
    sys.audit("socket.getservbyname", servicename, *(protocolname or ("",)))
    return _call("getservbyname", [_text(servicename), *map(_text, protocolname)])  # type: ignore[no-any-return]


@function
def getservbyport(port: Any, *protocolname: Any) -> str:
    number = integer(port)
    sys.audit("socket.getservbyport", number, *(protocolname or ("",)))
    return _call("getservbyport", [number, *map(_text, protocolname)])  # type: ignore[no-any-return]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be str, not {type(value).__name__}")
    return value


@function
def if_nameindex() -> list[tuple[int, str]]:
    return [(index, name) for index, name in _call_in("if_nameindex", [])]


@function
def if_nametoindex(oname: Any, /) -> int:
    name = os.fsencode(oname)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise OSError("no interface with this name") from None
    return _call_in("if_nametoindex", [text])  # type: ignore[no-any-return]


@function
def if_indextoname(index: Any, /) -> str:
    number = integer(index)
    if not 0 <= number <= _UNSIGNED_MAX:
        # CPython's releases accept different ranges: its own function raises the exception of this one.
        try:
            native.module.if_indextoname(number)
        except OSError:
            pass
    return _call_in("if_indextoname", [number & _UNSIGNED_MAX])  # type: ignore[no-any-return]


@function
def gethostname() -> str:
    sys.audit("socket.gethostname")
    return _call("gethostname", [])  # type: ignore[no-any-return]


def sethostname(name: Any, /) -> None:
    """CPython's own function cannot check the argument, because it would set the name."""
    if isinstance(name, bytearray):
        native.module.sethostname(name)  # raises TypeError
    name = os.fsencode(name).decode()
    sys.audit("socket.sethostname", name)
    _call("sethostname", [name])


def setdefaulttimeout(timeout: Any, /) -> None:
    """Sets it in this process for new sockets, and in the broker for accepted ones."""
    native.module.setdefaulttimeout(timeout)
    session = process.opened()
    if session is not None:
        session.call("socket.setdefaulttimeout", [native.module.getdefaulttimeout()])


FUNCTIONS = {
    served.__name__: served
    for served in (
        getaddrinfo, getnameinfo, gethostbyname, gethostbyname_ex, gethostbyaddr, getprotobyname,
        getservbyname, getservbyport, if_nameindex, if_nametoindex, if_indextoname, gethostname,
        sethostname, setdefaulttimeout,
    )
}  # fmt: skip
"""The functions by name. All other functions of `_socket` need no broker."""
