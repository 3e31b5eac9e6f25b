"""AF_BLUETOOTH: addresses without a controller, and connections between two emulated controllers."""

import fcntl
import socket
import struct
import time

from oracle.scenario import scenario
from steps import nothing_yet

ANY = "00:00:00:00:00:00"
HCIGETDEVINFO = 0x800448D3


def controllers():
    """Returns the addresses of the emulated controllers, from `struct hci_dev_info`."""
    with socket.socket(socket.AF_BLUETOOTH, socket.SOCK_RAW, socket.BTPROTO_HCI) as sock:
        asked = (struct.pack("H90x", number) for number in range(2))
        found = [fcntl.ioctl(sock, HCIGETDEVINFO, info)[10:16] for info in asked]
    return [":".join(f"{byte:02X}" for byte in reversed(address)) for address in found]


HERE, THERE = controllers()


@scenario
def kinds(s, t):
    """Types and protocols of the family."""
    for kind, proto in ((s.SOCK_SEQPACKET, s.BTPROTO_L2CAP), (s.SOCK_STREAM, s.BTPROTO_L2CAP),
                        (s.SOCK_DGRAM, s.BTPROTO_L2CAP), (s.SOCK_STREAM, s.BTPROTO_RFCOMM),
                        (s.SOCK_SEQPACKET, s.BTPROTO_SCO), (s.SOCK_RAW, s.BTPROTO_HCI)):
        sock = t.socket(s.AF_BLUETOOTH, kind, proto)
        t.note(f"made {int(kind)} {proto}", sock)
        t.call("domain", sock.getsockopt, s.SOL_SOCKET, s.SO_DOMAIN)
        t.call("name", sock.getsockname)
        t.call("peer", sock.getpeername)
    for kind, proto in ((s.SOCK_DGRAM, s.BTPROTO_RFCOMM), (s.SOCK_STREAM, s.BTPROTO_HCI), (s.SOCK_STREAM, 99)):
        t.call(f"no {int(kind)} {proto}", t.socket, s.AF_BLUETOOTH, kind, proto)


@scenario
def l2cap_names(s, t):
    """An address is a device and a channel number."""
    sock = t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_L2CAP)
    t.call("bind", sock.bind, (HERE, 0x1003))
    t.call("name", sock.getsockname)
    t.call("listen", sock.listen, 1)
    t.call("taken", t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_L2CAP).bind, (HERE, 0x1003))
    for address in ((ANY, 0x1005), (HERE.lower(), 0), (ANY, 2), (HERE,), (HERE, "1"), ("00:11:22", 1),
                    ("no device", 1), (5, 1), HERE, (HERE, None)):
        other = t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_L2CAP)
        t.call(f"bind {address!r}", other.bind, address)
        t.call("name", other.getsockname)


@scenario
def rfcomm_names(s, t):
    """An address is a device and a channel."""
    sock = t.socket(s.AF_BLUETOOTH, s.SOCK_STREAM, s.BTPROTO_RFCOMM)
    t.call("bind", sock.bind, (HERE, 7))
    t.call("name", sock.getsockname)
    t.call("listen", sock.listen, 1)
    t.call("taken", t.socket(s.AF_BLUETOOTH, s.SOCK_STREAM, s.BTPROTO_RFCOMM).bind, (HERE, 7))
    for address in ((ANY, 0), (HERE, 31), (HERE,), (HERE, "1"), ("00:11:22", 1), (b"x", 1), HERE):
        other = t.socket(s.AF_BLUETOOTH, s.SOCK_STREAM, s.BTPROTO_RFCOMM)
        t.call(f"bind {address!r}", other.bind, address)
    other.bind((ANY, 0))
    t.call("listen on any", other.listen)
    t.call("chosen", other.getsockname)


@scenario
def sco_names(s, t):
    """An address is a device alone, as bytes."""
    for address in (HERE.encode(), ANY.encode(), (HERE.encode(),), b"00:11", 5):
        sock = t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_SCO)
        t.call(f"bind {address!r}", sock.bind, address)
        t.call("name", sock.getsockname)


@scenario
def hci_names(s, t):
    """An address is the number of a controller."""
    sock = t.socket(s.AF_BLUETOOTH, s.SOCK_RAW, s.BTPROTO_HCI)
    t.call("before", sock.getsockname)
    t.call("bind", sock.bind, (1,))
    t.call("name", sock.getsockname)
    t.call("again", sock.bind, (0,))
    for address in ((0xFFFF,), (77,), ("0",), (), "0"):
        other = t.socket(s.AF_BLUETOOTH, s.SOCK_RAW, s.BTPROTO_HCI)
        t.call(f"bind {address!r}", other.bind, address)


