"""Sessions that wait for the next worker: how long, with what claims, under which policy, within which limits."""

import os
import signal
import socket
import time

from harness import HANG, PERSIST, POLICY, Broker, Client, client_of, kill_worker
from scenarios import connected, killed_service, killed_worker, listener, received, refusal, restarted_service

# Users that no system has, neither of them root, whose built-in rule grants everything.
ONE, OTHER = 54321, 54322
SHARED_IDS = '[processes]\nworker_ids = "shared"\n'


def reuse_port(client, port=0):
    """A socket that listens on a port with SO_REUSEPORT."""
    handle = client.call("socket.socket")["handle"]
    client.call("socket.setsockopt", handle=handle, level="SOL_SOCKET", optname="SO_REUSEPORT", value=1)
    client.call("socket.bind", handle=handle, address=["127.0.0.1", port])
    client.call("socket.listen", handle=handle)
    return handle, client.call("socket.getsockname", handle=handle)[1]


def ports_stay_their_owners(program, crash, config):
    """A port that is bound with SO_REUSEPORT is one principal's, also while its sockets wait."""
    broker = Broker(program, config=config)
    try:
        client = client_of(broker, ONE)
        token = client.open(linger=60)["token"]
        handle, port = reuse_port(client)
        crash(broker, client)
        other = client_of(broker, OTHER)
        assert refusal(lambda: reuse_port(other, port)).data["name"] == "EADDRINUSE"
        # The next worker of the owner shares it, and gives it back.
        client = client_of(broker, ONE)
        client.attach(token)
        second, _ = reuse_port(client, port)
        assert refusal(lambda: reuse_port(other, port)).data["name"] == "EADDRINUSE"
        client.call("socket.close", handle=handle)
        assert refusal(lambda: reuse_port(other, port)).data["name"] == "EADDRINUSE"
        client.call("socket.close", handle=second)
        if config:
            # Without it, the kernel compares the users of the sockets too, and the closed ones may still end.
            reuse_port(other, port)
    finally:
        broker.close()


def claims_without_a_socket_end_with_the_recovery(program):
    broker = Broker(program, config=SHARED_IDS)
    try:
        client, lost = client_of(broker, ONE), client_of(broker, ONE)
        token = client.open(linger=60)["token"]
        _, port = reuse_port(lost)
        kill_worker(client)
        client = client_of(broker, ONE)
        client.attach(token)
        reuse_port(client_of(broker, OTHER), port)
    finally:
        broker.close()


def a_full_store_keeps_for_the_worker(program):
    broker = Broker(program, store=3)
    try:
        first, second = client_of(broker, ONE), client_of(broker, OTHER)
        assert first.open()["persist"] == "service"
        assert second.open()["persist"] == "worker"
        assert [len(ends) for ends in broker.store.kept.values()] == [2]
        first.call("session.close")
        # A claim goes the way of the report that the session has ended, after it.
        last = client_of(broker, ONE)
        reuse_port(last)
        kill_worker(last)
        broker.store.wait(lambda: broker.store.kept == {})
        assert client_of(broker, ONE).open()["persist"] == "service"
    finally:
        broker.close()


def abandoned_connections_do_not_end_a_session(program):
    """A request to attach that a client sent while the service was down, and a response that it did not read."""
    broker = Broker(program)
    try:
        client = Client(broker)
        token = client.open()["token"]
        server, port = listener()
        handle, peer = connected(client, server, port)
        broker.kill()
        for _ in range(3):
            early = Client(broker)
            early.send("session.attach", {"token": token})
            early.close()
        broker.start()
        late = Client(broker)
        late.attach(token)
        late.close()
        client = Client(broker)
        client.attach(token)
        peer.sendall(b"still there")
        assert received(client, handle) == b"still there"
        # It is used now, and ends with its last connection.
        client.close()
        assert peer.recv(1) == b""
        other = Client(broker)
        assert refusal(lambda: other.attach(token)).kind == "session"
    finally:
        broker.close()


def reload_reaches_sessions_that_wait(program):
    without_create = POLICY.replace('"create", ', "")
    assert without_create != POLICY
    for policy, recovered in ((without_create + PERSIST, True), (POLICY, False)):
        broker = Broker(program)
        try:
            client = client_of(broker, ONE)
            token = client.open(linger=600)["token"]
            server, port = listener()
            _, peer = connected(client, server, port)
            kill_worker(client)
            broker.reload(policy)
            assert peer.recv(1) == b""
            client = client_of(broker, ONE)
            if recovered:
                client.attach(token)
                assert client.handles() == {}
            else:
                assert refusal(lambda: client.attach(token)).kind == "session"
        finally:
            broker.close()


def withdrawn_grant_ends_the_persistence_of_a_session_in_use(program):
    broker = Broker(program)
    try:
        client = client_of(broker, ONE)
        token = client.open(linger=600)["token"]
        handle = client.call("socket.socket")["handle"]
        broker.reload(POLICY.replace("version = 1", "version = 1\nrevoke_on_reload = true"))
        # The session goes on until its worker ends.
        assert client.call("socket.gettimeout", handle=handle) is None
        assert refusal(client.open).kind == "denied"
        kill_worker(client)
        assert refusal(lambda: client_of(broker, ONE).attach(token)).kind == "session"
        broker.store.wait(lambda: broker.store.kept == {})
    finally:
        broker.close()


def sessions(root):
    return {one["session"]: one for one in root.call("admin.sessions")}


