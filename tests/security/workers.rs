//! Attacks on the processes of the broker: a user's worker that crashes, stops, floods or lingers does not affect
//! other users, and nobody gets more workers than the limits allow.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::{message, option};
use sockbroker_test_support::daemon::{kill_process, stop_process};
use sockbroker_test_support::{Daemon, LspClient, User, base64, until};

use crate::arena::{POLICY, attacker, metric, neighbour, run_with, served};

/// The process that serves a user.
fn worker_of(broker: &mut Daemon, user: &User) -> u32 {
    broker.process().worker_of(user.uid()).unwrap()
}

/// The users that have sessions, once a user is among them: the answer leaves out workers that do not answer within a
/// second.
fn users_with(admin: &mut LspClient, user: &User) -> Vec<Value> {
    let mut users = Vec::new();
    until("the sessions of the user are listed", || {
        let sessions = admin.call("admin.sessions", Value::Null).result().clone();
        users = sessions.as_array().unwrap().iter().map(|one| one["uid"].clone()).collect();
        users.contains(&json!(user.uid()))
    });
    users
}

attack!(counters_of_ended_workers_do_not_fall, mut arena, {
    const CALLS: &str = "sockbroker_calls_total{method=\"socket.htons\"";
    for _ in 0..10 {
        arena.attacker.call("socket.htons", json!([1])).result();
    }
    let before = metric(&arena.broker, CALLS);
    assert!(before >= 10, "{before}");
    for round in 1..4 {
        kill_process(worker_of(&mut arena.broker, &attacker()));
        assert!(arena.attacker.wire.ends());
        // The connection ends before the monitor learns that the process has ended.
        until("the end is counted", || {
            let ended = "sockbroker_workers_ended_total{reason=\"unexpected\"}";
            metric(&arena.broker, ended) == round
        });
        assert!(metric(&arena.broker, CALLS) >= before);
        arena.attacker = served(&arena.broker, &attacker());
    }
    assert_eq!(metric(&arena.broker, "sockbroker_workers "), 2);
    assert_eq!(metric(&arena.broker, "sockbroker_workers_started_total "), 5);
});

attack!(a_stopped_worker_delays_neither_others_nor_administrators, mut arena, {
    arena.attacker.expect_service();
    let mut other = neighbour().lsp(&arena.broker);
    other.expect_service();
    let worker = worker_of(&mut arena.broker, &attacker());
    stop_process(worker);
    other.expect_service();
    neighbour().lsp(&arena.broker).expect_service();
    // It does not answer, and the others do.
    let mut root = arena.broker.lsp();
    let users = users_with(&mut root, &neighbour());
    assert!(!users.contains(&json!(attacker().uid())), "{users:?}");
    // It cannot keep the old policy either.
    root.call("admin.reload", Value::Null).result();
    assert!(arena.attacker.wire.ends());
    served(&arena.broker, &attacker()).expect_service();
    other.expect_service();
});

attack!(a_closed_socket_that_lingers_delays_no_other_user, mut arena, {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = arena.tcp();
    let linger = base64([1_i32.to_ne_bytes(), 60_i32.to_ne_bytes()].concat());
    let linger = json!([socket, "SOL_SOCKET", "SO_LINGER", linger]);
    arena.attacker.call("socket.setsockopt", linger).result();
    arena.attacker.call("socket.connect", json!([socket, ["127.0.0.1", port]])).result();
    arena.attacker.call("socket.settimeout", json!([socket, 0])).result();
    let data = base64(vec![0; 100_000]);
    while !arena.attacker.call("socket.send", json!([socket, data])).is_fault() {}
    let mut other = neighbour().lsp(&arena.broker);
    other.expect_service();
    let close = arena.attacker.send("socket.close", json!([socket]));
    other.expect_service();
    neighbour().lsp(&arena.broker).expect_service();
    // The peer ends, and the close with it.
    drop(listener);
    arena.attacker.answer(close).result();
});

/// A socket whose last close waits for its peer for an hour.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let linger = [1_i32.to_ne_bytes(), 3600_i32.to_ne_bytes()].concat();
    option::set_bytes(own.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    while message::send(own.as_fd(), &[0; 10_000], libc::MSG_DONTWAIT).is_ok() {}
    (own, peer)
}

