"""Operations for which the package makes several calls, or converts values, have the effect of one system call."""

import array
import contextlib
import ctypes
import errno
import mmap
import os
import pathlib
import resource
import socket
import struct
import tempfile
import threading
import unittest

from behaviour.common import SECONDS, tcp_pair

MIB = 1 << 20
TIMEVAL = struct.Struct("ll")


class Timeval(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]


@contextlib.contextmanager
def stream_pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def reading(sock):
    """A thread that reads a stream to its end, and the list of the pieces."""
    got = []

    def read():
        while piece := sock.recv(MIB):
            got.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, got


class Buffers(unittest.TestCase):
    def test_setsockopt_takes_any_buffer(self):
        mapped = mmap.mmap(-1, TIMEVAL.size)
        mapped[:] = TIMEVAL.pack(3, 0)
        values = (
            TIMEVAL.pack(1, 0), array.array("l", [2, 0]), mapped, (ctypes.c_long * 2)(4, 0), Timeval(5, 0),
            memoryview(bytes(TIMEVAL.size) + TIMEVAL.pack(6, 0))[TIMEVAL.size :],
        )  # fmt: skip
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for seconds, value in enumerate(values, 1):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
                data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.size)
                self.assertEqual(TIMEVAL.unpack(data), (seconds, 0))

    def test_send_and_receive_take_any_buffer(self):
        with stream_pair() as (a, b):
            b.settimeout(SECONDS)
            a.send(array.array("i", [1, 2]))
            numbers = array.array("i", [0, 0])
            self.assertEqual((b.recv_into(numbers), list(numbers)), (8, [1, 2]))
            a.sendall(Timeval(3, 4))
            value = Timeval()
            self.assertEqual((b.recv_into(value), value.seconds, value.microseconds), (TIMEVAL.size, 3, 4))
            a.sendmsg([array.array("i", [5]), Timeval(6, 7), b""])
            number, value = (ctypes.c_int * 1)(), Timeval()
            n, *_ = b.recvmsg_into([number, value])
            self.assertEqual((n, number[0], value.seconds), (4 + TIMEVAL.size, 5, 6))

    def test_a_unix_path_can_be_a_buffer_and_an_interface_a_path(self):
        with socket.socket(socket.AF_UNIX) as sock, self.assertRaises(FileNotFoundError):
            sock.connect(array.array("B", b"/nonexistent/socket"))
        self.assertEqual(socket.if_nametoindex(pathlib.Path("lo")), socket.if_nametoindex("lo"))
        self.assertEqual(socket.if_nametoindex(b"lo"), socket.if_nametoindex("lo"))

    def test_a_scope_beyond_64_bits_is_cut_to_its_low_bits(self):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect(("::1", 9, 0, 1 << 70))
            self.assertEqual(sock.getpeername(), ("::1", 9, 0, 0))


