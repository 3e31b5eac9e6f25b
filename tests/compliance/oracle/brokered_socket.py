"""`BrokeredSocket`: the interface of a socket object for a handle."""

import contextlib
import errno
import os
import socket as native

from .values import plain, read_address, read_control, write_address, write_control
from .wire import Parts

_CLOEXEC = native.MSG_CMSG_CLOEXEC


class BrokeredSocket:
    """A handle with the methods of `socket.socket`. After `close` it still sends the stale handle,
    so that the broker returns EBADF."""

    def __init__(self, module, family=-1, type=-1, proto=-1, fileno=None):
        params = {"family": family, "type": type, "proto": proto}
        parts = Parts()
        if fileno is not None:
            _check_descriptor(fileno)
            params["fileno"] = parts.descriptor(fileno)
        self.take(module, module.rpc_named("socket", parts, **params).value, fileno)

    def take(self, module, created, fd=None):
        """Takes the socket of an answer that created one."""
        self.module = module
        self.handle = created["handle"]
        self.family, self.type, self.proto = created["family"], created["type"], created["proto"]
        self.first_timeout = created["timeout"]
        self._fd = fd
        self._io_refs = 0
        self._closed = self._gone = False

    def _call(self, name, *args, parts=None):
        return self.module.rpc(name, self.handle, *args, parts=parts)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Lifecycle.

    def close(self):
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _real_close(self):
        if not self._gone:
            self._gone = True
            self._drop_descriptor()
            self._call("close")

    def _decref_socketios(self):
        self._io_refs = max(0, self._io_refs - 1)
        if self._closed:
            self.close()

    def _drop_descriptor(self):
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def detach(self):
        if self._gone:
            return -1
        self._closed = self._gone = True
        answer = self._call("detach")
        self._drop_descriptor()
        return answer.descriptors[0]

    def fileno(self):
        if self._gone:
            return -1
        if self._fd is None:
            self._fd = self._call("fileno").descriptors[0]
        return self._fd

    def dup(self):
        return self.module.adopt(self._call("dup").value)

    def accept(self):
        made = self._call("accept").value
        return self.module.adopt(made), read_address(made["address"], self.family)

    def attributes(self):
        found = self._call("attributes").value
        return found["family"], found["type"], found["proto"]

    makefile = native.socket.makefile

    # Names.

    def bind(self, *args):
        self._call("bind", *map(write_address, args))

    def connect(self, *args):
        self._call("connect", *map(write_address, args))

    def connect_ex(self, *args):
        if self._gone:
            return errno.EBADF  # the broker has no handle with a number
        return self._call("connect_ex", *map(write_address, args)).value

    def getsockname(self):
        return read_address(self._call("getsockname").value, self.family)

    def getpeername(self):
        return read_address(self._call("getpeername").value, self.family)

    # Options.

    def getsockopt(self, *args):
        answer = self._call("getsockopt", *args)
        return answer.value if isinstance(answer.value, int) else answer.data(answer.value)

    def setsockopt(self, *args):
        parts = Parts()
        self._call("setsockopt", *(_maybe_data(value, parts) for value in args), parts=parts)

    def setblocking(self, flag):
        self.module.rpc_named("setblocking", handle=self.handle, flag=bool(flag))

    def set_inheritable(self, inheritable):
        self.module.rpc_named("set_inheritable", handle=self.handle, inheritable=bool(inheritable))

    # Receiving.

    def recv(self, *args):
        answer = self._call("recv", *args)
        return _padded(answer.data(answer.value["data"]), answer.value["n"])

    def recv_into(self, buffer, nbytes=0, flags=0):
        view, nbytes = _target(buffer, nbytes)
        answer = self._call("recv_into", nbytes, flags)
        return _scatter([view], answer.data(answer.value["data"]), answer.value["n"])

    def recvfrom(self, *args):
        answer = self._call("recvfrom", *args)
        data = _padded(answer.data(answer.value["data"]), answer.value["n"])
        return data, read_address(answer.value["address"], self.family)

    def recvfrom_into(self, buffer, nbytes=0, flags=0):
        view, nbytes = _target(buffer, nbytes)
        answer = self._call("recvfrom_into", nbytes, flags)
        n = _scatter([view], answer.data(answer.value["data"]), answer.value["n"])
        return n, read_address(answer.value["address"], self.family)

    def recvmsg(self, *args):
        answer = self._call("recvmsg", *args)
        flags = args[2] if len(args) > 2 else 0
        return self.message(answer.value, answer, iter(answer.descriptors), flags)

    def recvmsg_into(self, buffers, *args):
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        answer = self._call("recvmsg_into", [len(view) for view in views], *args)
        flags = args[1] if len(args) > 1 else 0
        data, *rest = self.message(answer.value, answer, iter(answer.descriptors), flags)
        return _scatter(views, data, answer.value["n"]), *rest

    def message(self, value, answer, descriptors, flags_argument):
        """Returns one received message like `recvmsg`."""
        control = read_control(value["ancdata"], answer, descriptors)
        if not flags_argument & _CLOEXEC:
            for descriptor in answer.descriptors:
                os.set_inheritable(descriptor, True)
        return answer.data(value["data"]), control, value["flags"], read_address(value["address"], self.family)

    # Sending.

    def send(self, data, *args):
        parts = Parts()
        return self._call("send", _maybe_data(data, parts), *args, parts=parts).value

    def sendall(self, data, *args):
        parts = Parts()
        self._call("sendall", _maybe_data(data, parts), *args, parts=parts)

    def sendto(self, data, *args):
        parts = Parts()
        flags = args[:-1] if len(args) > 1 else ((0,) if args else ())
        address = [write_address(item) for item in args[-1:]]
        return self._call("sendto", _maybe_data(data, parts), *flags, *address, parts=parts).value

    def sendmsg(self, buffers, ancdata=(), flags=0, address=None):
        parts = Parts()
        written = [_maybe_data(buffer, parts) for buffer in buffers]
        control = write_control(ancdata, parts)
        return self._call("sendmsg", written, control, flags, write_address(address), parts=parts).value

    def outgoing(self, message, parts):
        """One message of `sendmmsg`: `(buffers[, ancdata[, address]])`."""
        buffers, ancdata, address = (*message, *((), None)[len(message) - 1:])
        return {"buffers": [parts.data(buffer) for buffer in buffers],
                "ancdata": write_control(ancdata, parts), "address": write_address(address)}

    def sendmsg_afalg(self, msg=(), *, op, iv=None, assoclen=None, flags=0):
        parts = Parts()
        params = {"handle": self.handle, "op": op, "assoclen": assoclen, "flags": flags,
                  "msg": [parts.data(item) for item in msg]}
        if iv is not None:
            params["iv"] = parts.data(iv)
        return self.module.rpc_named("sendmsg_afalg", parts, **params).value

    def sendfile(self, file, offset=0, count=None):
        parts = Parts()
        try:
            place = parts.descriptor(file.fileno())
        except (AttributeError, OSError):
            return native.socket._sendfile_use_send(self, file, offset, count)  # a file without descriptor
        sent = self._call("sendfile", place, offset, count, parts=parts).value
        if sent:
            file.seek(offset + sent)
        return sent

    _check_sendfile_params = native.socket._check_sendfile_params


def _check_descriptor(fileno):
    if fileno < 0:
        raise ValueError("negative file descriptor")
    os.fstat(fileno)


def _maybe_data(value, parts):
    is_data = isinstance(value, (bytes, bytearray, memoryview))
    return parts.data(value) if is_data else plain(value)


def _target(buffer, nbytes):
    view = memoryview(buffer).cast("B")
    if view.readonly:
        raise TypeError("a read-only buffer")
    if nbytes > len(view):
        raise ValueError("nbytes is greater than the length of the buffer")
    return view, nbytes or len(view)


def _padded(data, n):
    """With MSG_TRUNC CPython returns as many bytes as the datagram had; bytes beyond the buffer are undefined."""
    return data + bytes(n - len(data))


def _scatter(views, data, n):
    for view in views:
        size = min(len(view), len(data))
        view[:size] = data[:size]
        data = data[size:]
    return n


def _forwarder(name):
    def method(self, *args):
        return self._call(name, *args).value
    method.__name__ = name
    return method


for _name in ("listen", "shutdown", "settimeout", "gettimeout", "getblocking", "get_inheritable"):
    setattr(BrokeredSocket, _name, _forwarder(_name))
