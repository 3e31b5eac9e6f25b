"""The compliance suite: CPython's own `socket` is the oracle, the broker must give the same answers."""
