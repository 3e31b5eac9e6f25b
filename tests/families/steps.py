"""Steps that scenarios of several families share."""


def nothing_yet(t, label, sock):
    """Records, without waiting, that there is nothing to receive."""
    before = sock.gettimeout()
    sock.settimeout(0)
    t.call(label, sock.recv, 100)
    sock.settimeout(before)
