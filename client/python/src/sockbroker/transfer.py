"""Socket methods over a handle: sending and receiving."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any, Sequence

from . import frame, native
from .arguments import method
from .jsonrpc import Answer
from .handle import Handle
from .undelivered import LateResults, Message
from .life import HandleLife
from .unix_paths import write_socket
from .encoding import Outgoing, c_int, integer, octets, read_address, read_ancillary, write_address

_CLOEXEC = int(native.module.MSG_CMSG_CLOEXEC)
_CTRUNC = int(native.module.MSG_CTRUNC)
_WAITALL = int(native.module.MSG_WAITALL)
_TAKES_NOTHING = int(native.module.MSG_PEEK | native.module.MSG_DONTWAIT | native.module.MSG_OOB)
_UNIX = int(native.module.AF_UNIX)
_STREAM = int(native.module.SOCK_STREAM)
_MAX_BUFFERS = 1024  # UIO_MAXIOV
_MAX_RIGHTS = 253  # SCM_MAX_FD
_natively = native.Socket
_NOT_GIVEN: Any = object()


class HandleSocket(HandleLife):
    """A socket whose every operation is the broker's."""

    __slots__ = ()

    def _receive(self, name: str, size: int, params: list[Any], flags: int, descriptors: bool = False) -> Message:
        """One receive, or what an interrupted one had got. The flags are within `params` too."""
        handle = self._open()
        if handle.late is not None:
            message = handle.late.receive(size, flags, self._kind())
            if message is not None:
                return message
        family = self._family()

        def late(answer: Answer) -> None:
            handle.late = handle.late or LateResults()
            handle.late.messages.append(_message(answer, family))

        answer = handle.call(name, params, room=size, takes_descriptors=descriptors, late=late)
        return _message(answer, family)

    def _size(self, size: int) -> int:
        """The most that one call asks for; a stream gives the rest to the next."""
        return min(size, self._open().session.receive_bytes)

    def _data(self, name: str, bufsize: Any, flags: Any) -> Message:
        wanted, flags = _positive(bufsize), c_int(flags)
        size = self._size(wanted)
        message = self._receive(name, size, [size, flags], flags)
        frame.close_all(message.descriptors)
        if size < wanted and flags & _WAITALL and message.n == size:
            self._wait_for_rest(message, name, wanted, flags)
        return message

    def _wait_for_rest(self, message: Message, name: str, wanted: int, flags: int) -> None:
        """What a blocking stream waits for beyond the most that one call of the broker receives."""
        if flags & _TAKES_NOTHING or self._kind() != _STREAM or _natively.gettimeout(self) is not None:
            return
        parts = [message.data]
        while message.n < wanted:
            size = self._size(wanted - message.n)
            try:
                more = self._receive(name, size, [size, flags], flags)
            except OSError:
                break  # as in the kernel: what has come is the result, and the next call fails
            parts.append(more.data)
            message.n += more.n
            if more.n < size:
                break
        message.data = b"".join(parts)

    @method
    def recv(self, bufsize: Any, flags: Any = 0, /) -> bytes:
        return _padded(self._data("recv", bufsize, flags))

    @method
    def recvfrom(self, bufsize: Any, flags: Any = 0, /) -> tuple[bytes, Any]:
        message = self._data("recvfrom", bufsize, flags)
        return _padded(message), message.address

    @method
    def recv_into(self, buffer: Any, nbytes: Any = 0, flags: Any = 0) -> int:
        return self._into("recv_into", buffer, nbytes, flags).n

    @method
    def recvfrom_into(self, buffer: Any, nbytes: Any = 0, flags: Any = 0) -> tuple[int, Any]:
        message = self._into("recvfrom_into", buffer, nbytes, flags)
        return message.n, message.address

    def _into(self, name: str, buffer: Any, nbytes: Any, flags: Any) -> Message:
        size = _positive(nbytes)
        with octets(buffer) as view:
            if view.readonly:
                raise TypeError("a read-only buffer")
            if size > len(view):
                raise ValueError("nbytes is greater than the length of the buffer")
            message = self._data(name, size or len(view), flags)
            view[: len(message.data)] = message.data
        return message

    @method
    def recvmsg(self, bufsize: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> tuple[Any, ...]:
        size, room, flags = self._size(_positive(bufsize)), _positive(ancbufsize), c_int(flags)
        message = self._receive("recvmsg", size, [size, room, flags], flags, descriptors=True)
        _hand_over(message, flags)
        return message.data, message.ancillary, message.flags, message.address

    @method
    def recvmsg_into(self, buffers: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> tuple[Any, ...]:
        room, flags = _positive(ancbufsize), c_int(flags)
        views = [octets(buffer) for buffer in buffers]
        try:
            if any(view.readonly for view in views):
                raise TypeError("a read-only buffer")
            sizes = [len(view) for view in views]
            message = self._receive("recvmsg_into", sum(sizes), [sizes, room, flags], flags, descriptors=True)
            _scatter(message.data, views)
        finally:
            for view in views:
                view.release()
        _hand_over(message, flags)
        return message.n, message.ancillary, message.flags, message.address

    @method
    def send(self, data: Any, flags: Any = 0, /) -> int:
        rest = [c_int(flags)]
        with octets(data) as view:
            return self._send_parts("send", view, rest)

    @method
    def sendall(self, data: Any, flags: Any = 0, /) -> None:
        flags = c_int(flags)
        with octets(data) as view:
            handle = self._open()
            part = handle.session.part_bytes
            timeout = _natively.gettimeout(self)
            deadline = time.monotonic() + timeout if timeout else None
            for start in range(0, max(len(view), 1), part):
                if start and deadline is not None and time.monotonic() >= deadline:
                    raise native.module.timeout("timed out")
                _send_part(handle, "sendall", view[start : start + part], [flags])

    @method
    def sendto(self, data: Any, *rest: Any) -> int:
        if not 1 <= len(rest) <= 2:
            raise TypeError("sendto() takes 2 or 3 arguments")
        flags = c_int(rest[0]) if len(rest) == 2 else 0
        self._open()
        with octets(data) as view:
            address = write_address(self._family(), rest[-1])
            if self._is_local():
                return _natively.sendto(self, view, flags, rest[-1])  # type: ignore[no-any-return]
            sys.audit("socket.sendto", self, rest[-1])
            if not self._takes_paths():
                return self._send_parts("sendto", view, [flags, address])
            with Outgoing() as beside:
                address = write_socket(_UNIX, rest[-1], beside)
                return self._send_parts("sendto", view, [flags, address], beside.descriptors)

    @method
    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: Any = 0, address: Any = None, /) -> int:
        handle, flags = self._open(), c_int(flags)
        written = None if address is None else write_address(self._family(), address)
        if address is not None and self._is_local():
            return _natively.sendmsg(self, buffers, ancdata, flags, address)  # type: ignore[no-any-return]
        beside = Outgoing()
        views = [octets(buffer) for buffer in buffers]
        try:
            if len(views) > _MAX_BUFFERS:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            data = views[0] if len(views) == 1 else memoryview(b"".join(views))
            control = beside.ancillary(ancdata)
            if len(beside.descriptors) > _MAX_RIGHTS:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            sys.audit("socket.sendmsg", self, address)
            if address is not None and self._takes_paths():
                written = write_socket(_UNIX, address, beside)
            first = self._first_part(data)
            params = [[beside.data(first)] if views else [], control, flags, written]
            sent: int = handle.call(
                "sendmsg", params, attachments=beside.attachments, descriptors=beside.descriptors
            ).value
            if sent == len(first) < len(data):
                sent += self._send_rest("sendmsg", data[sent:], [flags, written])
        finally:
            beside.close()
            for view in views:
                view.release()
        return sent

    def _first_part(self, data: memoryview) -> memoryview:
        """As much as one call of the broker takes. A message that is longer cannot be sent at all."""
        part = self._open().session.part_bytes
        if len(data) > part and self._kind() != _STREAM:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        return data[:part]

    def _send_parts(
        self, name: str, data: memoryview, rest: list[Any], descriptors: Sequence[int] = ()
    ) -> int:
        """Sends as one system call does: a blocking stream takes all of it."""
        first = self._first_part(data)
        sent = _send_part(self._open(), name, first, rest, descriptors)
        if sent == len(first) < len(data):
            sent += self._send_rest(name, data[sent:], rest)
        return sent

    def _send_rest(self, name: str, data: memoryview, rest: list[Any]) -> int:
        """What a blocking stream takes behind a first part. An error is that of the next call, as in the kernel."""
        sent = 0
        while sent < len(data) and _natively.gettimeout(self) is None:
            part = self._first_part(data[sent:])
            try:
                if name == "sendmsg":
                    params = [[{"attachment": 0}], [], *rest]
                    taken = self._open().call("sendmsg", params, attachments=[part]).value
                else:
                    taken = _send_part(self._open(), name, part, rest)
            except OSError:
                break
            sent += taken
            if taken < len(part):
                break
        return sent

    @method
    def sendmsg_afalg(self, msg: Any = (), *, op: Any, iv: Any = _NOT_GIVEN, assoclen: Any = _NOT_GIVEN, flags: Any = 0) -> int:
        handle = self._open()
        beside = Outgoing()
        params: dict[str, Any] = {"op": integer(op), "flags": c_int(flags)}
        params["msg"] = [beside.data(_copied(part)) for part in msg]
        if iv is not _NOT_GIVEN:
            params["iv"] = beside.data(_copied(iv))
        if assoclen is not _NOT_GIVEN:
            params["assoclen"] = integer(assoclen)
        return handle.call_by_name("sendmsg_afalg", params, beside.attachments).value  # type: ignore[no-any-return]


def _positive(size: Any) -> int:
    number = integer(size)
    if not 0 <= number <= sys.maxsize:
        raise ValueError("not the size of a buffer")
    return number


def _send_part(handle: Handle, name: str, part: Any, rest: list[Any], descriptors: Sequence[int] = ()) -> int:
    if len(part):
        answer = handle.call(name, [{"attachment": 0}, *rest], attachments=[part], descriptors=descriptors)
    else:
        answer = handle.call(name, ["", *rest], descriptors=descriptors)
    return answer.value or 0


def _copied(buffer: Any) -> bytes:
    with octets(buffer) as view:
        return bytes(view)


def _message(answer: Answer, family: int) -> Message:
    value = answer.value
    ancillary, descriptors = read_ancillary(value.get("ancdata", ()), answer)
    address = read_address(value.get("address"), family)
    flags = value.get("flags", 0) | (_CTRUNC if answer.missing else 0)
    return Message(answer.data(value["data"]), value["n"], ancillary, flags, address, descriptors)


def _padded(message: Message) -> bytes:
    """With `MSG_TRUNC` CPython gives as many bytes as the datagram had; those beyond are not defined."""
    missing = message.n - len(message.data)
    return message.data if missing <= 0 else message.data + bytes(missing)


def _hand_over(message: Message, flags: int) -> None:
    """Received descriptors are inherited by children unless the caller asked otherwise, as natively."""
    if not flags & _CLOEXEC:
        for descriptor in message.descriptors:
            os.set_inheritable(descriptor, True)


def _scatter(data: bytes, buffers: list[Any]) -> None:
    at = 0
    for buffer in buffers:
        part = data[at : at + len(buffer)]
        buffer[: len(part)] = part
        at += len(part)
