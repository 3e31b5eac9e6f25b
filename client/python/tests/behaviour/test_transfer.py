"""Transfer of data: cases that CPython's own tests do not cover."""

import array
import os
import select
import socket
import struct
import threading
import time
import unittest

from behaviour.common import SECONDS, creators, tcp_pair, udp_pair

IP_RECVERR = getattr(socket, "IP_RECVERR", 11)
MSG_ERRQUEUE = getattr(socket, "MSG_ERRQUEUE", 0x2000)


class WaitAll(unittest.TestCase):
    def test_a_blocking_receive_with_waitall_waits_for_all(self):
        with tcp_pair() as (a, b):
            b.settimeout(None)
            later = threading.Timer(0.2, a.sendall, [b"world"])
            a.sendall(b"hello")
            later.start()
            self.assertEqual(b.recv(10, socket.MSG_WAITALL), b"helloworld")
            later.join()

    def test_a_receive_with_waitall_and_a_timeout_returns_the_first_part(self):
        with tcp_pair() as (a, b):
            a.sendall(b"hello")
            self.assertEqual(b.recv(10, socket.MSG_WAITALL), b"hello")

    def test_dontwait_returns_the_available_data(self):
        with tcp_pair() as (a, b):
            b.settimeout(None)
            a.sendall(b"hello")
            self.assertEqual(select.select([b], [], [], SECONDS)[0], [b])
            self.assertEqual(b.recv(10, socket.MSG_WAITALL | socket.MSG_DONTWAIT), b"hello")
            with self.assertRaises(BlockingIOError):
                b.recv(10, socket.MSG_DONTWAIT)