class Large(unittest.TestCase):
    def test_a_blocking_stream_takes_all_of_one_message(self):
        data = os.urandom(MIB) * 5
        calls = (
            lambda sock: sock.send(data),
            lambda sock: sock.sendmsg([data]),
            lambda sock: sock.sendmsg([data[:100], data[100:]]),
            lambda sock: sock.sendmsg([data[: 4 * MIB], data[4 * MIB :]]),
        )
        for call in calls:
            with stream_pair() as (a, b):
                thread, got = reading(b)
                n = call(a)
                a.close()
                thread.join()
                self.assertEqual((n, b"".join(got) == data), (len(data), True))

    def test_a_stream_with_a_timeout_can_take_a_part(self):
        with stream_pair() as (a, b):
            a.settimeout(SECONDS)
            thread, got = reading(b)
            n = a.sendmsg([bytes(5 * MIB)])
            a.close()
            thread.join()
            self.assertEqual(sum(map(len, got)), n)
            self.assertLessEqual(n, 5 * MIB)

    def test_descriptors_are_sent_with_the_first_part_alone(self):
        with stream_pair() as (a, b), open("/dev/null", "rb") as file:
            got = []

            def read():
                data, descriptors, *_ = socket.recv_fds(b, 1, 10)
                size = len(data)
                while size < 5 * MIB:
                    data, more, *_ = socket.recv_fds(b, MIB, 10)
                    size, descriptors = size + len(data), [*descriptors, *more]
                got.extend(descriptors)

            thread = threading.Thread(target=read)
            thread.start()
            self.assertEqual(socket.send_fds(a, [bytes(5 * MIB)], [file.fileno()]), 5 * MIB)
            thread.join()
            for descriptor in got:
                os.close(descriptor)
            self.assertEqual(len(got), 1)

    def test_waitall_receives_more_than_the_limit_of_one_call(self):
        data = os.urandom(MIB) * 5
        with tcp_pair() as (a, b):
            b.settimeout(None)
            sender = threading.Thread(target=a.sendall, args=[data])
            sender.start()
            self.assertTrue(b.recv(len(data), socket.MSG_WAITALL) == data)
            sender.join()

    def test_a_datagram_beyond_the_limit_raises_emsgsize(self):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            address = sock.getsockname()
            for call in (
                lambda: sock.sendto(bytes(5 * MIB), address),
                lambda: sock.sendmsg([bytes(5 * MIB)], [], 0, address),
            ):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, errno.EMSGSIZE)


class Files(unittest.TestCase):
    def send(self, position, *arguments):
        """The number of bytes that `sendfile()` sends of a file of 100 bytes, the position after it, and the first byte."""
        with tempfile.TemporaryFile() as file, stream_pair() as (a, b):
            file.write(bytes(range(100)))
            file.flush()
            file.seek(position)
            n = a.sendfile(file, *arguments)
            a.close()
            data = b.recv(1000)
            return n, file.tell(), data[:1]

    def test_sendfile_starts_at_its_offset(self):
        self.assertEqual(self.send(7), (100, 100, b"\0"))
        self.assertEqual(self.send(7, 0, 10), (10, 10, b"\0"))
        self.assertEqual(self.send(7, 5, 10), (10, 15, b"\5"))
        self.assertEqual(self.send(7, 300), (0, 7, b""))

    def test_os_sendfile_moves_the_position_only_without_an_offset(self):
        with tempfile.TemporaryFile() as file, stream_pair() as (a, b):
            file.write(bytes(range(100)))
            file.flush()
            file.seek(20)
            self.assertEqual(os.sendfile(a.fileno(), file.fileno(), 0, 10), 10)
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_CUR), 20)
            self.assertEqual(os.sendfile(a.fileno(), file.fileno(), None, 10), 10)
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_CUR), 30)
            self.assertEqual(b.recv(100), bytes([*range(10), *range(20, 30)]))

    def test_inheritance_is_set_and_read(self):
        with socket.socket() as sock:
            self.assertFalse(sock.get_inheritable())
            sock.set_inheritable(True)
            self.assertTrue(sock.get_inheritable())


