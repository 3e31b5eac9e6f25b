"""Byte order, addresses as text and bytes, sizes of ancillary data: no socket is needed."""

import socket

from oracle.scenario import scenario

NUMBERS = (0, 1, 255, 256, 0x1234, 0xFFFF)
WIDE = (*NUMBERS, 0x12345678, 0xFFFFFFFF)


@scenario
def short_byte_order(s, t):
    """16-bit numbers are swapped on this machine."""
    for number in NUMBERS:
        t.note(f"htons {number}", s.htons(number))
        t.note(f"ntohs {number}", s.ntohs(number))


@scenario
def long_byte_order(s, t):
    """32-bit numbers are swapped on this machine."""
    for number in WIDE:
        t.note(f"htonl {number}", s.htonl(number))
        t.note(f"ntohl {number}", s.ntohl(number))


@scenario
def byte_order_ranges(s, t):
    """What does not fit is an OverflowError."""
    for name in ("htons", "ntohs"):
        for number in (-1, 65536, 2**31, 2**40, -2**40):
            t.call(f"{name} {number}", getattr(s, name), number)
    for name in ("htonl", "ntohl"):
        for number in (2**32, 2**40, 2**53):
            t.call(f"{name} {number}", getattr(s, name), number)


@scenario
def byte_order_of_negative_numbers(s, t):
    """Negative 32-bit numbers."""
    for name in ("htonl", "ntohl"):
        for number in (-1, -2**31):
            t.call(f"{name} {number}", getattr(s, name), number)


@scenario
def byte_order_of_huge_numbers(s, t):
    """Numbers of up to 63 bits, which is what a message can carry."""
    for name in ("htons", "ntohs", "htonl", "ntohl"):
        for number in (2**53, 2**62, 2**63 - 1):
            t.call(f"{name} {number}", getattr(s, name), number)


@scenario
def byte_order_of_other_types(s, t):
    """Only integers have a byte order."""
    for name in ("htons", "ntohs", "htonl", "ntohl"):
        function = getattr(s, name)
        for value in (1.5, None, [1], True):
            t.call(f"{name} {value}", function, value)
        t.call(f"{name} nothing", function)
        t.call(f"{name} two", function, 1, 2)


@scenario
def inet_aton_forms(s, t):
    """`inet_aton` takes one to four parts, decimal, octal and hexadecimal."""
    for text in ("127.0.0.1", "127.1", "127.0.1", "1", "0x7f.1", "0177.0.0.01", "255.255.255.255", "4294967295",
                 "127.0.0.1 ", "127.0.0.1 trailing", "1.2.65535", "0"):
        t.call(text, s.inet_aton, text)


@scenario
def inet_aton_errors(s, t):
    """Other texts are OSErrors without errno."""
    for text in ("", "x", "1.2.3.4.5", "256.0.0.1", "1.2.3.256", "1.2.65536", "4294967296", "-1", "::1", "1..2",
                 "08.1.1.1", " 1.2.3.4", "1.2.3.4x", "127.0.0.1.", "."):
        t.call(repr(text), s.inet_aton, text)
    for value in (5, None, 1.5):
        t.call(f"{value}", s.inet_aton, value)


@scenario
def inet_ntoa(s, t):
    """Four bytes become text; other lengths are OSErrors."""
    for packed in (b"\x7f\0\0\1", bytes(4), b"\xff" * 4, bytearray(b"\1\2\3\4")):
        t.call("ntoa", s.inet_ntoa, packed)
    for packed in (b"", b"123", b"12345", 5, None):
        t.call(f"ntoa {packed}", s.inet_ntoa, packed)


@scenario
def inet_pton_ipv4(s, t):
    """`inet_pton` for IPv4 takes four decimal parts only."""
    for text in ("127.0.0.1", "0.0.0.0", "255.255.255.255", "127.1", "1.2.3", "01.2.3.4", "1.2.3.256", "", "x",
                 "1.2.3.4 ", "::1", "0x1.2.3.4", "1.2.3.4.5"):
        t.call(text, s.inet_pton, s.AF_INET, text)


@scenario
def inet_pton_ipv6(s, t):
    """`inet_pton` for IPv6 takes every written form of RFC 4291."""
    for text in ("::", "::1", "1::", "fe80::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "ABCD::ef",
                 "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", ":::", "::1%lo", "12345::", "g::", "", "1.2.3.4",
                 "::1.2.3", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "[::1]", "::ffff:1.2.3.4.5", "::01.2.3.4"):
        t.call(text, s.inet_pton, s.AF_INET6, text)


@scenario
def inet_ntop(s, t):
    """IPv6 addresses come in their shortest form."""
    for packed in (bytes(16), bytes(15) + b"\1", b"\xfe\x80" + bytes(13) + b"\1", bytes(range(16)),
                   bytes(10) + b"\xff\xff\1\2\3\4", bytes(12) + b"\1\2\3\4", b"\1" + bytes(15),
                   bytes.fromhex("20010db8000000010000000000000001"), bytes.fromhex("20010000000000000001000000000001"),
                   bytes.fromhex("00010000000200000003000000040000"), bytes.fromhex("0001000200030004000500060000ffff")):
        t.note(packed.hex(), s.inet_ntop(s.AF_INET6, packed))
    for packed in (bytes(4), b"\x7f\0\0\1"):
        t.note(packed.hex(), s.inet_ntop(s.AF_INET, packed))


@scenario
def families_of_inet_pton(s, t):
    """Other families have no text form: EAFNOSUPPORT or ValueError."""
    for family in (s.AF_UNIX, s.AF_UNSPEC, 99, -1):
        t.call(f"pton {family}", s.inet_pton, family, "127.0.0.1")
        t.call(f"ntop {family}", s.inet_ntop, family, bytes(4))


@scenario
def lengths_of_inet_ntop(s, t):
    """The bytes must be as many as the family has."""
    for family, length in ((s.AF_INET, 3), (s.AF_INET, 5), (s.AF_INET, 16), (s.AF_INET6, 4), (s.AF_INET6, 15),
                           (s.AF_INET6, 0)):
        t.call(f"ntop {length}", s.inet_ntop, family, bytes(length))
    t.call("no bytes", s.inet_ntop, s.AF_INET, 5)
    t.call("no text", s.inet_pton, s.AF_INET, 5)
    t.call("no family", s.inet_pton, "2.5", "127.0.0.1")


@scenario
def sizes_of_ancillary_data(s, t):
    """CMSG_LEN counts the head, CMSG_SPACE the padding too."""
    for length in (0, 1, 4, 7, 8, 9, 100, 65536):
        t.note(f"len {length}", s.CMSG_LEN(length))
        t.note(f"space {length}", s.CMSG_SPACE(length))


@scenario
def impossible_sizes(s, t):
    """Negative and huge sizes are OverflowErrors."""
    for length in (-1, 2**31, 2**40, 2**63 - 1):
        t.call(f"len {length}", s.CMSG_LEN, length)
        t.call(f"space {length}", s.CMSG_SPACE, length)
    for value in (1.5, None):
        t.call(f"len {value}", s.CMSG_LEN, value)


@scenario
def constants(s, t):
    """Every constant of this Python's module has the same number in the broker."""
    found = s.constants()
    names = [name for name in dir(socket) if name[0].isupper() and "_" in name]
    for name in names:
        if isinstance(getattr(socket, name), int):
            t.note(name, found.get(name))


@scenario
def has_ipv6(s, t):
    """The broker's platform has IPv6 as this one has."""
    t.note("has", s.has_ipv6)
    t.note("dualstack", s.has_dualstack_ipv6())
