"""Compares two runs of the same tests."""

FLAKY = (
    # Its client thread registers a clean-up that the main thread may run before that thread's next call.
    "test.test_socket.NetworkConnectionAttributesTest.testSourceAddress",
    # They skip themselves if the kernel returns ENOTCONN, which happens sometimes (bpo-13876).
    "test.test_socket.RecvmsgSCTPStreamTest.testRecvmsgEOF",
    "test.test_socket.RecvmsgIntoSCTPStreamTest.testRecvmsgEOF",
)
"""Tests that sometimes fail natively too."""


def passed(record):
    """The ids of the tests that passed."""
    return {name for name, outcome in record["outcomes"].items() if outcome == "passed"}


def faults(native, brokered, excused=(), unstable=()):
    """Returns tests with a worse result than natively, one line each, and stale exceptions. Ignores unstable tests."""
    found = []
    for name in sorted(native["outcomes"].keys() | brokered["outcomes"].keys()):
        before = native["outcomes"].get(name, "absent")
        now = brokered["outcomes"].get(name, "absent")
        if name in unstable:
            continue
        if name in excused:
            if now == "passed":
                found.append(f"{name} passes: remove it from the list of exceptions")
        elif (before == "passed" and now != "passed") or (before != "failed" and now == "failed"):
            detail = brokered["details"].get(name, "").rstrip().replace("\n", "\n    ")
            found.append(f"{name}: natively {before}, now {now}\n    {detail}")
    return found


def is_flaky(native, brokered):
    """Returns the IDs of tests to repeat."""
    before = passed(native)
    return [name for name in FLAKY if name in before and brokered["outcomes"].get(name) != "passed"]
