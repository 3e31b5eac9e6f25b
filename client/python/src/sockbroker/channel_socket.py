"""The socket class of mode `channel`: connected streams have a descriptor with their data.

The broker, or the agent for a broker of another machine, moves the data between the descriptor and the socket. So
data is sent and received by system calls, and `ssl`, `asyncio`, `selectors`, `sendfile`, `fork` and child processes use
the descriptor like that of a native socket. Sockets that listen, and datagram sockets, get a descriptor that is readable when they are, for `epoll`; all their calls
are those of mode `remote`.
"""

from __future__ import annotations

import errno
import os

from . import connecting, native, watches
from .arguments import method
from .creation import with_channel
from .handle import Transit, spec_of
from .hints import Any
from .mediated import MediatedSocket
from .settings import UNIX

_UNIX = int(native.module.AF_UNIX)
_STREAM = int(native.module.SOCK_STREAM)
_OOB = int(native.module.MSG_OOB)
_SOL_SOCKET = int(native.module.SOL_SOCKET)
_SO_TYPE = int(native.module.SO_TYPE)
_SO_ERROR = int(native.module.SO_ERROR)


class ChannelSocket(MediatedSocket):
    """A socket of the broker that has a descriptor once it is connected."""

    __slots__ = ()

    def _has_channel(self) -> bool:
        handle = self._handle
        return handle is not None and handle.channel is not None

    def _has_descriptor(self) -> bool:
        return super()._has_descriptor() and (self._has_channel() or native.family_of(self) == _UNIX)

    @method
    def fileno(self) -> int:
        if self._is_watched() or self._begin_watch():
            return native.Socket.fileno(self)  # type: ignore[no-any-return]
        return super().fileno()

    def _is_watched(self) -> bool:
        return self._handle is not None and self._handle.watch == os.getpid()

    def _begin_watch(self) -> bool:
        """Gets a descriptor that is readable when the socket is. Only the agent has them."""
        handle, spec = self._handle, spec_of(self)
        if handle is None or handle.number is None or handle.watch is not None or self._has_descriptor():
            return False
        if self._client.settings.endpoint.passes_descriptors or (spec.type == _STREAM and not handle.listens):
            return False
        made = watches.begin(handle)
        if made is None:
            return False
        number = native.Socket.fileno(self)
        if number >= 0:
            os.dup2(made, number, inheritable=False)
            native.module.close(made)
        else:
            native.Socket.__init__(self, *spec[:3], made)
        self._apply_timeout(native.Socket.settimeout, spec.timeout)
        self._note_descriptor()
        return True

    def _taken(self, call: Any, *args: Any, **named: Any) -> Any:
        """Receives or accepts, and lets the agent wait for the socket again."""
        try:
            return call(*args, **named)
        finally:
            if self._is_watched():
                watches.renew(self._open(), native.Socket.fileno(self))

    def __del__(self) -> None:
        handle = self._handle
        if handle is not None and handle.watch is None:
            handle.watch = watches.NONE  # a warning prints the number, which is too late to be made
        super().__del__()

    # `ssl` reads the number of the descriptor before it connects. So a stream has one from the beginning, which the
    # channel then gets.

    def _become(self, passed: Transit) -> None:
        super()._become(passed)
        spec = passed.spec
        if spec.type == _STREAM and spec.family != _UNIX and passed.handle.channel is None:
            native.Socket.__init__(self, *spec[:3], native.module.socket(_UNIX, _STREAM).detach())
            self._apply_timeout(native.Socket.settimeout, spec.timeout)

    def _begin_channel(self) -> bool:
        """Gets the descriptor of a stream that has been connected. Returns whether the socket has it now for the first time."""
        spec, handle = spec_of(self), self._open()
        if spec.type != _STREAM or spec.family == _UNIX or handle.channel is not None:
            return False
        self._replace_descriptor(with_channel(Transit(handle.pseudo_descriptor(), handle, spec)))
        return True

    def _begin_connecting(self) -> bool:
        """Gets the descriptor of a stream that connects. Returns whether it has it."""
        made = connecting.begin(self._open())
        if made is None:
            return False
        self._replace_descriptor(made)
        return True

    def _replace_descriptor(self, made: int) -> None:
        os.dup2(made, native.Socket.fileno(self), inheritable=False)
        native.module.close(made)
        self._apply_timeout(native.Socket.settimeout, native.Socket.gettimeout(self))
        self._note_descriptor()

    @method
    def detach(self) -> int:
        if not self._has_descriptor() and self._handle is not None and native.Socket.fileno(self) >= 0:
            native.module.close(native.Socket.detach(self))
            self._handle.watch = None
        return super().detach()

    def _readopt(self) -> bool:
        return False  # the descriptor is not the socket

    @method
    def listen(self, *backlog: Any) -> None:
        super().listen(*backlog)
        self._open().listens = True

    # Connections. The agent has a descriptor for a connection that does not wait. Otherwise it would have no descriptor for
    # its end, so the call waits. Natively, a TCP connection that does not wait is never there at once, and programs rely
    # on that.

    @method
    def connect(self, address: Any, /) -> None:
        try:
            self._unless_later(super().connect, address)
        except OSError as error:
            if error.errno != errno.EINPROGRESS or not self._connects_later():
                connecting.note_error(self._open(), error)
                raise
            if self._begin_connecting():
                raise
            with _Waiting(self):
                super().connect(address)
        if self._is_connected_now():
            raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))

    @method
    def connect_ex(self, address: Any, /) -> int:
        result: int = self._unless_later(super().connect_ex, address)
        if result == errno.EINPROGRESS and self._connects_later():
            if self._begin_connecting():
                return result
            with _Waiting(self):
                result = super().connect_ex(address)
        if result != 0:
            if self._handle is not None:
                connecting.note_result(self._handle, result)
            return result
        return errno.EINPROGRESS if self._is_connected_now() else result

    def _unless_later(self, call: Any, address: Any) -> Any:
        """Makes a call, and waits unless the agent has a descriptor for its end."""
        if self._connects_later():
            return call(address)
        with _Waiting(self):
            return call(address)

    def _is_connected_now(self) -> bool:
        """Gets the descriptor. Returns whether the connection is new, and the socket does not wait."""
        connecting.note_result(self._open(), 0)
        return self._begin_channel() and native.Socket.gettimeout(self) == 0.0

    def _connects_later(self) -> bool:
        """Whether `connect` returns before the connection is made."""
        settings = self._client.settings
        return (
            native.Socket.gettimeout(self) == 0.0
            and native.type_of(self) == _STREAM
            and native.family_of(self) != _UNIX
            and settings.pair == UNIX
            and not settings.endpoint.passes_descriptors
        )

    @method
    def _accept(self) -> tuple[Transit, Any]:
        made, address = self._taken(super()._accept)
        if made.spec.type == _STREAM and made.spec.family != _UNIX:
            made = with_channel(made)
        return made, address

    @method
    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            # The broker closes the handle when the peer has reset the connection.
            if error.errno != errno.EBADF or not self._has_channel():
                raise
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    @method
    def getsockopt(self, level: Any, option: Any, *length: Any) -> Any:
        # `ssl` asks for the type, which is known, also of a socket that has been reset.
        if (level, option, length) == (_SOL_SOCKET, _SO_TYPE, ()) and self._has_channel():
            return int(native.type_of(self))
        value = super().getsockopt(level, option, *length)
        if (level, option, length) == (_SOL_SOCKET, _SO_ERROR, ()):
            connecting.note_option(self._open(), native.Socket.fileno(self), value)
        return value

    @method
    def shutdown(self, how: Any, /) -> None:
        if self._has_channel():
            native.Socket.shutdown(self, how)
        else:
            super().shutdown(how)

    def _set_timeout(self, setter: Any, value: Any) -> None:
        if self._has_channel():
            self._apply_timeout(setter, value)
        else:
            super()._set_timeout(setter, value)

    # Data. Out-of-band data is not in the channel. A channel ends with the process of the broker that serves it, which looks
    # like the end of the data.

    def _received(self, call: Any, *args: Any, **named: Any) -> Any:
        result = self._moved(call, *args, **named)
        if not (result[0] if isinstance(result, tuple) else result):
            self._check_served()
        return result

    def _moved(self, call: Any, *args: Any, **named: Any) -> Any:
        try:
            return call(self, *args, **named)
        except (ConnectionResetError, BrokenPipeError):
            self._check_served()
            raise

    def _check_served(self) -> None:
        """Raises `ChannelInterrupted` if the process of the broker that served the channel has ended."""
        if self._handle is not None:
            self._handle.session.check_served()

    @method
    def recv(self, *args: Any) -> Any:
        return self._received(native.Socket.recv, *args) if self._has_channel() else self._taken(super().recv, *args)

    @method
    def recvfrom(self, *args: Any) -> Any:
        return self._received(native.Socket.recvfrom, *args) if self._has_channel() else self._taken(super().recvfrom, *args)

    @method
    def recv_into(self, *args: Any, **named: Any) -> Any:
        if self._has_channel():
            return self._received(native.Socket.recv_into, *args, **named)
        return self._taken(super().recv_into, *args, **named)

    @method
    def recvfrom_into(self, *args: Any, **named: Any) -> Any:
        if self._has_channel():
            return self._received(native.Socket.recvfrom_into, *args, **named)
        return self._taken(super().recvfrom_into, *args, **named)

    @method
    def recvmsg(self, *args: Any) -> Any:
        return self._received(native.Socket.recvmsg, *args) if self._has_channel() else self._taken(super().recvmsg, *args)

    @method
    def recvmsg_into(self, *args: Any) -> Any:
        return self._received(native.Socket.recvmsg_into, *args) if self._has_channel() else self._taken(super().recvmsg_into, *args)

    @method
    def send(self, data: Any, flags: Any = 0, /) -> Any:
        if self._has_channel() and not _is_urgent(flags):
            return self._moved(native.Socket.send, data, flags)
        return super().send(data, flags)

    @method
    def sendall(self, data: Any, flags: Any = 0, /) -> None:
        if self._has_channel() and not _is_urgent(flags):
            self._moved(native.Socket.sendall, data, flags)
        else:
            super().sendall(data, flags)

    @method
    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: Any = 0, address: Any = None, /) -> Any:
        if self._has_channel() and not _is_urgent(flags):
            return self._moved(native.Socket.sendmsg, buffers, ancdata, flags)
        return super().sendmsg(buffers, ancdata, flags, address)


def _is_urgent(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & _OOB)


class _Waiting:
    """Lets the broker wait for a connection of a socket that does not wait otherwise."""

    def __init__(self, sock: ChannelSocket) -> None:
        self._handle = sock._handle if native.Socket.gettimeout(sock) == 0.0 else None

    def __enter__(self) -> None:
        if self._handle is not None and self._handle.number is not None:
            self._handle.set_timeout(None)

    def __exit__(self, *_: object) -> None:
        if self._handle is not None and self._handle.number is not None:
            self._handle.set_timeout(0.0)