@scenario
def hci_events(s, t):
    """A command to the controller returns an event."""
    sock = t.socket(s.AF_BLUETOOTH, s.SOCK_RAW, s.BTPROTO_HCI)
    sock.settimeout(120)
    sock.bind((0,))
    completed = struct.pack("IIIH2x", 1 << 4, 1 << 14, 0, 0)
    t.call("filter", sock.setsockopt, s.SOL_HCI, s.HCI_FILTER, completed)
    t.call("direction", sock.setsockopt, s.SOL_HCI, s.HCI_DATA_DIR, 1)
    t.call("time", sock.getsockopt, s.SOL_HCI, s.HCI_TIME_STAMP)
    t.call("read direction", sock.getsockopt, s.SOL_HCI, s.HCI_DATA_DIR)
    t.call("read filter", sock.getsockopt, s.SOL_HCI, s.HCI_FILTER, 16)
    t.call("read address", sock.send, struct.pack("<BHB", 1, 0x1009, 0))
    t.call("event", sock.recvmsg, 260, 64)
    t.call("malformed", sock.send, b"\1")


def exchange(s, t, server, client, address):
    """Opens a connection, and records both addresses, data in both directions, and the end."""
    server.settimeout(120)
    client.settimeout(120)
    connecting = t.start(client.connect, address)
    session, peer = server.accept()
    t.keep(session)
    session.settimeout(120)
    t.finish("connect", connecting)
    t.note("accepted", (session, peer, "session"))
    for end in (client, session):
        t.call("name", end.getsockname)
        t.call("peer", end.getpeername)
    t.call("send", client.send, b"question")
    t.call("recvfrom", session.recvfrom, 100)
    t.call("sendmsg", session.sendmsg, [b"ans", b"wer"])
    t.call("recvmsg", client.recvmsg, 100, 100)
    nothing_yet(t, "nothing yet", client)
    t.call("shutdown", client.shutdown, s.SHUT_RDWR)
    t.call("end", session.recv, 10)


@scenario
def l2cap_connections(s, t):
    """Packets and streams between the two controllers."""
    for kind, channel in ((s.SOCK_SEQPACKET, 0x1021), (s.SOCK_STREAM, 0x1023)):
        server, client = (t.socket(s.AF_BLUETOOTH, kind, s.BTPROTO_L2CAP) for _ in range(2))
        server.bind((THERE, channel))
        server.listen(1)
        client.bind((HERE, 0))
        exchange(s, t, server, client, (THERE, channel))
        client.close(), server.close()
        time.sleep(0.2)


@scenario
def rfcomm_connections(s, t):
    """A serial line between the two controllers."""
    server, client = (t.socket(s.AF_BLUETOOTH, s.SOCK_STREAM, s.BTPROTO_RFCOMM) for _ in range(2))
    server.bind((THERE, 9))
    server.listen(1)
    client.bind((HERE, 0))
    exchange(s, t, server, client, (THERE, 9))


@scenario
def refusals(s, t):
    """Connecting to an unserved channel or a missing device fails."""
    client = t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_L2CAP)
    client.settimeout(120)
    client.bind((HERE, 0))
    t.call("no receiver", client.connect, (THERE, 0x1031))
    idle = t.socket(s.AF_BLUETOOTH, s.SOCK_STREAM, s.BTPROTO_RFCOMM)
    t.call("send", idle.send, b"x")
    nothing_yet(t, "recv", idle)


@scenario
def options(s, t):
    """Options of Bluetooth: BT_SECURITY and related ones, and those of the protocols."""
    sock = t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_L2CAP)
    security, deferred, flushable, power = 4, 7, 8, 9
    t.call("security", sock.getsockopt, 274, security, 3)
    t.call("set", sock.setsockopt, 274, security, struct.pack("BBx", 2, 0))
    t.call("read", sock.getsockopt, 274, security, 3)
    t.call("deferred", sock.setsockopt, 274, deferred, 1)
    t.call("flushable", sock.getsockopt, 274, flushable)
    t.call("power", sock.getsockopt, 274, power, 1)
    t.call("L2CAP", sock.getsockopt, 6, 1, 12)
    t.call("link mode", sock.getsockopt, 6, 3)
    line = t.socket(s.AF_BLUETOOTH, s.SOCK_STREAM, s.BTPROTO_RFCOMM)
    t.call("RFCOMM", line.getsockopt, 18, 3)
    voice = t.socket(s.AF_BLUETOOTH, s.SOCK_SEQPACKET, s.BTPROTO_SCO)
    t.call("voice", voice.getsockopt, 274, 11, 2)
