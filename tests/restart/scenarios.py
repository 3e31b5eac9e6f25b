"""What outlives a worker and the service, and what does not."""

import base64
import os
import socket

from harness import HANG, Broker, Client, Failed, attached, kill_worker, receive


def listener():
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(HANG)
    return server, server.getsockname()[1]


def connected(client, server, port):
    handle = client.call("socket.create_connection", address=["127.0.0.1", port])["handle"]
    peer, _ = server.accept()
    peer.settimeout(HANG)
    return handle, peer


def received(client, handle):
    return base64.b64decode(client.call("socket.recv", handle=handle, bufsize=100)["data"])


def refusal(call):
    try:
        call()
    except Failed as failed:
        return failed
    raise AssertionError("the call was not refused")


def lives_on(program, crash, persist, store=512):
    """A session with sockets of several kinds, before and after."""
    broker = Broker(program, store=store)
    try:
        client = Client(broker)
        before = client.call("socket.socket")["handle"]
        opened = client.open(linger=20)
        assert opened["persist"] == persist, opened
        server, port = listener()
        stream, peer = connected(client, server, port)
        udp = client.call("socket.socket", type="SOCK_DGRAM")["handle"]
        client.call("socket.bind", handle=udp, address=["127.0.0.1", 0])
        name = client.call("socket.getsockname", handle=udp)
        client.call("socket.settimeout", handle=udp, value=12.5)
        client.call("socket.setsockopt", handle=stream, level="IPPROTO_TCP", optname="TCP_NODELAY", value=1)
        client.call("socket.setdefaulttimeout", timeout=7)
        twin = client.call("socket.dup", handle=stream)["handle"]
        client.call("socket.set_inheritable", handle=twin, inheritable=True)
        gone = client.call("socket.socket")["handle"]
        client.call("socket.close", handle=gone)
        request = client.send("socket.socket", {})
        made = client.answer()["handle"]
        client.call("session.restrict", filters=[{"allow": ["create", "receive", "send", "option", "inspect"]}])
        peer.sendall(b"early data")
        expected = client.handles()
        number, epoch = client.number, opened["epoch"]
        crash(broker, client)
        client, again = attached(broker, opened["token"])
        assert again["epoch"] != epoch and again["persist"] == persist, again
        found = client.handles()
        assert found.keys() == expected.keys() and gone not in found and before in found, found
        for handle, info in found.items():
            for field in ("family", "type", "proto", "timeout", "local", "peer", "maker"):
                assert info.get(field) == expected[handle].get(field), (handle, field, info)
        assert found[made]["maker"] == {"connection": number, "request": request}
        assert client.call("call.resolve", connection=number, request=request)["state"] == "interrupted"
        assert received(client, stream) == b"early data"
        assert client.call("socket.getsockname", handle=udp) == name
        assert client.call("socket.gettimeout", handle=udp) == 12.5
        assert client.call("socket.getdefaulttimeout") == 7
        assert client.call("socket.get_inheritable", handle=twin) is True
        assert client.call("socket.getsockopt", handle=stream, level="IPPROTO_TCP", optname="TCP_NODELAY") == 1
        assert refusal(lambda: client.call("socket.bind", handle=made, address=["127.0.0.1", 0])).kind == "denied"
        fresh = client.call("socket.socket")["handle"]
        assert fresh not in expected and fresh != gone
        # An answered close is final, also after another crash.
        client.call("socket.close", handle=stream)
        client.call("socket.close", handle=twin)
        assert peer.recv(1) == b""
        crash(broker, client)
        client, _ = attached(broker, opened["token"])
        assert client.handles().keys() == {before, udp, made, fresh}
        client.call("session.close")
        assert refusal(lambda: attached(broker, opened["token"])).kind == "session"
    finally:
        broker.close()


def killed_worker(_broker, client):
    kill_worker(client)


def killed_service(broker, _client):
    broker.kill()
    broker.start()


def restarted_service(broker, _client):
    broker.terminate()
    broker.start()


def sessions_that_did_not_ask_end(program):
    broker = Broker(program)
    try:
        client = Client(broker)
        opened = client.call("session.open", linger=20)
        assert "persist" not in opened
        client.call("socket.socket")
        kill_worker(client)
        assert refusal(lambda: attached(broker, opened["token"])).kind == "session"
        assert broker.store.kept == {}
    finally:
        broker.close()


def without_a_store_the_service_ends_them(program):
    broker = Broker(program, store=0)
    try:
        client = Client(broker)
        opened = client.open()
        assert opened["persist"] == "worker"
        assert broker.store.kept == {}
        killed_service(broker, client)
        assert refusal(lambda: attached(broker, opened["token"])).kind == "session"
    finally:
        broker.close()


def a_store_that_is_not_stated_keeps_them(program):
    broker = Broker(program, store=None)
    try:
        client = Client(broker)
        opened = client.open()
        assert opened["persist"] == "worker"
        broker.store.wait(lambda: broker.store.kept != {})
        killed_service(broker, client)
        attached(broker, opened["token"])
    finally:
        broker.close()


