"""The socket class of mediated and remote mode: the broker does every operation.

`receive.py`, `send.py` and `options.py` have the bodies of the methods that transfer data and options.
"""

from __future__ import annotations

import errno
import sys
import warnings

from . import creation, native, options, receive, send
from .arguments import method
from .base import BrokeredSocket
from .encoding import RequestParts, c_int, decode_address, encode_address, integer
from .errors import BrokerError, still_refused
from .handle import Transit, in_transit, spec_of
from .hints import TYPE_CHECKING, Any
from .jsonrpc import Response
from .send import NOT_GIVEN
from .settings import OF_BROKER
from .undelivered import UndeliveredResults
from .unix_paths import encode_existing, encode_new, is_native, needs_descriptors

if TYPE_CHECKING:
    from .client import Client


class MediatedSocket(BrokeredSocket):
    """A socket whose operations are calls of the broker, one by one."""

    __slots__ = ()

    # Creation and end.

    @method
    def __init__(self, family: Any = -1, type: Any = -1, proto: Any = -1, fileno: Any = None) -> None:
        passed = in_transit(fileno, (family, type, proto))
        if passed is not None:
            self._become(passed)
        elif fileno is not None:
            self._adopt(family, type, proto, fileno)
        else:
            numbers = [integer(item) for item in (family, type, proto)]
            sys.audit("socket.__new__", self, *numbers)
            self._become(creation.create(self._client, *numbers))

    def _adopt(self, family: Any, type: Any, proto: Any, fileno: Any) -> None:
        """Takes a descriptor: the interpreter examines it, then the broker adopts it."""
        native.Socket.__init__(self, family, type, proto, fileno)
        try:
            self._apply_default_timeout()
            self._handle = creation.adopt_if_allowed(self._client, native.Socket.fileno(self), spec_of(self))
            self._note_descriptor()
        except BaseException:
            native.Socket.detach(self)  # it remains the caller's
            raise

    def _readopt(self) -> bool:
        """Lets the broker adopt the descriptor again, if the session is lost for this process alone."""
        handle = self._handle
        if handle is None or native.Socket.fileno(self) < 0 or not handle.session.is_cut_off:
            return False
        self._handle = creation.adopt(handle.session.client, native.Socket.fileno(self), spec_of(self))
        self._note_descriptor()
        return True

    def __repr__(self) -> str:
        return "<socket object, fd=%d, family=%d, type=%d, proto=%d>" % (self.fileno(), *spec_of(self)[:3])

    def __del__(self) -> None:
        handle = self._handle
        if handle is not None and handle.number is not None and native.Socket.fileno(self) < 0:
            # The interpreter warns if there is a descriptor.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
        native.Socket.__del__(self)
        if handle is not None:
            self._handle = None  # a recorded warning would keep this object, and the handle with it
            handle.close()

    @method
    def fileno(self) -> int:
        """The descriptor, or a pseudo descriptor, which `select` and `poll` of this package accept."""
        handle = self._handle
        if handle is None or self._has_descriptor():
            if handle is not None:
                handle.session.note_shared(handle.number)
            return native.Socket.fileno(self)  # type: ignore[no-any-return]
        return handle.pseudo_descriptor()

    def _has_descriptor(self) -> bool:
        """Whether this process has a descriptor with the data of the socket."""
        return native.Socket.fileno(self) >= 0  # type: ignore[no-any-return]

    # Addresses and connections.

    @method
    def _accept(self) -> tuple[Transit, Any]:
        handle = self._open()
        if handle.undelivered is not None and handle.undelivered.accepted:
            return handle.undelivered.accepted.popleft()
        family = native.family_of(self)

        def accepted(response: Response) -> tuple[Transit, Any]:
            made = creation.transit(handle.session, response.value, response)
            made.handle.skips_answers = self._client.settings.mode in OF_BROKER
            return made, decode_address(response.value["address"], family)

        def keep(response: Response) -> None:
            handle.undelivered = handle.undelivered or UndeliveredResults()
            handle.undelivered.accepted.append(accepted(response))

        wants_descriptor = [True] if self._has_descriptor() else []
        return accepted(handle.call("accept", wants_descriptor, takes_descriptors=True, undelivered=keep))

    @method
    def bind(self, address: Any, /) -> None:
        handle, encoded = self._open(), encode_address(native.family_of(self), address)
        if is_native(self):
            native.Socket.bind(self, address)
            return
        sys.audit("socket.bind", self, address)
        if needs_descriptors(self):
            with RequestParts() as parts:
                encoded = encode_new(address, parts)
                handle.call("bind", [encoded], descriptors=parts.descriptors)
            return
        if handle.session.is_stale():
            handle.session.follow_identity()
            if self._has_descriptor():
                _bind_with_present_rights(self, handle.session.client, address, encoded)
                return
        handle.call("bind", [encoded])

    @method
    def listen(self, *backlog: Any) -> None:
        handle, numbers = self._open(), [c_int(item) for item in backlog]
        if is_native(self):
            native.Socket.listen(self, *numbers)
        else:
            handle.call("listen", numbers)

    @method
    def connect(self, address: Any, /) -> None:
        handle, encoded = self._open(), encode_address(native.family_of(self), address)
        if is_native(self):
            native.Socket.connect(self, address)
            return
        sys.audit("socket.connect", self, address)
        with RequestParts() as parts:
            if needs_descriptors(self):
                encoded = encode_existing(address, parts)
            handle.call("connect", [encoded], descriptors=parts.descriptors)

    @method
    def connect_ex(self, address: Any, /) -> int:
        encoded = encode_address(native.family_of(self), address)
        if self._handle is None:
            return errno.EBADF
        if is_native(self):
            return native.Socket.connect_ex(self, address)  # type: ignore[no-any-return]
        sys.audit("socket.connect", self, address)
        with RequestParts() as parts:
            try:
                if needs_descriptors(self):
                    encoded = encode_existing(address, parts)
            except OSError as error:
                if error.errno is None:
                    raise
                return error.errno
            response = self._handle.call("connect_ex", [encoded], descriptors=parts.descriptors)
        return response.value  # type: ignore[no-any-return]

    @method
    def shutdown(self, how: Any, /) -> None:
        self._open().call("shutdown", [c_int(how)])

    @method
    def getsockname(self) -> Any:
        return decode_address(self._open().call("getsockname", []).value, native.family_of(self))

    @method
    def getpeername(self) -> Any:
        return decode_address(self._open().call("getpeername", []).value, native.family_of(self))

    # Timeouts and options.

    @method
    def settimeout(self, timeout: Any, /) -> None:
        self._set_timeout(native.Socket.settimeout, timeout)

    @method
    def setblocking(self, flag: Any, /) -> None:
        self._set_timeout(native.Socket.setblocking, flag)

    def _set_timeout(self, setter: Any, value: Any) -> None:
        """Sets the timeout in the interpreter's part and in the broker, which both need it."""
        handle = self._open()
        self._apply_timeout(setter, value)
        handle.set_timeout(native.Socket.gettimeout(self))

    @method
    def getsockopt(self, level: Any, option: Any, *length: Any) -> Any:
        return options.get_option(self._open(), level, option, *length)

    @method
    def setsockopt(self, level: Any, option: Any, value: Any, *length: Any) -> None:
        options.set_option(self._open(), level, option, value, *length)

    @method
    def ioctl(self, control: Any, option: Any = None, /) -> Any:
        """See PROTOCOL.md, "Options". `SIO_RCVALL` takes `RCVALL_ON` or `RCVALL_OFF`."""
        return options.ioctl(self._open(), control, option)

    # Receiving.

    @method
    def recv(self, bufsize: Any, flags: Any = 0, /) -> bytes:
        return receive.padded(receive.data(self, "recv", bufsize, flags))

    @method
    def recvfrom(self, bufsize: Any, flags: Any = 0, /) -> tuple[bytes, Any]:
        message = receive.data(self, "recvfrom", bufsize, flags)
        return receive.padded(message), message.address

    @method
    def recv_into(self, buffer: Any, nbytes: Any = 0, flags: Any = 0) -> int:
        return receive.into(self, "recv_into", buffer, nbytes, flags).n

    @method
    def recvfrom_into(self, buffer: Any, nbytes: Any = 0, flags: Any = 0) -> tuple[int, Any]:
        message = receive.into(self, "recvfrom_into", buffer, nbytes, flags)
        return message.n, message.address

    @method
    def recvmsg(self, bufsize: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> tuple[Any, ...]:
        message = receive.with_ancillary(self, bufsize, ancbufsize, flags)
        return message.data, message.ancillary, message.flags, message.address

    @method
    def recvmsg_into(self, buffers: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> tuple[Any, ...]:
        message = receive.with_ancillary_into(self, buffers, ancbufsize, flags)
        return message.n, message.ancillary, message.flags, message.address

    # Sending.

    @method
    def send(self, data: Any, flags: Any = 0, /) -> int:
        return send.send(self, data, flags)

    @method
    def sendall(self, data: Any, flags: Any = 0, /) -> None:
        send.sendall(self, data, flags)

    @method
    def sendto(self, data: Any, *rest: Any) -> int:
        return send.sendto(self, data, *rest)

    @method
    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: Any = 0, address: Any = None, /) -> int:
        return send.sendmsg(self, buffers, ancdata, flags, address)

    @method
    def sendmsg_afalg(
        self, msg: Any = (), *, op: Any, iv: Any = NOT_GIVEN, assoclen: Any = NOT_GIVEN, flags: Any = 0
    ) -> int:
        return send.sendmsg_afalg(self, msg, op, iv, assoclen, flags)


def _bind_with_present_rights(sock: MediatedSocket, client: Client, address: Any, encoded: Any) -> None:
    """Binds a socket that an earlier identity created: natively, or by the rights of the present identity."""
    try:
        native.Socket.bind(sock, address)
    except PermissionError as error:
        refused = error
    else:
        return
    try:
        present = creation.adopt(client, native.Socket.fileno(sock), spec_of(sock))
        try:
            present.call("bind", [encoded])
        finally:
            present.close()
    except (BrokerError, PermissionError) as error:
        failure = still_refused(refused, f"bind({address!r})", error)
    else:
        return
    raise failure
