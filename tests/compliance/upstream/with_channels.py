"""Tests that cannot pass in mode channel, and why.

A test in `REASONS` that passes fails the run.
"""

_UNIX = "uses `ssl` with a Unix socket of the broker, which has no descriptor"

REASONS = {
    "test.test_asyncio.test_streams.StreamTests.test_open_unix_connection_no_loop_ssl": _UNIX,
    **{
        f"test.test_asyncio.test_events.{loop}EventLoopTests.test_create_ssl_unix_connection": _UNIX
        for loop in ("EPoll", "Poll", "Select")
    },
}

UNSTABLE = {
    f"test.test_ssl.TestPreHandshakeClose.test_preauth_data_to_tls_{side}" for side in ("client", "server")
} | {
    f"test.test_asyncio.test_sendfile.{loop}EventLoopTests.test_sendfile_close_peer_in_the_middle_of_receiving"
    for loop in ("EPoll", "Poll")
}
"""Tests that can fail: they expect that a reset of the peer is known at once. The broker closes and learns later."""
