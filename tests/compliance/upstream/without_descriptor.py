"""Tests that need a descriptor in principle, so that they cannot pass in remote mode, and why.

A test that is listed here and passes fails the run.
"""

_NUMBER = "calls the kernel on the socket's number"
_INHERITED = "checks in the kernel whether the descriptor is inheritable"

REASONS = {
    **{
        f"test.test_socket.InheritanceTest.{name}": _INHERITED
        for name in (
            "test_get_inheritable_cloexec",
            "test_set_inheritable_cloexec",
        )
    },
    **{
        f"test.test_socket.{name}": _NUMBER
        for name in (
            "NonBlockingTCPTests.testInitNonBlocking",
            "NonBlockingTCPTests.testSetBlocking",
            "NonblockConstantTest.test_SOCK_NONBLOCK",
        )
    },
}
