"""AF_UNIX names: paths, abstract ones, none, and those that cannot be."""

import os
import stat

from oracle.common import unix_bound as bound, unix_served as served
from oracle.scenario import scenario


@scenario
def path(s, t):
    """A path names a socket and is the peer's name; the client has none."""
    waiting = served(s, t, t.path("sock"))
    t.note("is a socket", stat.S_ISSOCK(os.stat(t.path("sock")).st_mode))
    client = t.socket(s.AF_UNIX, s.SOCK_STREAM)
    client.connect(t.path("sock"))
    server, address = waiting.accept()
    t.note("address", address)
    t.note("own", client.getsockname())
    t.note("peer", client.getpeername() == t.path("sock"))
    t.note("server", t.keep(server).getsockname() == t.path("sock"))
    client.send(b"data")
    t.note("data", server.recvfrom(10))


@scenario
def path_as_bytes(s, t):
    """A path can be bytes, and is reported as text."""
    sock = bound(s, t, os.fsencode(t.path("bytes")))
    t.note("name", os.path.basename(sock.getsockname()))


@scenario
def path_that_is_not_utf8(s, t):
    """A path that is not UTF-8 is reported with surrogates, which can be used as an address."""
    name = t.path("\udcff\udc80x")
    sock = bound(s, t, os.fsencode(t.path("")) + b"\xff\x80x")
    t.note("name", ascii(os.path.basename(sock.getsockname())))
    t.note("same", sock.getsockname() == name)
    t.note("sent", t.socket(s.AF_UNIX, s.SOCK_DGRAM).sendto(b"here", name))
    t.note("got", sock.recv(10))


@scenario
def path_with_letters(s, t):
    """A path may hold any letters."""
    sock = bound(s, t, t.path("sœket-ß-日本"))
    t.note("name", os.path.basename(sock.getsockname()))
    t.note("there", os.listdir(t.folder))


@scenario
def path_lengths(s, t):
    """107 bytes are the most for a path; longer ones and NULs are refused before the kernel."""
    limit = 107 - len(t.path(""))
    for length in (limit - 1, limit, limit + 1, 200):
        sock = t.socket(s.AF_UNIX, s.SOCK_STREAM)
        t.call(f"bind {length - limit}", sock.bind, t.path("x" * length))
        t.note("name", len(sock.getsockname()) - len(t.path("")) - limit if sock.getsockname() else "none")
    t.call("connect", t.socket(s.AF_UNIX).connect, t.path("y" * 200))


@scenario
def path_errors(s, t):
    """A path in use, a missing folder, a missing socket and a plain file each have their errno."""
    served(s, t, t.path("taken"))
    t.call("taken", t.socket(s.AF_UNIX).bind, t.path("taken"))
    t.call("no folder", t.socket(s.AF_UNIX).bind, t.path("no/where"))
    t.call("no socket", t.socket(s.AF_UNIX).connect, t.path("nobody"))
    with open(t.path("file"), "wb"):
        pass
    t.call("file", t.socket(s.AF_UNIX).connect, t.path("file"))
    bound(s, t, t.path("datagrams"))
    t.call("wrong type", t.socket(s.AF_UNIX).connect, t.path("datagrams"))
    t.call("sendto", t.socket(s.AF_UNIX, s.SOCK_DGRAM).sendto, b"x", t.path("nobody"))


@scenario
def left_over_path(s, t):
    """The file stays after the end and refuses connections."""
    served(s, t, t.path("old")).close()
    t.call("connect", t.socket(s.AF_UNIX).connect, t.path("old"))
    t.call("connect_ex", t.socket(s.AF_UNIX).connect_ex, t.path("old"))
    t.call("bind", t.socket(s.AF_UNIX).bind, t.path("old"))
    os.unlink(t.path("old"))
    t.call("bind again", t.socket(s.AF_UNIX).bind, t.path("old"))


@scenario
def file_mode(s, t):
    """The mode of a new socket file follows the mask of the process, which both sides share."""
    served(s, t, t.path("mode"))
    t.note("kind", stat.filemode(os.stat(t.path("mode")).st_mode))
    t.note("owner", os.stat(t.path("mode")).st_uid == os.geteuid())


@scenario
def abstract(s, t):
    """A name that begins with NUL is outside of the file system and is reported as bytes."""
    name = t.abstract("stream")
    waiting = served(s, t, name)
    t.note("name", waiting.getsockname() == name)
    client = t.socket(s.AF_UNIX)
    client.connect(name)
    t.note("peer", client.getpeername() == name)
    waiting.close()
    t.call("gone", t.socket(s.AF_UNIX).connect, name)


@scenario
def abstract_as_text(s, t):
    """An abstract name can be text; it is returned as bytes."""
    name = t.abstract("text")
    t.note("name", bound(s, t, name.decode()).getsockname() == name)


@scenario
def abstract_of_any_bytes(s, t):
    """Abstract names may hold NULs and bytes that are not text."""
    name = t.abstract("x\0y") + b"\0\xff\xfe\0"
    sock = bound(s, t, name)
    t.note("name", sock.getsockname() == name)
    t.note("sent", t.socket(s.AF_UNIX, s.SOCK_DGRAM).sendto(b"here", name))
    t.note("got", sock.recv(10))
    t.call("shorter", t.socket(s.AF_UNIX, s.SOCK_DGRAM).sendto, b"x", name[:-1])


@scenario
def abstract_lengths(s, t):
    """An abstract name has at most 108 bytes with its NUL."""
    for length in (107, 108, 109):
        name = t.abstract("long").ljust(length, b"n")
        sock = t.socket(s.AF_UNIX, s.SOCK_DGRAM)
        t.call(f"bind {length}", sock.bind, name)
        t.note("length", len(sock.getsockname()))


@scenario
def autobind(s, t):
    """Binding to the empty name gives an abstract name of five hexadecimal digits."""
    sock = t.socket(s.AF_UNIX, s.SOCK_DGRAM)
    t.note("before", sock.getsockname())
    t.call("bind", sock.bind, "")
    name = sock.getsockname()
    t.note("name", (type(name).__name__, len(name), name[:1]))
    t.note("digits", all(byte in b"0123456789abcdef" for byte in name[1:]))
    t.call("again", sock.bind, "")
    t.note("unchanged", sock.getsockname() == name)


@scenario
def address_of_another_kind(s, t):
    """A tuple is not an AF_UNIX address, and a path is not an AF_INET address."""
    t.call("tuple", t.socket(s.AF_UNIX).bind, ("127.0.0.1", 0))
    t.call("none", t.socket(s.AF_UNIX).bind, None)
    t.call("number", t.socket(s.AF_UNIX).bind, 5)
    t.call("path", t.socket(s.AF_INET).bind, t.path("x"))


@scenario
def a_null_inside_a_path(s, t):
    """A path with a NUL inside."""
    sock = t.socket(s.AF_UNIX)
    t.call("bind", sock.bind, t.path("a\0b"))
    t.note("files", os.listdir(t.folder))
