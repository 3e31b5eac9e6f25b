"""The capabilities of the machine that scenarios need, and a small network for them.

Run inside user, network, UTS and mount namespaces of its own (`unshare --user --map-root-user --net --uts --mount`),
nothing outside is touched. Elsewhere nothing is set up, and what needs privileges is skipped.
"""

import fcntl
import os
import socket
import struct
import subprocess
import tempfile
import time

VETH = ("cmp0", "cmp1")
"""Two Ethernet interfaces, each the other's peer, where the namespace could make them."""

_SIOCSIFFLAGS, _UP = 0x8914, 0x1 | 0x40
_RTM_NEWLINK, _REQUEST_ACK_CREATE = 16, 0x1 | 0x4 | 0x400 | 0x200
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 3, 18, 1, 2, 1


def prepare():
    """Brings the interfaces up and returns the set of available capabilities."""
    if in_own_namespace():
        _bring_up("lo")
        _replace_hosts()
        _write("/proc/sys/net/ipv4/ping_group_range", "0 0")
        _make_veth()
    return frozenset(name for name, offered in _OFFERS.items() if offered())


def in_own_namespace():
    """Whether this is the root of a user namespace that holds nothing but a fresh network."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        whole = file.read().split()[2] == str(2**32 - 1)
    names = {name for _, name in socket.if_nameindex()}
    return os.geteuid() == 0 and not whole and names <= {"lo", "sit0", "tunl0", "ip6tnl0", "gre0"}


def _bring_up(name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), _UP))


def _write(path, text):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        pass


def _replace_hosts():
    """Mounts a file over `/etc/hosts`, so that no scenario depends on the machine's."""
    with tempfile.NamedTemporaryFile("w", prefix="cmp-hosts-", dir="/tmp", encoding="ascii") as file:
        file.write(f"127.0.0.1 localhost {os.uname().nodename}\n::1 localhost\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/hosts"], check=True)


def _attribute(kind, data):
    length = 4 + len(data)
    return struct.pack("HH", length, kind) + data + bytes(-length % 4)


def _make_veth():
    """A pair of virtual Ethernet interfaces, by one rtnetlink message."""
    ours, peer = (_attribute(_IFLA_IFNAME, name.encode() + b"\0") for name in VETH)
    link = bytes(16)  # struct ifinfomsg
    data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, link + peer))
    info = _attribute(_IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, b"veth") + data)
    body = link + ours + info
    message = struct.pack("IHHII", 16 + len(body), _RTM_NEWLINK, _REQUEST_ACK_CREATE, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(message)
        if struct.unpack_from("i", sock.recv(4096), 16)[0] != 0:
            return
    for name in VETH:
        _write(f"/proc/sys/net/ipv6/conf/{name}/accept_dad", "0")
        _write(f"/proc/sys/net/ipv6/conf/{name}/router_solicitations", "0")
        _bring_up(name)
    _wait_for_link_local()


def link_local(name):
    """The link-local address of an interface, or `None`."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    for address, _, _, _, flags, interface in rows:
        if interface == name and address.startswith("fe80") and not int(flags, 16) & 0x40:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
    return None


def _wait_for_link_local():
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not all(map(link_local, VETH)):
        time.sleep(0.02)


def _can_make(*args):
    def attempt():
        try:
            socket.socket(*args).close()
        except OSError:
            return False
        return True
    return attempt


def _has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def _has_veth():
    return {name for _, name in socket.if_nameindex()} >= set(VETH)


def _owns_hostname():
    if not in_own_namespace() and not _has_veth():
        return False
    return os.readlink("/proc/self/ns/uts") != _read_link("/proc/1/ns/uts")


def _read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


_OFFERS = {
    "ipv6": _has_ipv6,
    "netlink": _can_make(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "packet": _can_make(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "raw": _can_make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "ping": _can_make(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
    "vsock": _can_make(40, socket.SOCK_STREAM),
    "mptcp": _can_make(socket.AF_INET, socket.SOCK_STREAM, 262),
    "udplite": _can_make(socket.AF_INET, socket.SOCK_DGRAM, 136),
    "veth": _has_veth,
    "hostname": _owns_hostname,
    "namespace": lambda: _has_veth() or in_own_namespace(),
}
