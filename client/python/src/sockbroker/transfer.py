"""Socket methods over a handle: sending and receiving."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any

from . import frame, native
from .arguments import method
from .answer import Answer
from .handle import Handle
from .late import LateResults, Message
from .life import HandleLife
from .values import Outgoing, integer, read_address, read_ancillary, write_address

_CLOEXEC = int(native.module.MSG_CMSG_CLOEXEC)
_MAX_BUFFERS = 1024  # UIO_MAXIOV
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
        size, flags = self._size(_positive(bufsize)), integer(flags)
        message = self._receive(name, size, [size, flags], flags)
        frame.close_all(message.descriptors)
        return message

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
        with memoryview(buffer) as view, view.cast("B") as octets:
            if octets.readonly:
                raise TypeError("a read-only buffer")
            if size > len(octets):
                raise ValueError("nbytes is greater than the length of the buffer")
            message = self._data(name, size or len(octets), flags)
            octets[: len(message.data)] = message.data
        return message

    @method
    def recvmsg(self, bufsize: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> tuple[Any, ...]:
        size, room, flags = self._size(_positive(bufsize)), _positive(ancbufsize), integer(flags)
        message = self._receive("recvmsg", size, [size, room, flags], flags, descriptors=True)
        _hand_over(message, flags)
        return message.data, message.ancillary, message.flags, message.address

    @method
    def recvmsg_into(self, buffers: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> tuple[Any, ...]:
        room, flags = _positive(ancbufsize), integer(flags)
        views = [memoryview(buffer) for buffer in buffers]
        octets = [view.cast("B") for view in views]
        try:
            if any(part.readonly for part in octets):
                raise TypeError("a read-only buffer")
            sizes = [len(part) for part in octets]
            message = self._receive("recvmsg_into", sum(sizes), [sizes, room, flags], flags, descriptors=True)
            _scatter(message.data, octets)
        finally:
            for view in (*octets, *views):
                view.release()
        _hand_over(message, flags)
        return message.n, message.ancillary, message.flags, message.address

    @method
    def send(self, data: Any, flags: Any = 0, /) -> int:
        flags = integer(flags)
        with memoryview(data) as view, view.cast("B") as octets:
            handle = self._open()
            part = handle.session.part_bytes
            sent = _send_part(handle, "send", octets[:part], [flags])
            # A blocking stream takes all of it, as in the kernel.
            while sent < len(octets) and sent % part == 0 and sent and _natively.gettimeout(self) is None:
                sent += _send_part(handle, "send", octets[sent : sent + part], [flags])
        return sent

    @method
    def sendall(self, data: Any, flags: Any = 0, /) -> None:
        flags = integer(flags)
        with memoryview(data) as view, view.cast("B") as octets:
            handle = self._open()
            part = handle.session.part_bytes
            timeout = _natively.gettimeout(self)
            deadline = time.monotonic() + timeout if timeout else None
            for start in range(0, max(len(octets), 1), part):
                if start and deadline is not None and time.monotonic() >= deadline:
                    raise native.module.timeout("timed out")
                _send_part(handle, "sendall", octets[start : start + part], [flags])

    @method
    def sendto(self, data: Any, *rest: Any) -> int:
        if not 1 <= len(rest) <= 2:
            raise TypeError("sendto() takes 2 or 3 arguments")
        flags = integer(rest[0]) if len(rest) == 2 else 0
        handle = self._open()
        with memoryview(data) as view, view.cast("B") as octets:
            address = write_address(self._family(), rest[-1])
            sys.audit("socket.sendto", self, rest[-1])
            return _send_part(handle, "sendto", octets[: handle.session.part_bytes], [flags, address])

    @method
    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: Any = 0, address: Any = None, /) -> int:
        handle, flags = self._open(), integer(flags)
        written = None if address is None else write_address(self._family(), address)
        beside = Outgoing()
        views = [memoryview(buffer) for buffer in buffers]
        try:
            if len(views) > _MAX_BUFFERS:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            data = [_gathered(views)[: handle.session.part_bytes]]
            control = beside.ancillary(ancdata)
            sys.audit("socket.sendmsg", self, address)
            params = [[beside.data(part) for part in data], control, flags, written]
            answer = handle.call(
                "sendmsg", params, attachments=beside.attachments, descriptors=beside.descriptors
            )
        finally:
            for view in views:
                view.release()
        return answer.value  # type: ignore[no-any-return]

    @method
    def sendmsg_afalg(self, msg: Any = (), *, op: Any, iv: Any = _NOT_GIVEN, assoclen: Any = _NOT_GIVEN, flags: Any = 0) -> int:
        handle = self._open()
        beside = Outgoing()
        params: dict[str, Any] = {"op": integer(op), "flags": integer(flags)}
        params["msg"] = [beside.data(bytes(memoryview(part))) for part in msg]
        if iv is not _NOT_GIVEN:
            params["iv"] = beside.data(bytes(memoryview(iv)))
        if assoclen is not _NOT_GIVEN:
            params["assoclen"] = integer(assoclen)
        return handle.call_by_name("sendmsg_afalg", params, beside.attachments).value  # type: ignore[no-any-return]


def _positive(size: Any) -> int:
    number = integer(size)
    if not 0 <= number <= sys.maxsize:
        raise ValueError("not the size of a buffer")
    return number


def _send_part(handle: Handle, name: str, part: Any, rest: list[Any]) -> int:
    if len(part):
        answer = handle.call(name, [{"attachment": 0}, *rest], attachments=[part])
    else:
        answer = handle.call(name, ["", *rest])
    return answer.value or 0


def _gathered(views: list[Any]) -> Any:
    """All buffers as one: the kernel makes one message of them anyway."""
    if len(views) == 1 and views[0].contiguous and views[0].nbytes:
        return views[0].cast("B")
    return memoryview(b"".join(views))


def _message(answer: Answer, family: int) -> Message:
    value = answer.value
    ancillary, descriptors = read_ancillary(value.get("ancdata", ()), answer)
    address = read_address(value.get("address"), family)
    return Message(answer.data(value["data"]), value["n"], ancillary, value.get("flags", 0), address, descriptors)


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
