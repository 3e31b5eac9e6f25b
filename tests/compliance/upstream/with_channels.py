"""Tests that cannot pass in mode channel, and why.

A test in `REASONS` that passes fails the run.
"""

_UNIX = "uses `ssl` with a Unix socket of the broker, which has no descriptor"
_RESET = "expects a reset, which is the end of the stream on a pair of Unix sockets"

REASONS = {
    "test.test_asyncio.test_streams.StreamTests.test_open_unix_connection_no_loop_ssl": _UNIX,
    **{
        f"test.test_asyncio.test_events.{loop}EventLoopTests.test_create_ssl_unix_connection": _UNIX
        for loop in ("EPoll", "Poll", "Select")
    },
    **{
        f"test.test_asyncio.test_sendfile.{loop}EventLoopTests.test_sendfile_close_peer_in_the_middle_of_receiving": _RESET
        for loop in ("EPoll", "Poll")
    },
}

UNSTABLE = frozenset(
    f"test.test_ssl.TestPreHandshakeClose.test_preauth_data_to_tls_{side}" for side in ("client", "server")
)
"""Tests that can fail: they expect that `close` returns after the reset of the peer. The broker closes the socket later."""
