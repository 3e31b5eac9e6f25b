"""Wrong arguments raise the exceptions, with the texts, of CPython's own class and module."""

import socket
import unittest
from contextlib import closing

import _socket

NATIVE = getattr(_socket, "native_module", _socket)

WRONG_CALLS = [
    ("bind",), ("bind", 1), ("bind", "x"), ("bind", ("127.0.0.1",)), ("bind", ("127.0.0.1", "80")),
    ("bind", ("127.0.0.1", 65536)), ("bind", ("127.0.0.1", -1)), ("bind", (None, 0)), ("bind", ("a\0b", 0)),
    ("bind", ("127.0.0.1", 0, 0)), ("bind", ("\ud800", 0)), ("bind", ("127.0.0.1", 2**70)),
    ("connect",), ("connect", None), ("connect", ("127.0.0.1", 1.5)), ("connect", ("127.0.0.1", 1), 2),
    ("connect_ex", 5), ("connect_ex", ("127.0.0.1", 99999)),
    ("listen", "x"), ("listen", 2**40), ("listen", 1, 2),
    ("getsockopt", 1), ("getsockopt", "a", 2), ("getsockopt", 1, 2**40), ("getsockopt", 1, 2, "b"),
    ("getsockopt", 1, 2, -1), ("getsockopt", 1, 2, 2000), ("getsockopt", 1, 2, 2**31), ("getsockopt", 1, 2, 2**70),
    ("getsockopt", 2**70, 2), ("setsockopt", 1, 2, memoryview(bytes(16))[::2]), ("setsockopt", 1, 2, 2**70),
    ("shutdown", 2**70), ("listen", 2**70), ("send", b"x", 2**70), ("connect", ("127.0.0.1", 2**70)),
    ("recv_into", memoryview(bytearray(16))[::2]), ("send", memoryview(bytes(16))[::2]),
    ("sendmsg", [memoryview(bytes(16))[::2]]),
    ("setsockopt", 1), ("setsockopt", 1, 2, "text"), ("setsockopt", 1, 2, 2**31), ("setsockopt", 1, 2, None),
    ("setsockopt", 1, 2, None, "x"), ("setsockopt", 1, 2, 3, 4), ("setsockopt", 1, 2, 1.5),
    ("settimeout",), ("settimeout", -1), ("settimeout", "x"), ("settimeout", 1e300), ("setblocking", "x", 1),
    ("recv",), ("recv", "x"), ("recv", -1), ("recv", 1.5), ("recv", 1, "x"), ("recv", 1, 2**40), ("recv", 1, 0, 0),
    ("recv", 2**70), ("recvfrom", -1), ("recvfrom", None),
    ("recv_into",), ("recv_into", b"read-only"), ("recv_into", 5), ("recv_into", bytearray(2), 5),
    ("recv_into", bytearray(2), -1), ("recvfrom_into", bytearray(2), 3), ("recvfrom_into", b"x"),
    ("recvmsg", -1), ("recvmsg", 1, -1), ("recvmsg", "x"), ("recvmsg", 1, 2**70),
    ("recvmsg_into", 5), ("recvmsg_into", [b"x"]), ("recvmsg_into", [5]), ("recvmsg_into", [bytearray(1)], -1),
    ("send",), ("send", "text"), ("send", 5), ("send", b"x", "y"), ("sendall", "text"), ("sendall", b"x", 2**40),
    ("sendto", b"x"), ("sendto", b"x", 5), ("sendto", b"x", 0, 5), ("sendto", b"x", "y", ("127.0.0.1", 1)),
    ("sendto", "x", ("127.0.0.1", 1)), ("sendto", b"x", ("127.0.0.1", 70000)), ("sendto",),
    ("sendmsg",), ("sendmsg", 5), ("sendmsg", ["x"]), ("sendmsg", [b"x"], 5), ("sendmsg", [b"x"], [5]),
    ("sendmsg", [b"x"], [(1, 2)]), ("sendmsg", [b"x"], [(1, "2", b"")]), ("sendmsg", [b"x"], [(1, 2, "text")]),
    ("sendmsg", [b"x"], [], "y"), ("sendmsg", [b"x"], [], 0, 5),
    ("shutdown",), ("shutdown", "x"), ("shutdown", 2**40),
    ("getsockname", 1), ("getpeername", 1), ("fileno", 1), ("close", 1), ("detach", 1), ("gettimeout", 1),
]  # fmt: skip

