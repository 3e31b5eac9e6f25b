"""SCM_RIGHTS: descriptors to and from the peer, truncation, refusals."""

import array
import contextlib
import os
import tempfile

from oracle.common import pair, tcp_pair, udp_pair
from oracle.scenario import scenario

INT = array.array("i").itemsize


def numbers_of(control):
    """The descriptors of the items, and whether each item was SCM_RIGHTS, with odd bytes left over."""
    found, kinds = array.array("i"), []
    for level, kind, data in control:
        whole = len(data) - len(data) % INT
        found.frombytes(data[:whole])
        kinds.append((level, kind, len(data)))
    return found, kinds


@contextlib.contextmanager
def received(control):
    """The descriptors of a message, closed at the end."""
    found, kinds = numbers_of(control)
    try:
        yield found, kinds
    finally:
        for number in found:
            os.close(number)


@contextlib.contextmanager
def files(count):
    """Temporary files that hold their own number."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        for index, file in enumerate(made):
            file.write(b"file %d" % index)
            file.flush()
        yield array.array("i", [file.fileno() for file in made])


def contents(found):
    """What is in the files behind the descriptors."""
    return [os.pread(number, 100, 0) for number in found]


@scenario(descriptors=True)
def one_descriptor(s, t):
    """A descriptor arrives as another number for the same file."""
    left, right = pair(s, t)
    with files(1) as sent:
        t.note("sent", left.sendmsg([b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)]))
    data, control, flags, address = right.recvmsg(10, s.CMSG_LEN(INT))
    with received(control) as (found, kinds):
        t.note("message", (data, kinds, flags, address))
        t.note("contents", contents(found))


@scenario(descriptors=True)
def many_descriptors(s, t):
    """253 descriptors are the most; one more is EINVAL."""
    left, right = pair(s, t)
    with files(1) as sent:
        t.call("253", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent * 253)])
    data, control, flags, _ = right.recvmsg(10, s.CMSG_SPACE(253 * INT))
    with received(control) as (found, kinds):
        t.note("message", (data, kinds, flags, len(found)))


@scenario(descriptors=True)
def several_items(s, t):
    """Descriptors of several items are joined into one by the kernel."""
    left, right = pair(s, t, s.SOCK_DGRAM)
    with files(3) as sent:
        items = [(s.SOL_SOCKET, s.SCM_RIGHTS, sent[:1]), (s.SOL_SOCKET, s.SCM_RIGHTS, sent[1:])]
        t.call("sent", left.sendmsg, [b"x"], items)
    _, control, flags, _ = right.recvmsg(10, s.CMSG_SPACE(3 * INT))
    with received(control) as (found, kinds):
        t.note("message", (kinds, flags))
        t.note("contents", contents(found))


@scenario(descriptors=True)
def space_for_fewer(s, t):
    """Descriptors that do not fit are closed, with MSG_CTRUNC."""
    for size in (0, 1, s.CMSG_LEN(0) - 1, s.CMSG_LEN(0), s.CMSG_LEN(INT) - 1, s.CMSG_LEN(INT), s.CMSG_LEN(INT) + 1,
                 s.CMSG_LEN(2 * INT) - 1, s.CMSG_LEN(2 * INT), s.CMSG_SPACE(2 * INT)):
        left, right = pair(s, t)
        with files(2) as sent:
            left.sendmsg([b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
        data, control, flags, _ = right.recvmsg(10, size)
        with received(control) as (found, kinds):
            t.note(f"size {size}", (data, kinds, flags))
            t.note("contents", contents(found))


@scenario(descriptors=True)
def plain_receive_drops_them(s, t):
    """`recv` closes received descriptors."""
    left, right = pair(s, t)
    with files(1) as sent:
        left.sendmsg([b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
    t.note("data", right.recv(10))
    left.send(b"y")
    t.note("next", right.recvmsg(10, 100))


@scenario(descriptors=True)
def descriptors_divide_a_stream(s, t):
    """A receive does not go beyond the bytes that descriptors belong to."""
    left, right = pair(s, t)
    left.send(b"before")
    with files(1) as sent:
        left.sendmsg([b"with"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
    left.send(b"after")
    for _ in range(3):
        data, control, flags, _ = right.recvmsg(100, s.CMSG_SPACE(INT))
        with received(control) as (found, kinds):
            t.note("message", (data, kinds, flags, contents(found)))
        if data.endswith(b"after"):
            break


@scenario(descriptors=True)
def close_on_exec(s, t):
    """Received descriptors are inheritable, unless MSG_CMSG_CLOEXEC is set."""
    left, right = pair(s, t)
    for flags in (0, s.MSG_CMSG_CLOEXEC):
        with files(1) as sent:
            left.sendmsg([b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
        _, control, got, _ = right.recvmsg(10, s.CMSG_SPACE(INT), flags)
        with received(control) as (found, _):
            t.note("inheritable", (os.get_inheritable(found[0]), got))


@scenario(descriptors=True)
def peeking_at_descriptors(s, t):
    """MSG_PEEK duplicates descriptors; they come again."""
    left, right = pair(s, t)
    with files(1) as sent:
        left.sendmsg([b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
    for flags in (s.MSG_PEEK, 0):
        data, control, got, _ = right.recvmsg(10, s.CMSG_SPACE(INT), flags)
        with received(control) as (found, kinds):
            t.note("message", (data, kinds, got, contents(found)))


@scenario(descriptors=True)
def into_buffers(s, t):
    """`recvmsg_into` receives descriptors too."""
    left, right = pair(s, t)
    with files(2) as sent:
        left.sendmsg([b"abc", b"def"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
    parts = [bytearray(2), bytearray(10)]
    n, control, flags, _ = right.recvmsg_into(parts, s.CMSG_SPACE(2 * INT))
    with received(control) as (found, kinds):
        t.note("message", (n, [bytes(part) for part in parts], kinds, flags, contents(found)))


@scenario(descriptors=True)
def sockets_travel(s, t):
    """A socket sent over a socket lives on at the other end."""
    left, right = pair(s, t)
    one, two = pair(s, t)
    left.sendmsg([b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, array.array("i", [one.fileno()]))])
    one.close()
    _, control, _, _ = right.recvmsg(10, s.CMSG_SPACE(INT))
    found, _ = numbers_of(control)
    arrived = t.socket(fileno=found[0])
    t.note("kind", arrived)
    two.send(b"still here")
    t.note("data", arrived.recv(20))


@scenario(descriptors=True)
def send_fds_and_recv_fds(s, t):
    """The two functions of the module that wrap all this."""
    left, right = pair(s, t)
    with files(3) as sent:
        t.note("sent", s.send_fds(left, [b"with ", b"files"], list(sent)))
    data, found, flags, address = s.recv_fds(right, 100, 5)
    t.note("message", (data, len(found), flags, address))
    t.note("contents", contents(found))
    for number in found:
        os.close(number)


@scenario(descriptors=True)
def bad_numbers(s, t):
    """An invalid descriptor number returns EBADF; odd bytes are refused or truncated."""
    left, right = pair(s, t)
    t.call("closed", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, array.array("i", [4095]))])
    t.call("negative", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, array.array("i", [-1]))])
    with files(1) as sent:
        t.call("odd", left.sendmsg, [b"y"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent.tobytes() + b"\1\2")])
    data, control, flags, _ = right.recvmsg(10, 100, s.MSG_DONTWAIT)
    with received(control) as (found, kinds):
        t.note("message", (data, kinds, flags, len(found)))


@scenario(descriptors=True)
def no_descriptors_at_all(s, t):
    """An empty item sends nothing but the data."""
    left, right = pair(s, t)
    t.call("empty", left.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, b"")])
    t.note("message", right.recvmsg(10, 100))


@scenario(descriptors=True)
def without_data(s, t):
    """In a stream, descriptors need at least one byte of data; an empty datagram can carry them."""
    left, right = pair(s, t)
    with files(1) as sent:
        t.call("stream", left.sendmsg, [], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
    t.call("nothing", right.recvmsg, 10, 100, s.MSG_DONTWAIT)
    one, two = pair(s, t, s.SOCK_DGRAM)
    with files(1) as sent:
        t.call("datagram", one.sendmsg, [], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
    data, control, flags, _ = two.recvmsg(10, 100)
    with received(control) as (found, kinds):
        t.note("message", (data, kinds, flags, contents(found)))


@scenario(descriptors=True)
def elsewhere(s, t):
    """Other families ignore descriptors."""
    with files(1) as sent:
        here, there = udp_pair(s, t)
        t.call("datagram", here.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
        t.call("message", there.recvmsg, 10, 100, s.MSG_DONTWAIT)
        client, _ = tcp_pair(s, t)
        t.call("stream", client.sendmsg, [b"x"], [(s.SOL_SOCKET, s.SCM_RIGHTS, sent)])
