"""Descriptors of sockets: duplicated, detached, adopted, inherited."""

import os
import tempfile

from oracle.common import pair, tcp_pair, udp
from oracle.scenario import scenario


@scenario
def dup_shares_the_socket(s, t):
    """A duplicate is the same socket under another name and outlives the first."""
    left, right = pair(s, t)
    copy = t.keep(left.dup())
    t.note("copy", copy)
    left.close()
    t.note("sent", copy.send(b"by the copy"))
    t.note("data", right.recv(20))
    copy.close()
    t.note("end", right.recv(20))


@scenario
def dup_takes_the_timeout(s, t):
    """A duplicate has the timeout of the original, and its own from then on."""
    for timeout in (None, 0, 2.5):
        sock = t.socket(s.AF_INET, s.SOCK_DGRAM)
        sock.settimeout(timeout)
        copy = t.keep(sock.dup())
        t.note("copy", copy.gettimeout())
        copy.settimeout(9)
        t.note("original", sock.gettimeout())


@scenario
def dup_shares_options_and_name(s, t):
    """Options and names belong to the socket, not to the duplicate."""
    sock = udp(s, t)
    copy = t.keep(sock.dup())
    copy.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)
    t.note("option", sock.getsockopt(s.SOL_SOCKET, s.SO_REUSEADDR))
    t.note("same name", sock.getsockname() == copy.getsockname())


@scenario(descriptors=True)
def detach_gives_the_descriptor(s, t):
    """The detached descriptor is the living socket; the object is closed."""
    left, right = pair(s, t)
    number = left.detach()
    try:
        t.note("fileno", left.fileno())
        t.call("recv", left.recv, 1)
        t.note("written", os.write(number, b"raw"))
        t.note("data", right.recv(10))
    finally:
        os.close(number)
    t.note("end", right.recv(10))


@scenario(descriptors=True)
def fileno_is_the_socket(s, t):
    """The file number can be used by other system calls, and is -1 after the end."""
    left, right = pair(s, t)
    os.write(left.fileno(), b"direct")
    t.note("data", right.recv(10))
    right.send(b"back")
    t.note("read", os.read(left.fileno(), 10))
    left.close()
    t.note("fileno", left.fileno())
    t.note("end", right.recv(1))


@scenario(descriptors=True)
def fromfd_duplicates(s, t):
    """`fromfd` makes a second object for the descriptor, which stays open."""
    left, right = pair(s, t)
    copy = t.keep(s.fromfd(left.fileno(), s.AF_UNIX, s.SOCK_STREAM))
    t.note("copy", copy)
    left.close()
    t.note("sent", copy.send(b"still there"))
    t.note("data", right.recv(20))


@scenario(descriptors=True)
def fileno_argument_detects_the_kind(s, t):
    """`fileno=` finds out family, type and protocol, and a given one overrides what is found."""
    for args in ((s.AF_INET, s.SOCK_DGRAM), (s.AF_INET6, s.SOCK_STREAM), (s.AF_UNIX, s.SOCK_SEQPACKET)):
        number = s.socket(*args).detach()
        t.note("found", t.socket(fileno=number))
    number = s.socket(s.AF_INET, s.SOCK_STREAM).detach()
    t.note("given", t.socket(s.AF_INET6, s.SOCK_DGRAM, 17, fileno=number))


@scenario(descriptors=True)
def adopt_what_is_no_socket(s, t):
    """A file is refused with ENOTSOCK, a closed number with EBADF, a negative one with ValueError."""
    with tempfile.TemporaryFile() as file:
        t.call("file", s.socket, fileno=file.fileno())
    t.call("closed", s.socket, fileno=4095)
    t.call("closed", s.fromfd, 4095, s.AF_INET, s.SOCK_STREAM)
    t.call("negative", s.socket, fileno=-1)


@scenario(descriptors=True)
def adopt_a_connected_socket(s, t):
    """An adopted connection goes on where it was, names included."""
    client, server = tcp_pair(s, t)
    client.send(b"before")
    adopted = t.socket(fileno=server.detach())
    t.note("peer", adopted.getpeername() == client.getsockname())
    t.note("data", adopted.recv(10))


@scenario
def inheritable(s, t):
    """A socket is not inheritable by default."""
    sock = t.socket()
    for wanted in (True, False):
        sock.set_inheritable(wanted)
        t.note("inheritable", sock.get_inheritable())
    sock.set_inheritable(True)
    t.note("copy", t.keep(sock.dup()).get_inheritable())
