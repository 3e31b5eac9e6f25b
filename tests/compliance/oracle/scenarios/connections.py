"""`create_connection`, `create_server` and `has_dualstack_ipv6`."""

from oracle.common import listener, refused_port
from oracle.scenario import scenario


def connect(s, t, *args, **kwargs):
    """A connection that is closed at the end."""
    return t.keep(s.create_connection(*args, **kwargs))


def serve(s, t, *args, **kwargs):
    """A server that is closed at the end."""
    return t.keep(s.create_server(*args, **kwargs))


@scenario
def plain_connection(s, t):
    """A connection to an address, with the default timeout."""
    waiting = listener(s, t)
    client = connect(s, t, waiting.getsockname())
    t.note("client", (client, client.gettimeout(), client.getpeername() == waiting.getsockname()))
    server, _ = waiting.accept()
    t.keep(server).send(b"welcome")
    t.note("data", client.recv(10))


@scenario
def connection_by_name(s, t):
    """Names are resolved, and each address tried."""
    waiting = listener(s, t)
    client = connect(s, t, ("localhost", waiting.getsockname()[1]))
    t.note("peer", client.getpeername())


@scenario
def connection_with_a_timeout(s, t):
    """The timeout stays on the socket."""
    waiting = listener(s, t)
    for timeout in (5, 2.5, None):
        t.note(f"timeout {timeout}", connect(s, t, waiting.getsockname(), timeout).gettimeout())
    s.setdefaulttimeout(9)
    t.note("default", connect(s, t, waiting.getsockname()).gettimeout())
    t.call("zero", s.create_connection, waiting.getsockname(), 0)
    t.call("negative", s.create_connection, waiting.getsockname(), -1)


@scenario
def connection_from_an_address(s, t):
    """The source address is bound first."""
    waiting = listener(s, t)
    client = connect(s, t, waiting.getsockname(), source_address=("127.0.0.5", 0))
    t.note("source", client.getsockname()[0])
    t.call("not here", s.create_connection, waiting.getsockname(), source_address=("192.0.2.1", 0))


@scenario
def refused_connection(s, t):
    """The last error is raised."""
    port = refused_port(s, t)
    t.call("address", s.create_connection, ("127.0.0.1", port))
    t.call("name", s.create_connection, ("localhost", port), 5)


@scenario
def every_error(s, t):
    """With `all_errors` all errors come in a group."""
    t.call("refused", s.create_connection, ("127.0.0.1", refused_port(s, t)), all_errors=True)


@scenario
def unknown_hosts(s, t):
    """Errors of the resolver are passed on."""
    t.call("name", s.create_connection, ("nobody.invalid", 80))
    t.call("service", s.create_connection, ("127.0.0.1", "no-such-service"))
    t.call("port", s.create_connection, ("127.0.0.1", 65536))


@scenario
def wrong_arguments(s, t):
    """The address is a pair."""
    for address in (("127.0.0.1",), ("127.0.0.1", 1, 2)):
        t.call(f"connection {address}", s.create_connection, address)


@scenario(needs=["ipv6"])
def connection_over_ipv6(s, t):
    """IPv6 addresses are found by themselves."""
    waiting = listener(s, t, s.AF_INET6)
    client = connect(s, t, ("::1", waiting.getsockname()[1]))
    t.note("client", (client, client.getpeername()))


@scenario
def plain_server(s, t):
    """A server listens, reuses its address, and accepts."""
    server = serve(s, t, ("127.0.0.1", 0))
    t.note("server", (server, server.getsockname(), server.gettimeout()))
    for level, name in ((s.SOL_SOCKET, s.SO_REUSEADDR), (s.SOL_SOCKET, s.SO_ACCEPTCONN), (s.SOL_SOCKET, s.SO_REUSEPORT)):
        t.note("option", server.getsockopt(level, name))
    client = connect(s, t, server.getsockname())
    accepted, address = server.accept()
    t.note("address", t.keep(accepted).getpeername() == address == client.getsockname())


@scenario
def server_that_shares_its_port(s, t):
    """`reuse_port` lets a second server listen on the port."""
    first = serve(s, t, ("127.0.0.1", 0), reuse_port=True)
    t.note("option", first.getsockopt(s.SOL_SOCKET, s.SO_REUSEPORT))
    t.call("second", serve, s, t, first.getsockname(), reuse_port=True)
    t.call("third", s.create_server, first.getsockname())


@scenario
def server_backlog(s, t):
    """The backlog may be given."""
    for backlog in (0, 1, 100, None):
        t.call(f"backlog {backlog}", serve, s, t, ("127.0.0.1", 0), backlog=backlog)


@scenario
def server_address_taken(s, t):
    """A port in use, a foreign address, an invalid port."""
    first = serve(s, t, ("127.0.0.1", 0))
    t.call("taken", s.create_server, first.getsockname())
    t.call("not here", s.create_server, ("192.0.2.1", 0))
    t.call("port", s.create_server, ("127.0.0.1", 65536))
    t.call("name", s.create_server, ("nobody.invalid", 0))


@scenario(needs=["ipv6"])
def server_over_ipv6(s, t):
    """An IPv6 server is for IPv6 only, unless dual stack is requested."""
    server = serve(s, t, ("::1", 0), family=s.AF_INET6)
    t.note("server", (server, server.getsockname(), server.getsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY)))


@scenario(needs=["ipv6"])
def server_for_both(s, t):
    """A dual-stack server serves IPv4 too."""
    server = serve(s, t, ("", 0), family=s.AF_INET6, dualstack_ipv6=True)
    t.note("server", (server.getsockname(), server.getsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY)))
    connect(s, t, ("127.0.0.1", server.getsockname()[1]))
    accepted, address = server.accept()
    t.keep(accepted)
    t.note("address", address)


@scenario
def impossible_servers(s, t):
    """Dual stack needs IPv6; other families are the kernel's business."""
    t.call("dual stack of IPv4", s.create_server, ("127.0.0.1", 0), dualstack_ipv6=True)
    t.call("family", s.create_server, ("127.0.0.1", 0), family=99)
    t.call("IPv4 for IPv6", s.create_server, ("127.0.0.1", 0), family=s.AF_INET6)
    t.call("address", s.create_server, "127.0.0.1")


@scenario
def dual_stack(s, t):
    """Whether the platform can do it."""
    t.note("has", s.has_dualstack_ipv6())
