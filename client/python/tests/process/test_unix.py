"""Paths of Unix sockets have the meaning that they have for the program, also if the broker has another root or folder."""

import array
import os
import socket
import tempfile
import unittest

from process.common import Broker, code, program
from sockbroker.encoding import RequestParts
from sockbroker.unix_paths import encode_existing, encode_new

MODES = ("direct", "mediated", "remote")
PATHS = """
import os, socket, tempfile
def outcome(call):
    try:
        return call()
    except OSError as error:
        return type(error).__name__, error.errno
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        here.bind("here")
        here.settimeout(120)
        print(here.getsockname(), os.listdir("."))
        os.symlink("here", "link")
        there.sendto(b"1", "here")
        there.sendto(b"2", 0, "./here")
        there.sendmsg([b"3"], [], 0, "link")
        there.sendto(b"4", "/proc/self/cwd/here")
        there.connect("here")
        there.send(b"5")
        print(*[here.recv(5) for _ in range(5)])
        print(outcome(lambda: there.sendto(b"", "nowhere")), outcome(lambda: there.connect("here/further")))
        print(outcome(lambda: there.connect("x" * 200)), there.connect_ex("nowhere"))
        print(outcome(lambda: there.bind("here")), outcome(lambda: there.bind("no/folder")))
        print(outcome(lambda: there.bind("..")), outcome(lambda: there.bind("new/")))
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        name = os.fsdecode(b"\\xff stream")
        server.bind(name)
        server.listen()
        client.connect(name)
        accepted, _ = server.accept()
        accepted.close()
        print(os.fsencode(server.getsockname()), os.fsencode(client.getpeername()), socket.SOCK_STREAM == client.type)
    os.chdir("/")
"""


class Encoding(unittest.TestCase):
    def setUp(self):
        self.folder = os.fsencode(self.enterContext(tempfile.TemporaryDirectory()))

    def encoded(self, encode, address):
        """The JSON form, and the paths of the files whose descriptors the request carries."""
        with RequestParts() as parts:
            value = encode(address, parts)
            files = [os.readlink(f"/proc/self/fd/{number}").encode() for number in parts.descriptors]
            numbers = list(parts.descriptors)
        for number in numbers:
            with self.assertRaises(OSError):
                os.fstat(number)
        return value, files

    def number(self, encode, address):
        with self.assertRaises(OSError) as caught:
            self.encoded(encode, address)
        self.assertIsNone(caught.exception.filename)
        return caught.exception.errno

    def test_an_existing_socket_is_encoded_as_the_descriptor_of_its_file(self):
        path = self.folder + b"/there"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        os.symlink("there", self.folder + b"/link")
        expected = ({"descriptor": 0}, [path])
        for address in (path, os.fsdecode(path), self.folder + b"/link", array.array("B", path), path + b"\0rest"):
            self.assertEqual(self.encoded(encode_existing, address), expected)
        with RequestParts() as parts:
            parts.descriptors.append(0)
            self.assertEqual(encode_existing(path, parts), {"descriptor": 1})

    def test_a_new_socket_is_encoded_as_a_folder_and_a_name(self):
        path = self.folder + b"/new"
        text = os.fsdecode(path)
        self.assertEqual(
            self.encoded(encode_new, text), ({"descriptor": 0, "name": "new", "path": text}, [self.folder])
        )
        here = os.fsencode(os.getcwd())
        expected = {"descriptor": 0, "name": "relative", "path": "relative"}
        self.assertEqual(self.encoded(encode_new, "relative"), (expected, [here]))
        expected = {"descriptor": 0, "name": {"base64": "/w=="}, "path": {"base64": "Li//"}}
        self.assertEqual(self.encoded(encode_new, b"./\xff"), (expected, [here]))

    def test_abstract_names_are_encoded_as_text_or_bytes(self):
        for encode in (encode_existing, encode_new):
            self.assertEqual(self.encoded(encode, ""), ("", []))
            self.assertEqual(self.encoded(encode, "\0abstract"), ("\0abstract", []))
            self.assertEqual(self.encoded(encode, b"\0\xff"), ({"base64": "AP8="}, []))

    def test_wrong_paths_raise_the_error_of_the_native_call(self):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(self.folder + b"/there")
        os.mkdir(self.folder + b"/folder")
        for native, encode, names in (
            ("connect", encode_existing, ("nowhere", "no/folder", "there/further", "there/", "x" * 200)),
            ("bind", encode_new, ("no/folder", "there/further", "new/", "there/", "folder/", "", "..", "x" * 200)),
        ):
            for name in names:
                path = self.folder + b"/" + os.fsencode(name)
                with self.subTest(call=native, name=name), socket.socket(socket.AF_UNIX) as fresh:
                    with self.assertRaises(OSError) as expected:
                        getattr(fresh, native)(path)
                    self.assertEqual(self.number(encode, path), expected.exception.errno)


class Paths(unittest.TestCase):
    maxDiff = None

    def test_every_call_opens_paths_like_the_native_call(self):
        broker = Broker()
        self.addCleanup(broker.stop)
        native = program(None, *code(PATHS), mode="direct")
        self.assertEqual((native.returncode, native.stderr), (0, ""))
        self.assertTrue(native.stdout.startswith("here ['here']\nb'1' b'2' b'3' b'4' b'5'\n"), native.stdout)
        for mode in MODES:
            with self.subTest(mode=mode):
                done = program(broker.path, *code(PATHS), mode=mode)
                self.assertEqual((done.stdout, done.stderr), (native.stdout, ""))


if __name__ == "__main__":
    unittest.main()