#[test]
fn descriptors_on_a_refused_connection_do_not_delay_the_monitor() {
    let test =
        concat!(module_path!(), "::descriptors_on_a_refused_connection_do_not_delay_the_monitor");
    run_with(
        test,
        |start| start.limit("connections_per_user", 1),
        |mut arena| {
            arena.attacker.expect_service();
            let mut other = neighbour().lsp(&arena.broker);
            other.expect_service();
            let mut refused: Vec<UnixStream> = Vec::new();
            let socket = arena.broker.socket().to_owned();
            let peers: Vec<TcpStream> = arena.broker.process().stopped_during(|| {
                let send = |_| {
                    let (own, peer) = lingering();
                    let path = socket.clone();
                    let client = attacker().run(move || UnixStream::connect(path)).unwrap();
                    LspClient::over(client.try_clone().unwrap())
                        .wire
                        .send(b"C", &[own.as_fd()])
                        .unwrap();
                    refused.push(client);
                    peer
                };
                (0..5).map(send).collect()
            });
            // The connections were refused before this one.
            for mut client in refused {
                assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
            }
            neighbour().lsp(&arena.broker);
            other.expect_service();
            drop(other);
            served(&arena.broker, &neighbour()).expect_service();
            drop(peers);
        },
    );
}

#[test]
fn workers_are_limited_in_all_and_one_is_kept_for_root() {
    let test = concat!(module_path!(), "::workers_are_limited_in_all_and_one_is_kept_for_root");
    run_with(
        test,
        |start| start.limit("workers", 2),
        |mut arena| {
            arena.attacker.expect_service();
            let mut refused = neighbour().lsp(&arena.broker);
            refused.send("socket.htons", json!([1]));
            refused.expect_end();
            arena.broker.lsp().expect_service();
            until("the refusal is logged", || arena.broker.log().contains("limit=\"workers\""));
        },
    );
}

#[test]
fn workers_of_one_user_are_limited() {
    let test = concat!(module_path!(), "::workers_of_one_user_are_limited");
    run_with(
        test,
        |start| start.limit("workers_per_user", 2),
        |mut arena| {
            arena.attacker.expect_service();
            let uid = attacker().uid();
            let mut second = User::new(uid, uid, &[7]).lsp(&arena.broker);
            second.expect_service();
            let mut third = User::new(uid, uid, &[8]).lsp(&arena.broker);
            third.send("socket.htons", json!([1]));
            third.expect_end();
            until("the refusal is logged", || {
                arena.broker.log().contains("limit=\"workers_per_user\"")
            });
            // Principals that have a worker are served.
            User::new(uid, uid, &[7]).lsp(&arena.broker).expect_service();
            neighbour().lsp(&arena.broker).expect_service();
        },
    );
}

#[test]
fn starts_of_workers_are_limited() {
    let test = concat!(module_path!(), "::starts_of_workers_are_limited");
    run_with(
        test,
        |start| start.limit("worker_starts_per_second", 1),
        |mut arena| {
            arena.attacker.expect_service();
            // A worker that crashes without end is not started without end.
            until("a start is refused", || {
                if let Some(worker) = arena.broker.process().worker_of(attacker().uid()) {
                    kill_process(worker);
                }
                let mut client = attacker().lsp(&arena.broker);
                client.is_served();
                arena.broker.log().contains("limit=\"worker_starts_per_second\"")
            });
            neighbour().lsp(&arena.broker).expect_service();
            served(&arena.broker, &attacker()).expect_service();
        },
    );
}

#[test]
fn an_idle_worker_ends_and_the_next_connection_starts_another() {
    let test =
        concat!(module_path!(), "::an_idle_worker_ends_and_the_next_connection_starts_another");
    run_with(
        test,
        |start| start.limit("worker_idle_seconds", 1),
        |mut arena| {
            let mut held = neighbour().lsp(&arena.broker);
            held.expect_service();
            arena.attacker.expect_service();
            let first = worker_of(&mut arena.broker, &attacker());
            drop(arena.attacker);
            until("the worker ends", || {
                arena.broker.process().worker_of(attacker().uid()).is_none()
            });
            let mut client = attacker().lsp(&arena.broker);
            client.expect_service();
            assert_ne!(worker_of(&mut arena.broker, &attacker()), first);
            // A connection keeps its worker.
            held.expect_service();
        },
    );
}

