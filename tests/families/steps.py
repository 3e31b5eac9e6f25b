"""Steps that scenarios of many families have."""


def nothing_yet(t, label, sock):
    """Records that there is nothing to receive, without waiting for it."""
    before = sock.gettimeout()
    sock.settimeout(0)
    t.call(label, sock.recv, 100)
    sock.settimeout(before)
