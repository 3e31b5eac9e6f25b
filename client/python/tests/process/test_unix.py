"""Paths of Unix sockets mean what they mean to the program, wherever the broker looks from."""

import unittest

from process.common import Broker, code, program

MODES = ("direct", "mediated")
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
        here.settimeout(20)
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


class Paths(unittest.TestCase):
    maxDiff = None

    def test_every_call_takes_paths_as_the_program_does(self):
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
