//! More than one's share, by whatever way; the neighbour is to feel nothing.

use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::{Folder, LspClient, until};

use crate::arena::{attacker, neighbour, run_with};

#[test]
fn more_handles_are_not_to_be_had_by_more_sessions() {
    let test = concat!(module_path!(), "::more_handles_are_not_to_be_had_by_more_sessions");
    run_with(
        test,
        |start| start.limit("handles_per_user", 20),
        |mut arena| {
            let mut made = 0;
            let mut connections = Vec::new();
            for _ in 0..6 {
                let mut client = attacker().lsp(&arena.broker);
                client.call("session.open", Value::Null).result();
                for _ in 0..6 {
                    let answer = client.call("socket.socket", Value::Null);
                    if answer.is_fault() {
                        assert_eq!(answer.fault().limit(), "handles_per_user");
                    } else {
                        made += 1;
                    }
                }
                connections.push(client);
            }
            assert_eq!(made, 20);
            // A clone would have them once more.
            let clone = connections[0].call("session.clone", Value::Null);
            assert_eq!(clone.fault().limit(), "handles_per_user");
            let refused = arena.attacker.call("socket.socketpair", Value::Null);
            assert_eq!(refused.fault().limit(), "handles_per_user");
            let mut other = neighbour().lsp(&arena.broker);
            for _ in 0..20 {
                other.call("socket.socket", Value::Null).handle();
            }
        },
    );
}

#[test]
fn more_waiting_calls_are_not_to_be_had_by_more_connections() {
    let test =
        concat!(module_path!(), "::more_waiting_calls_are_not_to_be_had_by_more_connections");
    run_with(
        test,
        |start| start.limit("calls_in_flight_per_user", 8).limit("calls_in_flight", 4),
        |arena| {
            let mut waiting = 0;
            let mut connections = Vec::new();
            for _ in 0..4 {
                let mut client = attacker().lsp(&arena.broker);
                let udp = client.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
                client.call("socket.bind", json!([udp, ["127.0.0.1", 0]])).result();
                for _ in 0..5 {
                    client.send("socket.recv", json!([udp, 1]));
                }
                // Refusals come at once, in place of an answer.
                client.expect_service();
                waiting += 5;
                while client.wire.receives_within(Duration::from_millis(20)) {
                    let answer = client.next_answer().unwrap();
                    let limit = answer.fault().limit().to_owned();
                    assert!(limit.starts_with("calls_in_flight"), "{limit}");
                    waiting -= 1;
                }
                connections.push(client);
            }
            assert!(waiting <= 8 + early(&mut connections), "{waiting} wait");
            let mut other = neighbour().lsp(&arena.broker);
            let (left, right) = other.pair();
            let waits = other.send("socket.recv", json!([left, 2]));
            other.call("socket.send", json!([right, "aGk="])).result();
            assert_eq!(other.answer(waits).data(), b"hi");
        },
    );
}

/// Refusals that were read while another answer was waited for.
fn early(connections: &mut [LspClient]) -> usize {
    let mut count = 0;
    for client in connections {
        while client.has_unread_answer() {
            let answer = client.next_answer().unwrap();
            assert!(answer.fault().limit().starts_with("calls_in_flight"));
            count += 1;
        }
    }
    count
}

#[test]
fn connections_beyond_the_share_are_closed_and_the_neighbour_is_let_in() {
    let test = concat!(
        module_path!(),
        "::connections_beyond_the_share_are_closed_and_the_neighbour_is_let_in"
    );
    run_with(
        test,
        |start| start.limit("connections_per_user", 3),
        |mut arena| {
            let mut more: Vec<_> = (0..2).map(|_| attacker().lsp(&arena.broker)).collect();
            more.iter_mut().for_each(LspClient::expect_service);
            for _ in 0..5 {
                let mut closed = attacker().lsp(&arena.broker);
                assert!(closed.wire.ends());
            }
            neighbour().lsp(&arena.broker).expect_service();
            arena.attacker.expect_service();
        },
    );
}

#[test]
fn holding_every_connection_does_not_keep_the_administrator_out() {
    let test =
        concat!(module_path!(), "::holding_every_connection_does_not_keep_the_administrator_out");
    run_with(
        test,
        |start| start.limit("connections", 3).limit("connections_reserved", 1),
        |mut arena| {
            // Behind the connection of the start, which then can only end.
            arena.attacker.expect_service();
            arena.broker.idle_open_files();
            let mut more: Vec<_> = (0..2).map(|_| attacker().lsp(&arena.broker)).collect();
            more.iter_mut().for_each(LspClient::expect_service);
            for user in [attacker(), neighbour()] {
                let mut closed = user.lsp(&arena.broker);
                assert!(closed.wire.ends());
            }
            let mut administrator = arena.broker.lsp();
            administrator.call("broker.info", Value::Null).result();
            for user in [attacker(), neighbour()] {
                let mut closed = user.lsp(&arena.broker);
                assert!(closed.wire.ends());
            }
        },
    );
}

