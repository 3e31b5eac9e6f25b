"""Channels of persistent sessions: they end with their process, and the next one reports whose channel ended."""

import os

from captures import CaptureClient, kill_service, kill_worker, reattached, restart_service
from harness import HANG, Broker
from scenarios import connected, listener, received, refusal

DATA, RESET = 0, 2


def opened(client, handle, **params):
    """The descriptor of a new channel."""
    client.call("channel.open", handle=handle, want_fd=True, **params)
    return client.descriptors.pop()


def rest(descriptor):
    """What comes until the end, and whether that is an error."""
    data = b""
    try:
        while part := os.read(descriptor, 1 << 16):
            data += part
    except ConnectionResetError:
        return data, True
    finally:
        os.close(descriptor)
    return data, False


def interrupted(client):
    """The handles whose channel has ended with an earlier process."""
    found = {handle: info.get("channel_ended") for handle, info in client.handles().items()}
    assert set(found.values()) <= {None, "interrupted"}, found
    return {handle for handle, ended in found.items() if ended}


def wait_until_free(client, handle):
    """Waits until no channel receives."""
    client.call("socket.settimeout", handle=handle, value=0)
    while refusal(lambda: client.call("socket.recv", handle=handle, bufsize=1)).data["name"] == "EBUSY":
        pass
    client.call("socket.settimeout", handle=handle, value=HANG)


def channels_end_with_a_reason(program, crash):
    broker = Broker(program)
    try:
        client = CaptureClient(broker)
        token = client.open(linger=60, descriptors=True)["token"]
        server, port = listener()
        raw, framed, over, offered, plain = [connected(client, server, port) for _ in range(5)]
        ends = {handle: opened(client, handle) for handle, _ in (raw, over)}
        ends[framed[0]] = opened(client, framed[0], framing="frames")
        client.call("channel.open", handle=offered[0])
        os.write(ends[raw[0]], b"out")
        assert raw[1].recv(3) == b"out"
        framed[1].sendall(b"in")
        assert os.read(ends[framed[0]], 100) == bytes([DATA, 0, 0, 2]) + b"in"
        # Its end is known to the client.
        os.close(ends.pop(over[0]))
        wait_until_free(client, over[0])
        plain[1].sendall(b"kept")
        assert interrupted(client) == set()
        crash(broker, client)
        client.close()
        client = reattached(broker, token)
        assert rest(ends[raw[0]])[0] == b""
        data, _ = rest(ends[framed[0]])
        # Only a process that ends in order has time for a reason.
        assert data == b"" if crash is not restart_service else data[:1] in (b"", bytes([RESET])), data
        assert interrupted(client) == {raw[0], framed[0]}
        assert received(client, plain[0]) == b"kept"
        # A further channel is another one.
        end = opened(client, raw[0])
        assert interrupted(client) == {framed[0]}
        raw[1].sendall(b"again")
        assert os.read(end, 100) == b"again"
        os.close(end)
        wait_until_free(client, raw[0])
        crash(broker, client)
        client.close()
        client = reattached(broker, token)
        assert interrupted(client) == {framed[0]}
    finally:
        broker.close()


def run(program):
    for crash in (kill_worker, kill_service, restart_service):
        channels_end_with_a_reason(program, crash)