def sessions_without_a_client_end(program):
    broker = Broker(program, limits={"reattach_seconds": 1})
    try:
        for crash in (killed_worker, killed_service):
            client = Client(broker)
            opened = client.open()
            server, port = listener()
            _, peer = connected(client, server, port)
            crash(broker, client)
            assert peer.recv(1) == b""
            broker.store.wait(lambda: broker.store.kept == {})
            assert refusal(lambda: attached(broker, opened["token"])).kind == "session"
    finally:
        broker.close()


def limits_are_errors_with_their_name(program):
    limits = {"persistent_sessions_per_user": 1, "persistent_handles_per_user": 3}
    broker = Broker(program, limits=limits)
    try:
        client, other = Client(broker), Client(broker)
        client.open()
        assert refusal(other.open).data["limit"] == "persistent_sessions_per_user"
        # One place is the session's own.
        for _ in range(2):
            client.call("socket.socket")
        full = refusal(lambda: client.call("socket.socket"))
        assert full.data["limit"] == "persistent_handles_per_user"
        assert len(client.handles()) == 2
        other.call("socket.socket")
    finally:
        broker.close()
    for limit, opened in (("persistent_sessions_in_all", 1), ("persistent_handles_in_all", 0)):
        broker = Broker(program, limits={limit: opened})
        try:
            client = Client(broker)
            for _ in range(opened):
                Client(broker).open(linger=60)
            assert refusal(client.open).data["limit"] == limit
        finally:
            broker.close()


def outer_messages(broker):
    """The messages of the stored lots, which stay there: bytes and descriptors."""
    (ends,) = broker.store.kept.values()
    for end in ends:
        lot = socket.socket(fileno=os.dup(end))
        lot.setsockopt(socket.SOL_SOCKET, 42, 0)  # SO_PEEK_OFF
        messages = []
        try:
            while True:
                messages.append(receive(lot, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        lot.setsockopt(socket.SOL_SOCKET, 42, -1)
        if messages:
            return messages
    raise AssertionError("the lots are empty")


def three_crashes_discard_the_lots(program):
    broker = Broker(program)
    try:
        client = Client(broker)
        token = client.open()["token"]
        server, port = listener()
        _, peer = connected(client, server, port)
        broker.kill()
        # A lot with messages at both ends, which no worker can use.
        messages = outer_messages(broker)
        lot = next(descriptors for data, descriptors in messages if data[1:2] == b"l")
        for descriptor in lot:
            with socket.socket(fileno=os.dup(descriptor)) as end:
                end.send(b"x")
        for _, descriptors in messages:
            for descriptor in descriptors:
                os.close(descriptor)
        broker.start()
        for _ in range(3):
            try:
                attached(broker, token)
            except (OSError, Failed):
                pass
        broker.store.wait(lambda: broker.store.kept == {})
        assert "three workers ended" in broker.log()
        assert peer.recv(1) == b""
        client = Client(broker)
        client.open()
        client.call("socket.socket")
    finally:
        broker.close()


def strange_stores_do_not_stop_the_start(program):
    broker = Broker(program)
    try:
        broker.kill()
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends[0].send(bytes([2]) + b"i" + bytes(8))
        half, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        broker.store.kept = {
            "lots-4": [os.dup(end.fileno()) for end in ends],
            "lots-5": [os.dup(half.fileno())],
            "lots-x": [os.open("/dev/null", os.O_RDONLY)],
        }
        broker.start()
        broker.store.wait(lambda: broker.store.kept == {})
        log = broker.log()
        assert "it has version 2, and this broker reads up to version 1" in log, log
        assert "there are not two ends" in log, log
        Client(broker).open()
    finally:
        broker.close()


def other_users_cannot_attach(program):
    if os.geteuid() != 0:
        print("SKIPPED (needs root): other users cannot attach")
        return
    broker = Broker(program)
    try:
        client = Client(broker)
        token = client.open()["token"]
        kill_worker(client)
        os.seteuid(54321)
        try:
            other = Client(broker)
        finally:
            os.seteuid(0)
        assert refusal(lambda: other.attach(token)).kind == "session"
        attached(broker, token)
    finally:
        broker.close()


def run(program):
    lives_on(program, killed_worker, "service")
    lives_on(program, killed_worker, "worker", store=0)
    lives_on(program, killed_service, "service")
    lives_on(program, restarted_service, "service")
    sessions_that_did_not_ask_end(program)
    without_a_store_the_service_ends_them(program)
    a_store_that_is_not_stated_keeps_them(program)
    sessions_without_a_client_end(program)
    limits_are_errors_with_their_name(program)
    three_crashes_discard_the_lots(program)
    strange_stores_do_not_stop_the_start(program)
    other_users_cannot_attach(program)
