//! Connections and sessions beyond their limits are refused, and some are reserved for the user of the broker.

use std::time::Instant;

use serde_json::Value;
use sockbroker_test_support::{Client, Daemon, LspClient, bounded, until};

use crate::broker::limited;

/// As many connections as a limit allows, once all are served: earlier connections of the test take time to end.
fn held<const N: usize>(broker: &Daemon) -> [LspClient; N] {
    let mut clients = None;
    until("earlier connections have ended", || {
        let mut all = [(); N].map(|()| broker.lsp());
        let served = all.iter_mut().all(LspClient::is_served);
        clients = served.then_some(all);
        served
    });
    clients.unwrap()
}

#[test]
fn connections_over_their_limits_are_closed_immediately() {
    bounded(20, || {
        for name in ["connections", "connections_per_user"] {
            let broker = limited(&[(name, 2), ("connections_reserved", 0)]);
            let [mut first, second] = held(&broker);
            broker.lsp().expect_end();
            assert_eq!(broker.ndjson().read_json(), None, "{name}");
            first.expect_service();
            until("the refusal is logged", || broker.log().contains(name));
            drop(second);
            until("the broker accepts connections again", || {
                let mut third = broker.ndjson();
                third.wire.send(b"{}\n", &[]).is_ok() && third.read_json().is_some()
            });
        }
    });
}

#[test]
fn refused_connections_are_logged_at_a_limited_rate() {
    bounded(60, || {
        let limits = [("connections_per_user", 2), ("refusal_lines_per_minute", 2)];
        let mut broker = limited(&limits);
        let begun = Instant::now();
        let held = held::<2>(&broker);
        for _ in 0..300 {
            broker.lsp().expect_end();
        }
        drop(held);
        broker.process().terminate();
        until("the broker has ended", || broker.process().ended().is_some());
        let log = broker.log();
        let lines = log.lines().filter(|line| line.contains("connections_per_user")).count();
        // Three for each minute that has begun.
        let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap() + 2;
        assert!((3..=3 * minutes).contains(&lines), "{log}");
        assert!(
            log.contains("more connections refused (limit connections_per_user, uid "),
            "{log}"
        );
    });
}

#[test]
fn connections_are_reserved_for_the_user_of_the_broker() {
    bounded(20, || {
        let broker = limited(&[("connections", 1), ("connections_reserved", 2)]);
        let mut clients = held::<3>(&broker);
        broker.lsp().expect_end();
        clients.iter_mut().for_each(LspClient::expect_service);
    });
}

#[test]
fn sessions_are_reserved_for_the_user_of_the_broker() {
    bounded(20, || {
        let broker = limited(&[("sessions", 1), ("sessions_reserved", 1)]);
        let mut clients: Vec<_> = (0..3).map(|_| broker.lsp()).collect();
        let mut open = |client: &mut LspClient| client.call("session.open", Value::Null);
        let opened: Vec<_> = clients.iter_mut().map(&mut open).collect();
        assert!(!opened[0].is_fault() && !opened[1].is_fault());
        assert_eq!(opened[2].fault().limit(), "sessions");
    });
}

#[test]
fn sessions_that_are_made_at_once_get_a_place_each() {
    bounded(30, || {
        let limits = [("sessions", 1000), ("sessions_per_user", 1000), ("detect_seconds", 3600)];
        let broker = limited(&limits);
        let mut clients: Vec<_> = (0..30).map(|_| broker.lsp()).collect();
        for client in &mut clients {
            client.call("session.open", Value::Null).result();
        }
        for _ in 0..30 {
            let mut ids = Vec::new();
            for client in &mut clients {
                ids.push(client.send("session.clone", Value::Null));
            }
            for (client, id) in clients.iter_mut().zip(ids) {
                client.answer(id).result();
            }
        }
    });
}

#[test]
fn sessions_that_are_made_at_once_reach_the_limit_of_their_user() {
    bounded(180, || {
        for _ in 0..10 {
            // A connection waits for its first byte until those before it have a session.
            let broker = limited(&[("sessions_per_user", 96), ("detect_seconds", 3600)]);
            let mut clients: Vec<_> = (0..48).map(|_| broker.lsp()).collect();
            for client in &mut clients {
                client.call("session.open", Value::Null).result();
            }
            let send = |client: &mut LspClient| client.send("session.clone", Value::Null);
            let ids: Vec<_> = clients.iter_mut().map(send).collect();
            for (client, id) in clients.iter_mut().zip(ids) {
                client.answer(id).result();
            }
            let refused = clients[0].call("session.clone", Value::Null);
            assert_eq!(refused.fault().limit(), "sessions_per_user");
        }
    });
}

#[test]
fn sessions_over_their_limits_are_refused() {
    bounded(20, || {
        for limit in ["sessions", "sessions_per_user"] {
            let broker = limited(&[(limit, 1), ("sessions_reserved", 0)]);
            let (mut first, mut second) = (broker.lsp(), broker.lsp());
            let opened = first.call("session.open", Value::Null);
            assert_eq!(second.call("session.open", Value::Null).fault().limit(), limit);
            assert_eq!(first.call("session.clone", Value::Null).fault().limit(), limit);
            // Opening an opened session again makes no further one, and implicit sessions are not counted.
            assert_eq!(first.call("session.open", Value::Null).result(), opened.result());
            second.call("socket.socket", Value::Null).handle();
            drop(first);
            until("the first has ended", || !second.call("session.open", Value::Null).is_fault());
        }
    });
}
