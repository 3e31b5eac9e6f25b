"""Tests that can fail in mode channel, and why. A test that always fails is none of them: it is repaired."""

_RESET = "expects the reset of the peer at once; the descriptor reports it later, or as the end of the stream"
_BOTH = "expects that a connection is made at both ends when one of them knows of it"
_AT_ONCE = "expects that data which one socket has sent is readable at the other at once"

UNSTABLE = {
    "test.test_epoll.TestEPoll.test_control_and_wait": _AT_ONCE,
    "test.test_epoll.TestEPoll.test_fromfd": _BOTH,
    **{
        f"test.test_ssl.TestPreHandshakeClose.test_preauth_data_to_tls_{side}": _RESET for side in ("client", "server")
    },
    **{
        f"test.test_asyncio.test_sendfile.{loop}EventLoopTests.test_sendfile_close_peer_in_the_middle_of_receiving": _RESET
        for loop in ("EPoll", "Poll", "Select")
    },
}