class Numbers(unittest.TestCase):
    """Functions of `os` accept the number that `fileno()` returns."""

    def test_os_read_and_write_transfer_like_recv_and_send(self):
        with tcp_pair() as (a, b):
            self.assertEqual(os.write(a.fileno(), b"abcdef"), 6)
            self.assertEqual(os.read(b.fileno(), 0), b"")
            self.assertEqual(os.read(b.fileno(), 4), b"abcd")
            self.assertEqual(os.writev(b.fileno(), [b"12", b"", bytearray(b"345")]), 5)
            first, second = bytearray(3), bytearray(7)
            self.assertEqual(os.readv(a.fileno(), [first, second]), 5)
            self.assertEqual((first, second), (b"123", b"45" + bytes(5)))
            self.assertEqual(b.recv(9), b"ef")
            a.close()
            self.assertEqual(os.read(b.fileno(), 4), b"")

    def test_os_read_takes_one_datagram(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.connect(sock.getsockname())
            for data in (b"first", b"second", b""):
                self.assertEqual(os.write(sock.fileno(), data), len(data))
            self.assertEqual(os.read(sock.fileno(), 3), b"fir")
            self.assertEqual(os.read(sock.fileno(), 99), b"second")
            self.assertEqual(os.read(sock.fileno(), 99), b"")

    def test_os_read_and_write_do_not_wait_if_the_socket_has_a_timeout(self):
        with stream_pair() as (a, b):
            for timeout in (0, SECONDS):
                a.settimeout(timeout)
                with self.assertRaises(BlockingIOError):
                    os.read(a.fileno(), 1)
                with self.assertRaises(BlockingIOError):
                    os.readv(a.fileno(), [bytearray(1)])
                with self.assertRaises(BlockingIOError):
                    while True:
                        os.write(a.fileno(), bytes(MIB))
                with self.assertRaises(BlockingIOError):
                    os.writev(a.fileno(), [b"x"])
            os.write(b.fileno(), b"y")
            self.assertEqual(os.read(a.fileno(), 9), b"y")

    def test_os_read_and_write_refuse_what_the_kernel_refuses(self):
        with socket.socket() as sock:
            for call, code in (
                (lambda: os.read(sock.fileno(), -1), errno.EINVAL),
                (lambda: os.read(sock.fileno(), 1), errno.ENOTCONN),
                (lambda: os.write(sock.fileno(), b"x"), errno.EPIPE),
            ):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, code)
            number = sock.fileno()
        for call in (lambda: os.read(number, 1), lambda: os.writev(number, [b"x"])):
            with self.assertRaises(OSError) as caught:
                call()
            self.assertEqual(caught.exception.errno, errno.EBADF)


class Descriptors(unittest.TestCase):
    @contextlib.contextmanager
    def free(self, count):
        """Leaves exactly this many descriptor numbers free."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(count):
                os.close(held.pop())
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for number in held:
                os.close(number)

    def test_received_descriptors_without_a_free_number_are_dropped_and_reported(self):
        with contextlib.ExitStack() as stack:
            a, b = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            b.settimeout(SECONDS)
            file = stack.enter_context(open("/dev/null", "rb"))
            for text, count in ((b"ten", 10), (b"two", 2), (b"all", 4), (b"one", 1)):
                socket.send_fds(a, [text], [file.fileno()] * count)
            found = []
            for free in (3, 0):
                with self.free(free):
                    data, descriptors, flags, _ = socket.recv_fds(b, 10, 20)
                    found.append((data, len(descriptors), bool(flags & socket.MSG_CTRUNC)))
                    for descriptor in descriptors:
                        os.close(descriptor)
            for _ in range(2):
                data, descriptors, flags, _ = socket.recv_fds(b, 10, 20)
                found.append((data, len(descriptors), bool(flags & socket.MSG_CTRUNC)))
                for descriptor in descriptors:
                    os.close(descriptor)
        self.assertEqual(found, [(b"ten", 3, True), (b"two", 0, True), (b"all", 4, False), (b"one", 1, False)])

    def test_a_socket_without_a_free_number_raises_emfile(self):
        with socket.socket():
            with self.free(0), self.assertRaises(OSError) as caught:
                socket.socket()
            socket.socket().close()
        self.assertEqual(caught.exception.errno, errno.EMFILE)

    def test_too_many_descriptors_raise_einval_and_the_next_send_works(self):
        with stream_pair() as (a, b), open("/dev/null", "rb") as file:
            with self.assertRaises(OSError) as caught:
                socket.send_fds(a, [b"x"], [file.fileno()] * 254)
            self.assertEqual(caught.exception.errno, errno.EINVAL)
            a.send(b"after")
            self.assertEqual(b.recv(10), b"after")


if __name__ == "__main__":
    unittest.main()