WRONG_FUNCTIONS = [
    ("getaddrinfo",), ("getaddrinfo", 5, 80), ("getaddrinfo", "127.0.0.1", 1.5), ("getaddrinfo", b"127.0.0.1", []),
    ("getaddrinfo", "\ud800", 80), ("getaddrinfo", "127.0.0.1", 80, "x"), ("getaddrinfo", "a\0b", 80),
    ("getnameinfo", "x", 0), ("getnameinfo", ("127.0.0.1",), 0), ("getnameinfo", ("127.0.0.1", 80), "x"),
    ("getnameinfo", (1, 2), 0), ("getnameinfo", ("127.0.0.1", 80, 2**21), 0), ("getnameinfo",),
    ("gethostbyname",), ("gethostbyname", 5), ("gethostbyname", None), ("gethostbyname_ex", 5), ("gethostbyaddr", 5),
    ("getprotobyname", 5), ("getprotobyname", b"tcp"), ("getservbyname",), ("getservbyname", 5),
    ("getservbyname", "http", 5), ("getservbyport", "x"), ("getservbyport", -1), ("getservbyport", 65536),
    ("if_nametoindex", 5), ("if_indextoname", "x"), ("if_indextoname", -1), ("gethostname", 1),
    ("sethostname", 5), ("setdefaulttimeout", "x"), ("setdefaulttimeout", -1), ("inet_aton", 5), ("htons", 65536),
    ("socketpair", "x"), ("dup", "x"), ("close", "x"),
    ("getnameinfo", ("127.0.0.1", 2**31), 0), ("getnameinfo", (b"127.0.0.1", 80), 0), ("getnameinfo", (), 0),
    ("getnameinfo", ("127.0.0.1\0", 80), 0), ("gethostbyname", "a\0b"), ("gethostbyaddr", "a\0b"),
    ("getservbyname", "a\0b"), ("getprotobyname", "a\0b"), ("getaddrinfo", bytearray(b"127.0.0.1"), 80),
    ("if_nametoindex", "lo\0x"), ("if_nametoindex", b"\xff"), ("if_nametoindex", bytearray(b"lo")),
    ("if_indextoname", 2**31), ("if_indextoname", 2**63), ("if_indextoname", 2**70),
    ("getservbyport", 2**70), ("sethostname", bytearray(b"x")),
]  # fmt: skip

WRONG_CONSTRUCTIONS = [
    ("x",), (2, "x"), (2, 1, "x"), (2, 1, 0, "x"), (2, 1, 0, -5), (2, 1, 0, 1.5), (2, 1, 0, 999_999), (2**40,),
    (2, 1, 0, None, 5), (None,),
]  # fmt: skip


def outcome(call):
    """The type and the text of a call's exception, or `None` and no text."""
    try:
        call()
    except (Exception, SystemError) as error:
        return type(error), str(error)
    return None, ""


class WrongArguments(unittest.TestCase):
    def compare(self, name, ours, theirs):
        with self.subTest(call=name):
            expected, found = outcome(theirs), outcome(ours)
            self.assertEqual(found, expected)

    def test_methods_raise_the_exceptions_of_the_native_class(self):
        for name, *arguments in WRONG_CALLS:
            with socket.socket(type=socket.SOCK_DGRAM) as ours, closing(NATIVE.socket(2, 2)) as theirs:
                ours.settimeout(0)
                theirs.settimeout(0)
                with self.subTest(call=(name, *arguments)):
                    expected = outcome(lambda: getattr(theirs, name)(*arguments))
                    found = outcome(lambda: getattr(super(socket.socket, ours), name)(*arguments))
                    self.assertEqual(found, expected)

    def test_functions_raise_the_exceptions_of_the_native_module(self):
        for name, *arguments in WRONG_FUNCTIONS:
            self.compare(
                (name, *arguments),
                lambda: getattr(_socket, name)(*arguments),
                lambda: getattr(NATIVE, name)(*arguments),
            )

    def test_constructors_raise_the_exceptions_of_the_native_class(self):
        for arguments in WRONG_CONSTRUCTIONS:
            self.compare(arguments, lambda: _socket.socket(*arguments), lambda: NATIVE.socket(*arguments))

    def test_calls_on_a_closed_socket_raise_ebadf(self):
        for name, *arguments in [("recv", 1), ("send", b"x"), ("getsockname",), ("listen",), ("accept",),
                                 ("settimeout", 1), ("shutdown", 0), ("bind", ("127.0.0.1", 0))]:  # fmt: skip
            sock = socket.socket()
            sock.close()
            with self.subTest(call=name), self.assertRaises(OSError) as caught:
                getattr(sock, name)(*arguments)
            self.assertEqual(caught.exception.errno, 9)

    def test_a_failed_look_up_has_the_text_of_the_resolver(self):
        self.compare(
            "numeric host",
            lambda: socket.getaddrinfo("no number", 80, flags=socket.AI_NUMERICHOST),
            lambda: NATIVE.getaddrinfo("no number", 80, flags=socket.AI_NUMERICHOST),
        )
        for name, argument in (("getservbyname", "no such service"), ("getprotobyname", "no such protocol"),
                               ("if_nametoindex", "no such interface")):  # fmt: skip
            self.compare(name, lambda: getattr(socket, name)(argument), lambda: getattr(NATIVE, name)(argument))


if __name__ == "__main__":
    unittest.main()
