"""AF_ALG: the kernel's hashes, ciphers and random numbers."""

from oracle.scenario import scenario

KEY = bytes(range(16))


@scenario
def names(s, t):
    """An address is a type and a name of an algorithm; an accepted socket has no address."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    t.call("before", sock.getsockname)
    t.call("accept unbound", sock.accept)
    t.call("bind", sock.bind, ("hash", "sha256"))
    t.call("name", sock.getsockname)
    operation, address = sock.accept()
    t.keep(operation)
    t.note("accepted", (operation, address, "operation"))
    t.call("peer", operation.getpeername)
    t.call("again", sock.bind, ("hash", "sha1"))
    t.call("send", sock.send, b"x")


@scenario
def wrong_names(s, t):
    """Unknown algorithms and invalid addresses are refused."""
    for address in (("hash", "none"), ("none", "sha256"), ("hash", "x" * 63), ("hash", "x" * 64), ("t" * 13, "x"),
                    ("t" * 14, "x"), ("hash",), ("hash", "sha256", 0), ("hash", "sha256", 1, 2), ("hash", 5), (5, "sha256"),
                    ("hash", "sha256", 0, 0, 0), "hash"):
        t.call(f"bind {address!r}", t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0).bind, address)
    t.call("stream", t.socket, s.AF_ALG, s.SOCK_STREAM)


@scenario
def hashes(s, t):
    """A socket returns the digest of sent data; MSG_MORE continues it."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    sock.bind(("hash", "sha256"))
    operation, _ = sock.accept()
    t.keep(operation)
    t.call("sendall", operation.sendall, b"abc")
    t.call("digest", operation.recv, 64)
    t.call("part", operation.send, b"a", s.MSG_MORE)
    t.call("more", operation.send, b"bc", s.MSG_MORE)
    t.call("end", operation.send, b"")
    t.call("recvfrom", operation.recvfrom, 64)
    t.call("short", operation.recv, 8)
    t.call("recvmsg", operation.recvmsg, 64, 64)


@scenario
def keyed_hashes(s, t):
    """The key is a socket option."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    sock.bind(("hash", "hmac(sha1)"))
    t.call("key", sock.setsockopt, s.SOL_ALG, s.ALG_SET_KEY, b"Jefe")
    operation, _ = sock.accept()
    t.keep(operation)
    operation.sendall(b"what do ya want for nothing?")
    t.call("digest", operation.recv, 64)
    t.call("too late", sock.setsockopt, s.SOL_ALG, s.ALG_SET_KEY, b"other")


@scenario
def ciphers(s, t):
    """The operation and the initialization vector are ancillary data of `sendmsg_afalg` and `sendmsg`."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    sock.bind(("skcipher", "cbc(aes)"))
    sock.setsockopt(s.SOL_ALG, s.ALG_SET_KEY, KEY)
    operation, _ = sock.accept()
    t.keep(operation)
    t.call("encrypt", operation.sendmsg_afalg, op=s.ALG_OP_ENCRYPT, iv=bytes(16), flags=s.MSG_MORE)
    t.call("data", operation.sendall, b"exactly 16 bytes")
    secret = t.call("secret", operation.recv, 16)
    t.call("decrypt", operation.sendmsg_afalg, [secret], op=s.ALG_OP_DECRYPT, iv=bytes(16))
    t.call("plain", operation.recv, 16)
    control = [(s.SOL_ALG, s.ALG_SET_OP, b"\1\0\0\0"), (s.SOL_ALG, s.ALG_SET_IV, b"\x10\0\0\0" + bytes(16))]
    t.call("sendmsg", operation.sendmsg, [b"exactly ", b"16 bytes"], control)
    t.call("the same", operation.recv, 16)
    t.call("odd", operation.sendmsg_afalg, [b"odd"], op=s.ALG_OP_ENCRYPT, iv=bytes(16))
    t.call("not whole", operation.recv, 16)


@scenario
def authenticated_ciphers(s, t):
    """The sizes of the tag and the associated data are set."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    sock.bind(("aead", "gcm(aes)"))
    sock.setsockopt(s.SOL_ALG, s.ALG_SET_KEY, KEY)
    t.call("size of tag", sock.setsockopt, s.SOL_ALG, s.ALG_SET_AEAD_AUTHSIZE, None, 16)
    operation, _ = sock.accept()
    t.keep(operation)
    t.call("encrypt", operation.sendmsg_afalg, [b"associated", b"plain"], op=s.ALG_OP_ENCRYPT, iv=bytes(12), assoclen=10)
    t.call("secret", operation.recv, 10 + 5 + 16)  # the kernel waits until the buffer is full
    t.call("forged", operation.sendmsg_afalg, [b"associated", bytes(21)], op=s.ALG_OP_DECRYPT, iv=bytes(12), assoclen=10)
    t.call("refused", operation.recv, 10 + 5)


@scenario
def wrong_operations(s, t):
    """`sendmsg_afalg` refuses invalid arguments."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    sock.bind(("skcipher", "cbc(aes)"))
    sock.setsockopt(s.SOL_ALG, s.ALG_SET_KEY, KEY)
    operation, _ = sock.accept()
    t.keep(operation)
    t.call("no operation", operation.sendmsg_afalg, [b"x"])
    t.call("negative", operation.sendmsg_afalg, [b"x"], op=s.ALG_OP_ENCRYPT, assoclen=-1)
    t.call("negative operation", operation.sendmsg_afalg, [b"x"], op=-1)
    t.call("unknown operation", operation.sendmsg_afalg, [b"x"], op=9, iv=bytes(16))
    t.call("short vector", operation.sendmsg_afalg, [b"x"], op=s.ALG_OP_ENCRYPT, iv=bytes(3))


@scenario
def random_numbers(s, t):
    """A socket returns random bytes after a seed."""
    sock = t.socket(s.AF_ALG, s.SOCK_SEQPACKET, 0)
    sock.bind(("rng", "drbg_pr_sha256"))
    t.call("seed", sock.setsockopt, s.SOL_ALG, s.ALG_SET_KEY, bytes(32))
    operation, _ = sock.accept()
    t.keep(operation)
    t.note("random", len(operation.recv(32)))
    t.call("send", operation.send, b"x")
