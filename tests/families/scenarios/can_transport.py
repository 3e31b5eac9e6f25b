"""AF_CAN: ISO-TP with long messages, and J1939 with names, groups and numbers as addresses."""

import struct
import time

from oracle.scenario import scenario

BUS = "vcan0"
WIDE = 0xF123456789ABCDEF
NO_NAME, NO_PGN, NO_ADDR = 0, 0x40000, 0xFF
PGN = 0x0AA00


def isotp(s, t, receive, send):
    """Returns a bound ISO-TP socket."""
    made = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_ISOTP)
    made.bind((BUS, receive, send))
    made.settimeout(120)
    return made


@scenario
def isotp_names(s, t):
    """An address is an interface and two frame IDs."""
    sock = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_ISOTP)
    t.call("before", sock.getsockname)
    t.call("bind", sock.bind, (BUS, 0x123, 0x80000456))
    t.call("after", sock.getsockname)
    t.call("peer", sock.getpeername)
    t.call("again", sock.bind, (BUS, 1, 2))
    for address in (("vcan77", 1, 2), (BUS,), (BUS, 1), (BUS, 1, 2, 3), (BUS, "1", 2), (1, 1, 2), (BUS, 1 << 32, 2),
                    (BUS, -1, 2), (BUS, 5, 5), ("", 1, 2)):
        t.call(f"bind {address!r}", t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_ISOTP).bind, address)


@scenario
def isotp_messages(s, t):
    """A message longer than a frame arrives complete."""
    here, there = isotp(s, t, 0x601, 0x602), isotp(s, t, 0x602, 0x601)
    for data in (b"short", bytes(range(200)), bytes(400)):
        receiving = t.start(there.recvfrom, 8192)
        t.call(f"send {len(data)}", here.send, data)
        t.finish(f"recvfrom {len(data)}", receiving)
    receiving = t.start(there.recvmsg, 10)
    here.send(b"longer than ten")
    t.finish("truncated", receiving)
    t.call("empty", here.send, b"")
    t.call("too long", here.send, bytes(1 << 16))
    there.settimeout(0.05)
    t.call("nothing", there.recv, 10)


@scenario
def isotp_options(s, t):
    """The options of ISO-TP are structures."""
    sock = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_ISOTP)
    level = 100 + s.CAN_ISOTP
    for option, size in ((1, 12), (2, 3), (3, 4), (4, 4), (5, 3)):
        t.call(f"get {option}", sock.getsockopt, level, option, size)
    t.call("flow control", sock.setsockopt, level, 2, struct.pack("3B", 8, 0, 0))
    t.call("read", sock.getsockopt, level, 2, 3)
    t.call("wrong size", sock.setsockopt, level, 2, b"1")
    sock.bind((BUS, 0x611, 0x612))
    t.call("bound", sock.setsockopt, level, 2, struct.pack("3B", 8, 0, 0))


def j1939(s, t, address, name=NO_NAME, pgn=NO_PGN):
    """Returns a bound J1939 socket."""
    made = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_J1939)
    made.setsockopt(s.SOL_SOCKET, s.SO_BROADCAST, 1)
    made.bind((BUS, name, pgn, address))
    made.settimeout(120)
    return made


@scenario
def j1939_names(s, t):
    """A name keeps all of its 64 bits."""
    sock = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_J1939)
    t.call("before", sock.getsockname)
    t.call("bind", sock.bind, (BUS, WIDE, NO_PGN, NO_ADDR))
    t.call("after", sock.getsockname)
    t.call("peer", sock.getpeername)
    small = t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_J1939)
    t.call("bind small", small.bind, (BUS, 1 << 53, NO_PGN, 0x20))
    t.call("small", small.getsockname)
    for address in ((BUS, NO_NAME, NO_PGN, 256), (BUS, NO_NAME, NO_PGN, -1), (BUS, -1, NO_PGN, 1), (BUS, 1 << 64, NO_PGN, 1),
                    (BUS, NO_NAME, 1 << 32, 1), (BUS,), (BUS, 1, 2), ("vcan77", NO_NAME, NO_PGN, 1), ("", NO_NAME, NO_PGN, 1)):
        t.call(f"bind {address!r}", t.socket(s.AF_CAN, s.SOCK_DGRAM, s.CAN_J1939).bind, address)


@scenario
def j1939_messages(s, t):
    """A message has the name, group and address of its sender; long messages are sent in packets."""
    here, there = j1939(s, t, 0x21), j1939(s, t, 0x22)
    t.call("sendto", here.sendto, b"12345678", (BUS, NO_NAME, PGN, 0x22))
    t.call("recvfrom", there.recvfrom, 64)
    t.call("all", here.sendto, b"all", (BUS, NO_NAME, 0xFEF0, NO_ADDR))
    t.call("for all", there.recvfrom, 64)
    t.call("long", here.sendto, bytes(range(100)), (BUS, NO_NAME, PGN, 0x22))
    t.call("whole", there.recvfrom, 256)
    t.call("connect", here.connect, (BUS, NO_NAME, PGN, 0x22))
    t.call("peer", here.getpeername)
    t.call("send", here.send, b"connected")
    t.call("recv", there.recv, 64)


@scenario
def j1939_senders_with_names(s, t):
    """A sender name above 2^53 arrives unchanged."""
    claimer, there = j1939(s, t, NO_ADDR, WIDE), j1939(s, t, 0x32)
    t.call("unclaimed", claimer.sendto, b"data", (BUS, NO_NAME, PGN, 0x32))
    # A frame of another device that claims address 0x31 for the name.
    raw = t.socket(s.AF_CAN, s.SOCK_RAW, s.CAN_RAW)
    raw.bind((BUS,))
    raw.send(struct.pack("=IB3xQ", 0x98EEFF31, 8, WIDE))
    time.sleep(0.5)  # an address belongs to its name a quarter of a second after it was claimed
    t.call("claimed", claimer.sendto, b"data", (BUS, NO_NAME, PGN, 0x32))
    t.call("recvfrom", there.recvfrom, 64)
    t.call("to the name", there.sendto, b"answer", (BUS, WIDE, PGN, NO_ADDR))
    t.call("answer", claimer.recvfrom, 64)


@scenario
def j1939_ancillary_data(s, t):
    """`recvmsg` reports the destination and the priority of a message."""
    here, there = j1939(s, t, 0x41), j1939(s, t, 0x42)
    t.call("priority", here.setsockopt, 107, 3, 4)  # SO_J1939_SEND_PRIO
    t.call("read", here.getsockopt, 107, 3)
    t.call("urgent", here.setsockopt, 107, 3, 0)
    here.sendto(b"data", (BUS, NO_NAME, PGN, 0x42))
    t.call("recvmsg", there.recvmsg, 64, 256)
    filters = struct.pack("=QQIIBB6x", 0, 0, PGN, 0x3FFFF, 0, 0)
    t.call("filter", there.setsockopt, 107, 1 + 1, filters)