attack!(the_administrator_sees_the_sessions_and_handles_of_every_worker, mut arena, {
    let handle = arena.tcp();
    let mut other = neighbour().lsp(&arena.broker);
    other.expect_service();
    let mut root = arena.broker.lsp();
    let mut sessions = Value::Null;
    until("all workers answer", || {
        sessions = root.call("admin.sessions", Value::Null).result().clone();
        let is_listed =
            |user: User| sessions.as_array().unwrap().iter().any(|one| one["uid"] == user.uid());
        is_listed(attacker()) && is_listed(neighbour())
    });
    let sessions = sessions.as_array().unwrap();
    let of = |user: &User| {
        let mut found = sessions.iter().filter(|one| one["uid"] == user.uid());
        found.next().expect("a session of the user")["session"].as_u64().unwrap()
    };
    assert_ne!(of(&attacker()), of(&neighbour()));
    let handles = root.call("admin.handles", json!([of(&attacker())])).result().clone();
    assert_eq!(handles[0]["handle"], handle);
    assert_eq!(handles.as_array().unwrap().len(), 1);
    let page = arena.broker.http().request("GET /metrics", &[], b"");
    let page = String::from_utf8(page.body).unwrap();
    let sample = |name: &str| {
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{page}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(sample("sockbroker_sessions{kind=\"implicit\"}") >= 3, "{page}");
    assert_eq!(sample("sockbroker_handles{family=\"AF_INET\"}"), 1);
    assert_eq!(sample("sockbroker_policy_number"), 1);
    // Others see their own only.
    let refused = other.call("admin.sessions", Value::Null);
    assert_eq!(refused.fault().kind(), (3000, "denied"));
});

attack!(a_port_or_group_of_another_users_worker_cannot_be_joined, mut arena, {
    let server = json!({ "address": ["127.0.0.1", 8080], "reuse_port": true });
    let own = arena.attacker.call("socket.create_server", server.clone()).handle();
    // The same user shares it, over connections and sessions.
    attacker().lsp(&arena.broker).call("socket.create_server", server.clone()).handle();
    let mut other = neighbour().lsp(&arena.broker);
    let refused = other.call("socket.create_server", server.clone());
    assert_eq!(refused.fault().errno(), "EADDRINUSE");
    // Also if the first socket gets the option after bind.
    let late = arena.tcp();
    arena.attacker.call("socket.bind", json!([late, ["127.0.0.1", 8081]])).result();
    let shared = json!([late, "SOL_SOCKET", "SO_REUSEPORT", 1]);
    arena.attacker.call("socket.setsockopt", shared).result();
    let at = json!({ "address": ["0.0.0.0", 8081], "reuse_port": true });
    let refused = other.call("socket.create_server", at);
    assert!(refused.is_fault());
    // A free port is the neighbour's own, and the attacker's after its last socket is closed.
    let free = json!({ "address": ["127.0.0.1", 0], "reuse_port": true });
    let theirs = other.call("socket.create_server", free).handle();
    let name = other.call("socket.getsockname", json!([theirs])).result().clone();
    let join = json!({ "address": name, "reuse_port": true });
    let refused = arena.attacker.call("socket.create_server", join.clone());
    assert_eq!(refused.fault().errno(), "EADDRINUSE");
    other.call("socket.close", json!([theirs])).result();
    // The monitor learns of the end from one worker, and of the request from another.
    until("the port is free", || {
        !arena.attacker.call("socket.create_server", join.clone()).is_fault()
    });
    arena.attacker.call("socket.close", json!([own])).result();
});

attack!(a_granted_administrator_sees_every_worker, mut arena, {
    arena.attacker.expect_service();
    let mut admin = neighbour().lsp(&arena.broker);
    admin.expect_service();
    assert!(admin.call("admin.sessions", Value::Null).is_fault());
    let rule = format!(
        "\n[[rule]]\nname = \"admin\"\nallow = [\"admin\"]\nsubject = {{ uids = [{}] }}\n",
        neighbour().uid()
    );
    arena.broker.folder().write("policy.toml", &format!("{POLICY}{rule}"));
    arena.broker.lsp().call("admin.reload", Value::Null).result();
    users_with(&mut admin, &attacker());
    // A deny takes precedence, also over root.
    let rule = "\n[[rule]]\nname = \"nobody\"\ndeny = [\"admin\"]\nsubject = { uids = [0] }\n";
    arena.broker.folder().write("policy.toml", &format!("{POLICY}{rule}"));
    let mut root = arena.broker.lsp();
    root.call("admin.reload", Value::Null).result();
    assert_eq!(root.call("admin.sessions", Value::Null).fault().kind(), (3000, "denied"));
});
