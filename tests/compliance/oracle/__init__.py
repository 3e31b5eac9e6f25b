"""The compliance suite: CPython's `socket` is the oracle, and the broker must return the same results."""