class Datagrams(unittest.TestCase):
    def test_trunc_returns_the_length_of_the_datagram(self):
        with udp_pair() as (a, b):
            a.send(b"0123456789")
            self.assertEqual(len(b.recv(4, socket.MSG_TRUNC | socket.MSG_PEEK)), 10)
            buffer = bytearray(4)
            self.assertEqual(b.recv_into(buffer, 4, socket.MSG_TRUNC), 10)
            self.assertEqual(buffer, b"0123")

    def test_recvmsg_reports_a_truncated_datagram(self):
        with udp_pair() as (a, b):
            a.send(b"0123456789")
            data, _, flags, _ = b.recvmsg(4)
            self.assertEqual((data, bool(flags & socket.MSG_TRUNC)), (b"0123", True))

    def test_an_empty_error_queue_does_not_wait(self):
        with udp_pair() as (a, _):
            a.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            a.settimeout(None)
            with self.assertRaises(BlockingIOError):
                a.recvmsg(100, 512, MSG_ERRQUEUE)

    def test_the_error_queue_returns_an_error_with_its_sender(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, socket.socket(type=socket.SOCK_DGRAM) as sock:
            # It keeps the port for itself, and receives nothing from others than its peer.
            probe.bind(("127.0.0.1", 0))
            probe.connect(("127.0.0.1", 9))
            closed = probe.getsockname()
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.sendto(b"nobody there", closed)
            while True:
                try:
                    data, ancillary, flags, address = sock.recvmsg(100, 512, MSG_ERRQUEUE)
                    break
                except BlockingIOError:  # the error has not arrived
                    time.sleep(0.01)
        self.assertEqual((data, address), (b"nobody there", closed))
        self.assertTrue(flags & MSG_ERRQUEUE)
        level, kind, error = ancillary[0]
        self.assertEqual((level, kind), (socket.IPPROTO_IP, IP_RECVERR))
        self.assertEqual(struct.unpack_from("I", error)[0], 111)

    def test_an_empty_datagram_does_not_end_the_stream(self):
        with udp_pair() as (a, b):
            a.send(b"")
            a.send(b"after")
            self.assertEqual([b.recv(10), b.recv(10)], [b"", b"after"])


class Bulk(unittest.TestCase):
    def test_many_megabytes_arrive_in_order(self):
        data = os.urandom(1 << 20) * 9 + b"the end"
        with tcp_pair() as (a, b):
            sender = threading.Thread(target=a.sendall, args=[data])
            sender.start()
            received = bytearray()
            while len(received) < len(data):
                part = b.recv(1 << 23)
                self.assertTrue(part)
                received += part
            sender.join()
        self.assertTrue(received == data)

    def test_a_blocking_send_takes_all_of_the_data(self):
        data = bytes(6 << 20)
        with tcp_pair() as (a, b):
            a.settimeout(None)
            counts = []
            sender = threading.Thread(target=lambda: counts.append(a.send(data)))
            sender.start()
            left = len(data)
            while left:
                left -= len(b.recv(1 << 20))
            sender.join()
        self.assertEqual(counts, [len(data)])

    def test_sendmsg_gathers_and_recvmsg_into_scatters(self):
        parts = [bytes([value]) * value for value in range(100)]
        with udp_pair() as (a, b):
            self.assertEqual(a.sendmsg(parts), 4950)
            buffers = [bytearray(2000), bytearray(), bytearray(2950)]
            self.assertEqual(b.recvmsg_into(buffers)[0], 4950)
            self.assertEqual(b"".join(buffers), b"".join(parts))

    def test_buffers_are_free_after_an_error(self):
        with udp_pair() as (_, b):
            b.settimeout(0)
            buffer = bytearray(10)
            try:
                b.recv_into(buffer)
            except BlockingIOError:
                buffer.clear()
            self.assertEqual(buffer, b"")


class Descriptors(unittest.TestCase):
    def received(self, flags):
        a, b = socket.socketpair()
        with a, b, open(os.devnull, "rb") as file:
            socket.send_fds(a, [b"x"], [file.fileno()])
            _, ancillary, *_ = b.recvmsg(1, socket.CMSG_SPACE(4), flags)
        [(level, kind, data)] = ancillary
        self.assertEqual((level, kind), (socket.SOL_SOCKET, socket.SCM_RIGHTS))
        [descriptor] = array.array("i", data)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_received_descriptors_are_inheritable_without_cloexec(self):
        self.assertTrue(os.get_inheritable(self.received(0)))
        self.assertFalse(os.get_inheritable(self.received(socket.MSG_CMSG_CLOEXEC)))

    def test_253_descriptors_fit_into_a_message(self):
        a, b = socket.socketpair()
        with a, b, open(os.devnull, "rb") as file:
            socket.send_fds(a, [b"x"], [file.fileno()] * 253)
            _, descriptors, flags, _ = socket.recv_fds(b, 1, 253)
            for descriptor in descriptors:
                os.close(descriptor)
            self.assertEqual((len(descriptors), flags & socket.MSG_CTRUNC), (253, 0))
            with self.assertRaises(OSError):
                socket.send_fds(a, [b"x"], [file.fileno()] * 254)

    def test_a_wrong_descriptor_raises_ebadf_and_nothing_is_sent(self):
        a, b = socket.socketpair()
        with a, b:
            b.settimeout(0)
            with self.assertRaises(OSError) as caught:
                socket.send_fds(a, [b"x"], [999_999])
            self.assertEqual(caught.exception.errno, 9)
            with self.assertRaises(BlockingIOError):
                b.recv(1)

    def test_a_pair_belongs_to_this_process_in_every_mode(self):
        a, b = socket.socketpair()
        with a, b:
            peer = struct.unpack("3i", a.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self.assertEqual(peer, (os.getpid(), os.geteuid(), os.getegid()))
            os.write(a.fileno(), b"x")
            self.assertEqual(select.select([b], [], [], SECONDS)[0], [b])
            with b.dup() as other:
                self.assertEqual(other.recv(1), b"x")

    def test_peercred_of_a_connection_names_the_client(self):
        name = f"\0sockbroker-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(name)
            server.listen()
            client.connect(name)
            accepted, _ = server.accept()
            with accepted:
                for end in (client, accepted):
                    peer = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                    self.assertIn(peer[0], creators())
                    self.assertEqual(peer[1:], (os.geteuid(), os.getegid()))


class Timeouts(unittest.TestCase):
    def test_each_receive_after_a_timeout_raises_again(self):
        with udp_pair() as (a, _):
            a.settimeout(0.1)
            for _ in range(2):
                with self.assertRaises(socket.timeout) as caught:
                    a.recv(1)
                self.assertEqual(str(caught.exception), "timed out")
                self.assertIsNone(caught.exception.errno)

    def test_shutdown_wakes_a_blocked_receive(self):
        with tcp_pair() as (a, _):
            timer = threading.Timer(0.2, a.shutdown, [socket.SHUT_RD])
            timer.start()
            self.assertEqual(a.recv(10), b"")
            timer.join()


if __name__ == "__main__":
    unittest.main()
