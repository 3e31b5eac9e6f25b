//! Attempts to exceed a quota: they fail, and they do not affect other users.

use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::{Folder, LspClient, base64, until};

use crate::arena::{attacker, neighbour, run_with};
use crate::inputs::EVERYTHING;

#[test]
fn further_sessions_give_no_further_handles() {
    let test = concat!(module_path!(), "::further_sessions_give_no_further_handles");
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
            // A clone would have the same handles again.
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
fn further_connections_give_no_further_waiting_calls() {
    let test = concat!(module_path!(), "::further_connections_give_no_further_waiting_calls");
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
                // Refusals arrive immediately, in place of the answer.
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
            assert!(waiting <= 8 + count_unread_answers(&mut connections), "{waiting} wait");
            let mut other = neighbour().lsp(&arena.broker);
            let (left, right) = other.pair();
            let waits = other.send("socket.recv", json!([left, 2]));
            other.call("socket.send", json!([right, "aGk="])).result();
            assert_eq!(other.answer(waits).data(), b"hi");
        },
    );
}

/// Counts refusals that arrived while a client waited for another answer.
fn count_unread_answers(connections: &mut [LspClient]) -> usize {
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

/// Many connections whose answers with descriptors nobody reads. Workers share the id of the broker, for which the
/// kernel counts the descriptors in flight.
#[test]
fn descriptors_that_nobody_receives_leave_those_of_others() {
    let test = concat!(module_path!(), "::descriptors_that_nobody_receives_leave_those_of_others");
    run_with(
        test,
        |start| start.open_files(1024),
        |arena| {
            let mut other = neighbour().lsp(&arena.broker);
            let (socket, _) = other.pair();
            let ask = |count: usize| {
                let mut client = attacker().lsp(&arena.broker);
                let (socket, _) = client.pair();
                let request = json!({
                    "jsonrpc": "2.0", "id": 7, "method": "socket.fileno", "params": [socket]
                });
                let requests = LspClient::frame(&request.to_string(), None, 0).repeat(count);
                client.wire.send(&requests, &[]).unwrap();
                client
            };
            let connections: Vec<_> = (0..24).map(|_| ask(80)).collect();
            let answer = other.call("socket.fileno", json!([socket]));
            assert_eq!(answer.descriptors.len(), 1, "{}", answer.json);
            let received = |count: usize| {
                let mut client = ask(count);
                (0..count)
                    .map_while(|_| client.next_answer())
                    .filter(|answer| answer.descriptors.len() == 1)
                    .count()
            };
            assert!(received(30) < 30, "the limit is reached");
            // What nobody can receive any more counts no longer.
            drop(connections);
            until("descriptors of the user are passed again", || received(30) == 30);
        },
    );
}

#[test]
fn waiting_polls_count_as_descriptors() {
    let test = concat!(module_path!(), "::waiting_polls_count_as_descriptors");
    run_with(
        test,
        |start| start.limit("buffered_descriptors_per_user", 20),
        |mut arena| {
            let (socket, _peer) = arena.attacker.pair();
            let polls: Vec<_> = (0..20)
                .map(|_| arena.attacker.send("socket.poll", json!([[[socket, "POLLPRI"]]])))
                .collect();
            let further = arena.attacker.call("socket.poll", json!([[[socket, "POLLPRI"]]]));
            assert_eq!(further.fault().limit(), "buffered_descriptors_per_user");
            // A poll that does not wait needs none.
            arena.attacker.call("socket.poll", json!([[[socket, "POLLPRI"]], 0])).result();
            arena.attacker.cancel(polls[0]);
            arena.attacker.answer(polls[0]).fault();
            arena.attacker.send("socket.poll", json!([[[socket, "POLLPRI"]]]));
            arena.attacker.expect_service();
            assert!(!arena.attacker.has_unread_answer());
        },
    );
}

#[test]
fn connections_over_the_quota_are_closed_and_other_users_admitted() {
    let test =
        concat!(module_path!(), "::connections_over_the_quota_are_closed_and_other_users_admitted");
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
fn administrator_can_connect_if_all_connections_are_in_use() {
    let test = concat!(module_path!(), "::administrator_can_connect_if_all_connections_are_in_use");
    run_with(
        test,
        |start| start.limit("connections", 3).limit("connections_reserved", 1),
        |mut arena| {
            // After the connection of the start-up check, which is closed by then.
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
fn administrator_can_open_a_session_if_all_sessions_are_in_use() {
    let test =
        concat!(module_path!(), "::administrator_can_open_a_session_if_all_sessions_are_in_use");
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
            // The first call of every program that uses the client library.
            arena.broker.lsp().call("session.open", Value::Null).result();
        },
    );
}

#[test]
fn message_flood_is_slowed_and_other_users_are_not() {
    let test = concat!(module_path!(), "::message_flood_is_slowed_and_other_users_are_not");
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
                assert!(sent < 1000, "the flood is not slowed");
                if sent % 8 == 0 {
                    arena.attacker.call("socket.recv", json!([left, 1]));
                }
            };
            // The kernel limits its queues; the broker limits its memory.
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
fn bytes_gathered_for_waiting_receives_count_as_held_memory() {
    let test =
        concat!(module_path!(), "::bytes_gathered_for_waiting_receives_count_as_held_memory");
    run_with(
        test,
        |start| start.limit("buffered_bytes_per_user", 100_000),
        |mut arena| {
            let attacker = &mut arena.attacker;
            let (left, right) = attacker.pair();
            let (other, _) = attacker.pair();
            let wait = |handle| json!([handle, 60_000, "MSG_WAITALL"]);
            let gathering = attacker.send("socket.recv", wait(left));
            let refused = attacker.call("socket.recv", wait(other)).fault();
            assert_eq!(refused.limit(), "buffered_bytes_per_user");
            // The bytes that a cancelled call had gathered stay charged until they are read.
            let sent = attacker.call("socket.send", json!([right, base64(vec![7; 50_000])]));
            assert_eq!(*sent.result(), 50_000);
            until("the bytes are gathered", || {
                let queued = attacker.call("socket.poll", json!([[[left, "POLLIN"]], 0]));
                queued.result().as_array().unwrap().is_empty()
            });
            attacker.cancel(gathering);
            assert_eq!(attacker.answer(gathering).fault().kind().0, -32800);
            let refused = attacker.call("socket.recv", wait(other)).fault();
            assert_eq!(refused.limit(), "buffered_bytes_per_user");
            for _ in 0..5 {
                let part = attacker.call("socket.recv", json!([left, 10_000])).data();
                assert_eq!(part.len(), 10_000);
            }
            let waiting = attacker.send("socket.recv", wait(other));
            attacker.expect_service();
            attacker.cancel(waiting);
            assert_eq!(attacker.answer(waiting).fault().kind().0, -32800);
        },
    );
}

#[test]
fn one_message_cannot_name_combinations_without_limit() {
    let test = concat!(module_path!(), "::one_message_cannot_name_combinations_without_limit");
    run_with(
        test,
        |start| {
            let rules = format!(
                "{EVERYTHING}[[rule]]\nname = \"not so\"\nsubject = {{ uids = [4200001] }}\n\
                 deny = [\"send\"]\nremote = [\"fd99::66\"]\nlocal = [\"fd99::77\"]\n"
            );
            start.folder().write("policy.toml", &rules);
            start.limit("message_routes", 32)
        },
        |mut arena| {
            let udp = arena.udp6();
            // Two addresses in a routing header of type 4 (RFC 8754), and sources (struct in6_pktinfo).
            let hops = [&[59, 4, 4, 1, 1, 0, 0, 0][..], &[9; 32]].concat();
            let message = |sources: u8| {
                let source = |last| base64([&[0xfd; 15][..], &[last], &[0; 4]].concat());
                let items = (0..sources).map(|last| ["IPV6_PKTINFO".to_owned(), source(last)]);
                let route = ["IPV6_RTHDR".to_owned(), base64(&hops)];
                let items: Vec<_> = items
                    .chain([route])
                    .map(|[name, data]| json!(["IPPROTO_IPV6", name, data]))
                    .collect();
                json!([udp, ["aGk="], items, 0, ["::1", 9]])
            };
            // The destination and two hops; the sources and that of the socket: 30 combinations, and 33.
            let within = arena.attacker.call("socket.sendmsg", message(9)).fault();
            assert_eq!(within.kind().1, "OSError", "{within:?}");
            let refused = arena.attacker.call("socket.sendmsg", message(10)).fault();
            assert_eq!(refused.limit(), "message_routes");
        },
    );
}

#[test]
fn one_attachment_cannot_be_multiplied_by_references() {
    let test = concat!(module_path!(), "::one_attachment_cannot_be_multiplied_by_references");
    run_with(
        test,
        |start| start,
        |mut arena| {
            let (left, right) = arena.attacker.pair();
            let part = json!({ "attachment": 0 });
            let item = json!(["SOL_SOCKET", 99, part]);
            for params in [
                json!([left, [part, part]]),
                json!([left, ["aGk="], [item, item]]),
                json!([left, [part], [item]]),
            ] {
                let refused = arena.attacker.call_with_parts(
                    "socket.sendmsg",
                    params.clone(),
                    RequestParts::attachments(&[b"data"]),
                );
                let message = refused.fault().message;
                assert!(message.contains("attachment 0 is used twice"), "{params}: {message}");
            }
            let parts = RequestParts::attachments(&[b"data"]);
            let sent =
                arena.attacker.call_with_parts("socket.sendmsg", json!([left, [part]]), parts);
            assert_eq!(*sent.result(), 4);
            assert_eq!(arena.attacker.call("socket.recv", json!([right, 9])).data(), b"data");
        },
    );
}

#[test]
fn restrictions_of_many_sessions_cannot_exhaust_memory() {
    let test = concat!(module_path!(), "::restrictions_of_many_sessions_cannot_exhaust_memory");
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
            // Each needs about 400 kB, as text and as rules, so 1 MiB is enough for two.
            assert_eq!(refused, 158);
            neighbour().lsp(&arena.broker).call("session.restrict", filters).result();
        },
    );
}

#[test]
fn refusals_do_not_displace_audit_records_of_other_users() {
    let test = concat!(module_path!(), "::refusals_do_not_displace_audit_records_of_other_users");
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
                // Far more than the rate limit during the neighbour's call.
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
            assert_eq!(about("\"uid\":4200002"), 20, "records of the neighbour");
            assert!(about("\"uid\":4200001") > 0, "records of the attacker");
        },
    );
}