#[test]
fn holding_every_session_does_not_keep_the_administrator_out() {
    let test =
        concat!(module_path!(), "::holding_every_session_does_not_keep_the_administrator_out");
    run_with(
        test,
        |start| start.limit("sessions", 2).limit("sessions_reserved", 1),
        |mut arena| {
            let mut other = attacker().lsp(&arena.broker);
            for client in [&mut arena.attacker, &mut other] {
                client.call("session.open", Value::Null).result();
            }
            let mut neighbour = neighbour().lsp(&arena.broker);
            assert_eq!(neighbour.call("session.open", Value::Null).fault().limit(), "sessions");
            // What every program of the client library begins with.
            arena.broker.lsp().call("session.open", Value::Null).result();
        },
    );
}

#[test]
fn a_flood_of_messages_is_slowed_and_the_neighbours_are_not() {
    let test =
        concat!(module_path!(), "::a_flood_of_messages_is_slowed_and_the_neighbours_are_not");
    run_with(
        test,
        |start| start.limit("packets_per_second", 100),
        |mut arena| {
            let (left, _) = arena.attacker.pair_of("SOCK_DGRAM");
            arena.attacker.call("socket.setblocking", json!([left, false])).result();
            let mut sent = 0;
            let refused = loop {
                let answer = arena.attacker.call("socket.send", json!([left, "aGk="]));
                if answer.is_fault() {
                    break answer.fault();
                }
                sent += 1;
                assert!(sent < 1000, "nothing slows the flood");
                if sent % 8 == 0 {
                    arena.attacker.call("socket.recv", json!([left, 1]));
                }
            };
            // Full queues are the kernel's; the limit is the broker's.
            assert!(["limit", "OSError"].contains(&refused.data.kind.as_str()), "{refused:?}");
            let mut other = neighbour().lsp(&arena.broker);
            let (left, right) = other.pair();
            for _ in 0..40 {
                other.call("socket.send", json!([left, "aGk="])).result();
                other.call("socket.recv", json!([right, 2])).result();
            }
        },
    );
}

#[test]
fn memory_is_not_to_be_had_by_restrictions_of_many_sessions() {
    let test =
        concat!(module_path!(), "::memory_is_not_to_be_had_by_restrictions_of_many_sessions");
    run_with(
        test,
        |start| start,
        |arena| {
            let path = |number: usize| format!("/{number:04000}");
            let paths: Vec<_> = (0..50).map(path).collect();
            let filters = json!({ "filters": [{ "allow": ["connect"], "path": paths }] });
            let mut held = Vec::new();
            let mut refused = 0;
            for _ in 0..10 {
                let mut client = attacker().lsp(&arena.broker);
                for _ in 0..16 {
                    let answer = client.call("session.restrict", filters.clone());
                    if answer.is_fault() {
                        assert_eq!(answer.fault().limit(), "restriction_bytes_per_user");
                        refused += 1;
                    }
                }
                held.push(client);
            }
            // Each takes about 200 kB, of which 1 MiB has room for five.
            assert_eq!(refused, 155);
            neighbour().lsp(&arena.broker).call("session.restrict", filters).result();
        },
    );
}

#[test]
fn refusals_without_end_do_not_hide_the_records_of_the_neighbour() {
    let test =
        concat!(module_path!(), "::refusals_without_end_do_not_hide_the_records_of_the_neighbour");
    let folder = Folder::new();
    let audit = folder.join("audit");
    let to = format!("[audit]\nto = \"{}\"\n", audit.display());
    run_with(
        test,
        move |start| start.limit("audit_records_per_second", 200).section(&to),
        move |mut arena| {
            let _folder = folder;
            let mut neighbour = neighbour().lsp(&arena.broker);
            for _ in 0..20 {
                // Far more than the rate, in whatever time the neighbour's call takes.
                for _ in 0..50 {
                    arena.attacker.call("socket.sethostname", json!(["x"])).fault();
                }
                let socket = neighbour.call("socket.socket", Value::Null).handle();
                neighbour.call("socket.close", json!([socket])).result();
            }
            arena.broker.process().terminate();
            until("the broker has ended", || arena.broker.process().ended().is_some());
            let text = std::fs::read_to_string(&audit).unwrap();
            let about = |uid: &str| text.lines().filter(|line| line.contains(uid)).count();
            assert_eq!(about("\"uid\":4200002"), 20, "the neighbour's");
            assert!(about("\"uid\":4200001") > 0, "the attacker's");
        },
    );
}
