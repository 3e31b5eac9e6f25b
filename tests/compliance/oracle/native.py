"""The oracle: CPython's module, with native code for broker methods that it lacks."""

import array
import errno
import fcntl
import os
import select
import socket
import struct
import termios

_INTERFACE = {"SIOCGIFINDEX": 0x8933, "SIOCGIFFLAGS": 0x8913, "SIOCGIFMTU": 0x8921, "SIOCGIFADDR": 0x8915,
              "SIOCGIFNETMASK": 0x891B, "SIOCGIFBRDADDR": 0x8919, "SIOCGIFHWADDR": 0x8927}
_NUMBER = {"FIONREAD": termios.FIONREAD, "SIOCINQ": termios.FIONREAD, "SIOCOUTQ": termios.TIOCOUTQ,
           "SIOCATMARK": 0x8905}
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


class NativeModule:
    """`socket` with a few more functions."""

    brokered = False

    def __getattr__(self, name):
        return getattr(socket, name)

    def constants(self):
        """Every constant: the integers with names in capitals."""
        names = (name for name in dir(socket) if name[0].isupper() and "_" in name)
        found = {name: getattr(socket, name) for name in names}
        return {name: int(value) for name, value in found.items() if isinstance(value, int)}

    def poll(self, watched, timeout=None):
        """`select.poll` over the descriptors; the timeout in seconds."""
        poller = select.poll()
        numbers = [sock.fileno() for sock, _ in watched]
        for number, (_, events) in zip(numbers, watched):
            poller.register(number, events)
        found = poller.poll(None if timeout is None else timeout * 1000)
        return sorted((numbers.index(number), events) for number, events in found)

    def position(self, sock):
        """`TCP_INFO`, with what waits in the queues (tcp(7))."""
        if sock.proto not in (0, socket.IPPROTO_TCP) or sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        queues = [struct.unpack("i", fcntl.ioctl(sock, _NUMBER[request], bytes(4)))[0] for request in ("SIOCOUTQ", "FIONREAD")]
        acked, received = struct.unpack_from("QQ", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 120)
        return acked + queues[0], received - queues[1]

    def resume(self, sock, received):
        """What receivers have taken: no other process had the socket before."""
        return self.position(sock)[1]

    def recvmmsg(self, sock, vlen, bufsize, ancbufsize=0, flags=0):
        """A `recvmsg` that can wait, then as many as there are messages."""
        messages = [sock.recvmsg(bufsize, ancbufsize, flags)]
        before = sock.gettimeout()
        sock.settimeout(0)
        try:
            while len(messages) < vlen:
                messages.append(sock.recvmsg(bufsize, ancbufsize, flags))
        except BlockingIOError:
            pass
        finally:
            sock.settimeout(before)
        return messages

    def sendmmsg(self, sock, messages, flags=0):
        """`sendmsg` for each message. The first error ends the list; it is raised only if nothing was sent."""
        results = []
        for message in messages:
            buffers, ancdata, address = (*message, *((), None)[len(message) - 1:])
            try:
                results.append(sock.sendmsg(buffers, ancdata, flags, address))
            except OSError as error:
                if not results:
                    raise
                results.append(("error", error.errno))
                break
        return results

    def ioctl(self, sock, control, option=None):
        """`fcntl.ioctl` for the requests that the broker knows; ENOTTY for others, like the broker."""
        if control in _NUMBER:
            value = array.array("i", [0])
            fcntl.ioctl(sock.fileno(), _NUMBER[control], value)
            return value[0]
        if control not in _INTERFACE:
            raise OSError(errno.ENOTTY, "unknown request")
        answer = fcntl.ioctl(sock.fileno(), _INTERFACE[control], struct.pack("16s24x", option.encode()))[16:]
        if control in ("SIOCGIFINDEX", "SIOCGIFMTU"):
            return struct.unpack_from("i", answer)[0]
        if control == "SIOCGIFFLAGS":
            return struct.unpack_from("H", answer)[0]
        return answer[2:8] if control == "SIOCGIFHWADDR" else answer[4:8]

    def attach_filter(self, sock, program):
        """`SO_ATTACH_FILTER` with a pointer to the program, as Python programs do it."""
        memory = array.array("B", program)
        address, _ = memory.buffer_info()
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program) // 8, address))

    def detach_filter(self, sock):
        """`SO_DETACH_FILTER`."""
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def delegate(self, family, type, proto):
        """A new socket."""
        return socket.socket(family, type, proto)

    def apply_bind(self, sock, address):
        """`bind`."""
        sock.bind(address)

    def apply_option(self, sock, level, optname, value):
        """`setsockopt`."""
        sock.setsockopt(level, optname, value)
