"""Socket methods over a handle: life, names, connections, timeouts, options."""

from __future__ import annotations

import errno
import os
import struct
import sys
import warnings
from typing import Any

from . import creation, native
from .arguments import method
from .base import Base
from .errors import BrokerError, still_refused
from .jsonrpc import Answer
from .handle import Handle, Transit, in_transit
from .undelivered import LateResults
from .unix_paths import write_new_socket, write_socket
from .encoding import Outgoing, c_int, integer, octets, read_address, write_address

_UNIX = int(native.module.AF_UNIX)
_SOCKET_LEVEL = int(native.module.SOL_SOCKET)
_ATTACH_FILTER, _DETACH_FILTER = 26, 27  # SO_ATTACH_FILTER, SO_DETACH_FILTER; not in every module
_FILTER = struct.Struct("@HP")  # struct sock_fprog
_INSTRUCTION = 8  # struct sock_filter
_natively = native.Socket


class HandleLife(Base):
    """Everything but the transfer of data. Abstract: the classes of the modes derive from it."""

    __slots__ = ()

    @method
    def __init__(self, family: Any = -1, type: Any = -1, proto: Any = -1, fileno: Any = None) -> None:
        passed = in_transit(fileno, (family, type, proto))
        if passed is not None:
            self._take(passed)
        elif fileno is not None:
            self._adopt(family, type, proto, fileno)
        else:
            kind = [integer(item) for item in (family, type, proto)]
            sys.audit("socket.__new__", self, *kind)
            self._take(creation.create(*kind))

    def _adopt(self, family: Any, kind: Any, protocol: Any, fileno: Any) -> None:
        """Takes over a descriptor: the interpreter examines it, then the broker has a handle for it."""
        _natively.__init__(self, family, kind, protocol, fileno)
        try:
            self._handle = creation.adopt_or_keep(_natively.fileno(self), self._facts())
            self._note_descriptor()
        except BaseException:
            _natively.detach(self)  # it remains the caller's
            raise

    def __repr__(self) -> str:
        facts = (self.fileno(), self._family(), self._kind(), self._protocol())
        return "<socket object, fd=%d, family=%d, type=%d, proto=%d>" % facts

    def __del__(self) -> None:
        handle = self._handle
        if handle is not None and handle.number is not None and _natively.fileno(self) < 0:
            # With a descriptor the interpreter does it.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
        _natively.__del__(self)
        if handle is not None:
            self._handle = None  # whoever keeps the warning keeps this object
            handle.close()

    def _open(self) -> Handle:
        """The handle; `EBADF` if the socket is closed."""
        handle = self._handle
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def _revive(self) -> bool:
        """Has the broker adopt the socket again, if only this process's connections are lost; whether it has."""
        handle = self._handle
        if handle is None or _natively.fileno(self) < 0 or not handle.session.is_cut_off:
            return False
        self._handle = creation.adopt(_natively.fileno(self), self._facts())
        self._note_descriptor()
        return True

    def _is_local(self) -> bool:
        """Whether this process does it itself, so that its own credentials and rights count."""
        return self._family() == _UNIX and _natively.fileno(self) >= 0

    def _takes_paths(self) -> bool:
        """Whether the paths of an address are opened by this process, and go to the broker as descriptors."""
        return self._family() == _UNIX and self._open().session.passes_descriptors

    @method
    def fileno(self) -> int:
        """The descriptor; without one, a number that `select` and `poll` of this package understand."""
        descriptor: int = _natively.fileno(self)
        handle = self._handle
        return descriptor if descriptor >= 0 or handle is None else handle.shown()

    @method
    def _accept(self) -> tuple[Transit, Any]:
        handle = self._open()
        if handle.late is not None and handle.late.accepted:
            return handle.late.accepted.popleft()
        family = self._family()

        def accepted(answer: Answer) -> tuple[Transit, Any]:
            made = creation.transit(handle.session, answer.value, answer)
            return made, read_address(answer.value["address"], family)

        def late(answer: Answer) -> None:
            handle.late = handle.late or LateResults()
            handle.late.accepted.append(accepted(answer))

        wants = [True] if _natively.fileno(self) >= 0 else []
        return accepted(handle.call("accept", wants, takes_descriptors=True, late=late))

    @method
    def bind(self, address: Any, /) -> None:
        handle, written = self._open(), write_address(self._family(), address)
        if self._is_local():
            _natively.bind(self, address)
            return
        sys.audit("socket.bind", self, address)
        if self._takes_paths():
            with Outgoing() as beside:
                written = write_new_socket(_UNIX, address, beside)
                handle.call("bind", [written], descriptors=beside.descriptors)
            return
        if handle.session.is_stale():
            handle.session.follow_identity()
            if _natively.fileno(self) >= 0:
                self._bind_as_now(address, written)
                return
        handle.call("bind", [written])

    def _bind_as_now(self, address: Any, written: Any) -> None:
        """Binds a socket that an earlier identity made: natively, or with what the broker grants to the present one."""
        try:
            _natively.bind(self, address)
        except PermissionError as error:
            refused = error
        else:
            return
        try:
            now = creation.adopt(_natively.fileno(self), self._facts())
            try:
                now.call("bind", [written])
            finally:
                now.close()
        except (BrokerError, PermissionError) as error:
            failure = still_refused(refused, f"bind({address!r})", error)
        else:
            return
        raise failure

    @method
    def listen(self, *backlog: Any) -> None:
        handle, given = self._open(), [c_int(item) for item in backlog]
        if self._is_local():
            _natively.listen(self, *given)
        else:
            handle.call("listen", given)

    @method
    def connect(self, address: Any, /) -> None:
        handle, written = self._open(), write_address(self._family(), address)
        if self._is_local():
            _natively.connect(self, address)
            return
        sys.audit("socket.connect", self, address)
        with Outgoing() as beside:
            if self._takes_paths():
                written = write_socket(_UNIX, address, beside)
            handle.call("connect", [written], descriptors=beside.descriptors)

    @method
    def connect_ex(self, address: Any, /) -> int:
        written = write_address(self._family(), address)
        if self._handle is None:
            return errno.EBADF
        if self._is_local():
            return _natively.connect_ex(self, address)  # type: ignore[no-any-return]
        sys.audit("socket.connect", self, address)
        with Outgoing() as beside:
            try:
                if self._takes_paths():
                    written = write_socket(_UNIX, address, beside)
            except OSError as error:
                if error.errno is None:
                    raise
                return error.errno
            answer = self._handle.call("connect_ex", [written], descriptors=beside.descriptors)
        return answer.value  # type: ignore[no-any-return]

    @method
    def shutdown(self, how: Any, /) -> None:
        self._open().call("shutdown", [c_int(how)])

    @method
    def getsockname(self) -> Any:
        return read_address(self._open().call("getsockname", []).value, self._family())

    @method
    def getpeername(self) -> Any:
        return read_address(self._open().call("getpeername", []).value, self._family())

    @method
    def settimeout(self, timeout: Any, /) -> None:
        self._set_timeout(_natively.settimeout, timeout)

    @method
    def setblocking(self, flag: Any, /) -> None:
        self._set_timeout(_natively.setblocking, flag)

    def _set_timeout(self, natively: Any, value: Any) -> None:
        """Below and in the broker, which both need it."""
        handle = self._open()
        try:
            natively(self, value)
        except OSError:
            if _natively.fileno(self) >= 0:
                raise  # without a descriptor the timeout is noted all the same
        handle.call("settimeout", [_natively.gettimeout(self)])

    @method
    def getsockopt(self, level: Any, option: Any, *length: Any) -> Any:
        numbers = [c_int(level), c_int(option)]
        if length:
            numbers += map(c_int, length)
        answer = self._open().call("getsockopt", numbers)
        value = answer.value
        return value if type(value) is int else answer.data(value)

    @method
    def setsockopt(self, level: Any, option: Any, value: Any, *length: Any) -> None:
        handle = self._open()
        place = (c_int(level), c_int(option))
        if place == (_SOCKET_LEVEL, _ATTACH_FILTER) and not isinstance(value, int):
            beside = Outgoing()
            with octets(value) as pointer:
                program = beside.data(_filter_program(bytes(pointer)))
            handle.call("attach_filter", [program], attachments=beside.attachments)
        elif place == (_SOCKET_LEVEL, _DETACH_FILTER):
            handle.call("detach_filter", [])
        elif value is None:
            handle.call("setsockopt", [*place, None, integer(*length)])
        elif hasattr(value, "__index__"):
            handle.call("setsockopt", [*place, integer(value), *length])
        else:
            beside = Outgoing()
            with octets(value) as data:
                params = [*place, beside.data(bytes(data)), *length]
            handle.call("setsockopt", params, attachments=beside.attachments)

    @method
    def ioctl(self, control: Any, option: Any = None, /) -> Any:
        """Requests of PROTOCOL.md, "Options"; `SIO_RCVALL` with `RCVALL_ON` or `RCVALL_OFF` sniffs."""
        given = option if isinstance(option, str) or option is None else integer(option)
        answer = self._open().call("ioctl", [integer(control), given])
        value = answer.value
        return value if value is None or isinstance(value, int) else answer.data(value)


def _filter_program(pointer: bytes) -> bytes:
    """The program that a `struct sock_fprog` points to, in this process's memory.

    It is read through the process's own memory file, where a wrong pointer is an error.
    """
    if len(pointer) != _FILTER.size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    length, address = _FILTER.unpack(pointer)
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(length * _INSTRUCTION)
    except (OSError, ValueError, OverflowError):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from None