def each_session_waits_for_its_own_time(program):
    broker = Broker(program, limits={"reattach_seconds": 1})
    try:
        short, long = client_of(broker, ONE), client_of(broker, ONE)
        short.open()
        token = long.open(linger=100)["token"]
        number = long.call("session.info")["session"]
        # A later call changes it.
        long.call("session.open", linger=3000)
        server, port = listener()
        _, brief = connected(short, server, port)
        handle, peer = connected(long, server, port)
        kill_worker(long)
        assert brief.recv(1) == b""
        peer.sendall(b"still there")
        # The worker that closed the short session ends, and the long one waits without it.
        root = Client(broker)
        deadline = time.monotonic() + HANG
        # A worker that is ending answers no longer, and its sessions are in no list for that time.
        while sessions(root).get(number, {}).get("state") != "waiting":
            assert time.monotonic() < deadline, "the worker does not end"
        restarted_service(broker, None)
        after = sessions(Client(broker))[number]
        # The time goes on, and does not begin again: the short session has waited for a second.
        assert after["state"] == "waiting" and 2000 < after["until"] <= 2999, after
        assert after["linger"] == 3000
        client = client_of(broker, ONE)
        client.attach(token)
        assert received(client, handle) == b"still there"
        served = sessions(Client(broker))[number]
        assert served["state"] == "served" and "until" not in served, served
    finally:
        broker.close()


def sessions_that_wait_are_listed(program):
    broker = Broker(program)
    try:
        root = Client(broker)
        client = client_of(broker, ONE)
        client.open(linger=600)
        number = client.call("session.info")["session"]
        for _ in range(3):
            client.call("socket.socket")
        for crash in (killed_worker, killed_service):
            crash(broker, client)
            root = Client(broker)
            info = sessions(root)[number]
            assert (info["state"], info["uid"], info["handles"]) == ("waiting", ONE, 3), info
            assert info["opened"] and info["persist"] == "service" and info["connections"] == 0, info
            assert 0 <= info["since"] and 0 < info["until"] <= 600, info
    finally:
        broker.close()


def sessions_are_listed_once_while_their_worker_changes(program):
    broker = Broker(program)
    try:
        root, client = Client(broker), client_of(broker, ONE)
        token = client.open(linger=600)["token"]
        number = client.call("session.info")["session"]

        def check():
            listed = [info["session"] for info in root.call("admin.sessions")]
            assert listed.count(number) == 1, listed

        for _ in range(20):
            os.kill(client.worker(), signal.SIGKILL)
            for _ in range(4):
                check()
            client.close()
            client = client_of(broker, ONE)
            client.send("session.attach", {"token": token})
            for _ in range(4):
                check()
            client.answer()
            check()
    finally:
        broker.close()


def accept_at_the_limit_leaves_the_connection_in_the_queue(program):
    broker = Broker(program, limits={"persistent_handles_per_user": 3})
    try:
        client = client_of(broker, ONE)
        client.open()
        handle = client.call("socket.create_server", address=["127.0.0.1", 0])["handle"]
        spare = client.call("socket.socket")["handle"]
        name = client.call("socket.getsockname", handle=handle)
        with socket.create_connection(tuple(name), timeout=HANG) as peer:
            peer.sendall(b"early")
            full = refusal(lambda: client.call("socket.accept", handle=handle))
            assert full.data["limit"] == "persistent_handles_per_user", full.data
            client.call("socket.close", handle=spare)
            accepted = client.call("socket.accept", handle=handle)["handle"]
            assert received(client, accepted) == b"early"
            peer.sendall(b"later")
            assert received(client, accepted) == b"later"
    finally:
        broker.close()


def what_is_kept_of_sessions_is_limited(program):
    broker = Broker(program, limits={"persistent_bytes_per_user": 75_000})
    try:
        client = client_of(broker, ONE)
        worker = client.worker()
        # About 27 kB as text.
        networks = [f"10.{one}.{two}.0/24" for one in range(8) for two in range(200)]
        filters = [{"allow": ["session", "persist"]}, {"allow": ["connect"], "remote": networks}]
        client.open()
        client.call("session.restrict", filters=filters)
        client.call("session.restrict", filters=filters)
        full = refusal(lambda: client.call("session.restrict", filters=filters))
        assert full.data["limit"] == "persistent_bytes_per_user", full.data
        copies = []
        for _ in range(15):
            copy = client_of(broker, ONE)
            copy.attach(client.call("session.clone")["token"])
            copies.append(copy)
            full = refusal(copy.open)
            assert full.data["limit"] == "persistent_bytes_per_user", full.data
        assert client.worker() == worker
        assert client.call("policy.whoami")["restrictions"] == 2
    finally:
        broker.close()


def run(program):
    if os.geteuid() != 0:
        # Two users are needed, and the list of all sessions is root's.
        print("SKIPPED (needs root): sessions that wait without a worker")
        return
    for crash in (killed_worker, killed_service):
        ports_stay_their_owners(program, crash, SHARED_IDS)
        ports_stay_their_owners(program, crash, "")
    claims_without_a_socket_end_with_the_recovery(program)
    a_full_store_keeps_for_the_worker(program)
    abandoned_connections_do_not_end_a_session(program)
    reload_reaches_sessions_that_wait(program)
    withdrawn_grant_ends_the_persistence_of_a_session_in_use(program)
    each_session_waits_for_its_own_time(program)
    sessions_that_wait_are_listed(program)
    sessions_are_listed_once_while_their_worker_changes(program)
    accept_at_the_limit_leaves_the_connection_in_the_queue(program)
    what_is_kept_of_sessions_is_limited(program)
