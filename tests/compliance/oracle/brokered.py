"""`BrokeredSocketModule`: the interface of the `socket` module; the broker serves every call.

It passes arguments unchanged, so that the broker checks them. It does only what every client library must do
itself: scattering into buffers, files, IDNA, `ResourceWarning`.
"""

import functools
import os
import socket as native

from .brokered_socket import BrokeredSocket
from .values import plain, read_address, text, write_address
from .wire import Parts

_GLOBAL = object()
_NATIVE = {  # Python code over the methods of socket objects, and types: the same for both modules
    "error", "gaierror", "herror", "timeout", "send_fds", "recv_fds", "SocketIO",
    "AddressFamily", "SocketKind", "MsgFlag", "AddressInfo", "SocketType",
}


class BrokeredSocketModule:
    """A module-like object. Safe for threads."""

    brokered = True

    def __init__(self, session):
        self.session = session
        self.socket = functools.partial(BrokeredSocket, self)

    def __getattr__(self, name):
        if name in _NATIVE or name.isupper() or name[:3] in ("AF_", "PF_", "IPX") or name == "AF_DECnet":
            return getattr(native, name)
        raise AttributeError(name)

    def rpc(self, name, *params, parts=None):
        """Calls `socket.<name>` with parameters by position."""
        return self.session.call(f"socket.{name}", [plain(value) for value in params], parts)

    def rpc_named(self, name, parts=None, **params):
        """Calls `socket.<name>` with parameters by name."""
        named = {key: value if isinstance(value, bool) else plain(value) for key, value in params.items()}
        return self.session.call(f"socket.{name}", named, parts)

    def adopt(self, created, fd=None):
        """Returns the socket object of an answer that created a socket."""
        made = BrokeredSocket.__new__(BrokeredSocket)
        made.take(self, created, fd)
        return made

    # Creating sockets.

    def socketpair(self, family=_GLOBAL, type=_GLOBAL, proto=_GLOBAL):
        params = _given(family=family, type=type, proto=proto)
        return tuple(self.adopt(made) for made in self.rpc_named("socketpair", **params).value)

    def fromfd(self, fd, family, type, proto=0):
        if fd < 0:
            raise OSError(9, os.strerror(9))
        os.fstat(fd)
        parts = Parts()
        place = parts.descriptor(fd)
        made = self.rpc_named("fromfd", parts, fd=place, family=family, type=type, proto=proto)
        return self.adopt(made.value)

    def create_connection(self, address, timeout=_GLOBAL, source_address=None, *, all_errors=False):
        params = {"address": write_address(address), "all_errors": all_errors, **_given(timeout=timeout)}
        if source_address is not None:
            params["source_address"] = write_address(source_address)
        return self.adopt(self.rpc_named("create_connection", **params).value)

    def create_server(self, address, *, family=native.AF_INET, backlog=None, reuse_port=False,
                      dualstack_ipv6=False):
        params = {"address": write_address(address), "family": family, "backlog": backlog,
                  "reuse_port": reuse_port, "dualstack_ipv6": dualstack_ipv6}
        try:
            return self.adopt(self.rpc_named("create_server", **params).value)
        except native.gaierror as error:
            raise OSError(error.errno, str(error)) from None  # as the module's Python code does

    def has_dualstack_ipv6(self):
        return self.rpc("has_dualstack_ipv6").value

    @property
    def has_ipv6(self):
        return self.rpc("constants").value["has_ipv6"]

    def constants(self):
        return self.rpc("constants").value["constants"]

    # Names.

    def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        host, port = (item.decode() if isinstance(item, bytes) else item for item in (host, port))
        found = self.rpc("getaddrinfo", text(host), port, family, type, proto, flags).value
        return [(*row[:4], read_address(row[4], row[0])) for row in found]

    def getnameinfo(self, sockaddr, flags):
        return tuple(self.rpc("getnameinfo", write_address(sockaddr), flags).value)

    def getfqdn(self, name=""):
        return self.rpc("getfqdn", text(name)).value

    def gethostbyname(self, hostname):
        return self.rpc("gethostbyname", text(hostname)).value

    def gethostbyname_ex(self, hostname):
        return tuple(self.rpc("gethostbyname_ex", text(hostname)).value)

    def gethostbyaddr(self, ip_address):
        return tuple(self.rpc("gethostbyaddr", text(ip_address)).value)

    def if_nameindex(self):
        return [tuple(pair) for pair in self.rpc("if_nameindex").value]

    # Conversions that return or take bytes.

    def inet_aton(self, *args):
        answer = self.rpc("inet_aton", *args)
        return answer.data(answer.value)

    def inet_pton(self, *args):
        answer = self.rpc("inet_pton", *args)
        return answer.data(answer.value)

    def inet_ntoa(self, packed_ip):
        parts = Parts()
        return self.rpc("inet_ntoa", _bytes(packed_ip, parts), parts=parts).value

    def inet_ntop(self, address_family, packed_ip):
        parts = Parts()
        return self.rpc("inet_ntop", address_family, _bytes(packed_ip, parts), parts=parts).value

    # Methods without a counterpart in Python's module; `native.py` has the native code to compare with.

    def poll(self, watched, timeout=None):
        handles = [sock.handle for sock, _ in watched]
        queried = [[handle, int(events)] for handle, (_, events) in zip(handles, watched)]
        return [(handles.index(handle), events) for handle, events in self.rpc("poll", queried, timeout).value]

    def resume(self, sock, received):
        return self.rpc("resume", sock.handle, received).value

    def position(self, sock):
        found = self.rpc("position", sock.handle).value
        return found["sent"], found["received"]

    def recvmmsg(self, sock, vlen, bufsize, ancbufsize=0, flags=0):
        answer = self.rpc("recvmmsg", sock.handle, vlen, bufsize, ancbufsize, flags)
        descriptors = iter(answer.descriptors)
        return [sock.message(item, answer, descriptors, flags) for item in answer.value]

    def sendmmsg(self, sock, messages, flags=0):
        parts = Parts()
        outgoing = [sock.outgoing(message, parts) for message in messages]
        results = self.rpc("sendmmsg", sock.handle, outgoing, flags, parts=parts).value
        return [row["n"] if "n" in row else ("error", row["error"].get("errno")) for row in results]

    def ioctl(self, sock, control, option=None):
        answer = self.rpc("ioctl", sock.handle, control, option)
        value = answer.value
        return answer.data(value) if isinstance(value, (str, dict)) else value

    def attach_filter(self, sock, program):
        parts = Parts()
        self.rpc("attach_filter", sock.handle, parts.data(program), parts=parts)

    def detach_filter(self, sock):
        self.rpc("detach_filter", sock.handle)

    def delegate(self, family, type, proto):
        """A socket of this process, by the descriptor that the broker passes."""
        return native.socket(fileno=self.rpc_named("delegate", family=family, type=type, proto=proto).descriptors[0])

    def apply_bind(self, sock, address):
        parts = Parts()
        self.rpc_named("apply", parts, fd=parts.descriptor(sock.fileno()), bind=write_address(address))

    def apply_option(self, sock, level, optname, value):
        parts = Parts()
        option = {"level": level, "optname": optname, "value": _bytes(value, parts)}
        self.rpc_named("apply", parts, fd=parts.descriptor(sock.fileno()), option=option)


def _given(**params):
    return {name: value for name, value in params.items() if value is not _GLOBAL}


def _bytes(value, parts):
    return parts.data(value) if isinstance(value, (bytes, bytearray, memoryview)) else value


def _forwarder(name):
    def function(self, *args):
        return self.rpc(name, *args).value
    function.__name__ = name
    return function


for _name in (
    "ntohl", "ntohs", "htonl", "htons", "CMSG_LEN", "CMSG_SPACE", "if_nametoindex", "if_indextoname",
    "gethostname", "sethostname", "getprotobyname", "getservbyname", "getservbyport",
    "getdefaulttimeout", "setdefaulttimeout",
):
    setattr(BrokeredSocketModule, _name, _forwarder(_name))
