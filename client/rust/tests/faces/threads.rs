//! Threads and tasks that share a broker.

use std::process::Command;
use std::sync::Arc;
use std::thread;

use sockbroker_client::blocking::Broker;
use sockbroker_client::{Domain, Protocol, Type};
use sockbroker_test_support::{binary, until};

use crate::setup::{bounded, connect, daemon, run};

/// Runs pairs of threads: one waits for the byte that the other one sends after some calls.
fn many_threads(broker: &Broker, count: u8) {
    thread::scope(|scope| {
        for number in 0..count {
            let (left, right) =
                broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).unwrap();
            scope.spawn(move || {
                let mut buffer = [0];
                assert_eq!(right.recv(&mut buffer).unwrap(), 1);
                assert_eq!(buffer, [number]);
            });
            scope.spawn(move || {
                for _ in 0..20 {
                    assert!(left.local_addr().unwrap().to_inet().is_none());
                }
                left.send_all(&[number]).unwrap();
            });
        }
    });
}

#[test]
fn waiting_threads_have_their_own_connections() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        many_threads(&broker, 20);
        let info = broker.session().unwrap();
        assert!(info.connections > 2, "{info:?}");
        // Requests of different connections are not ordered.
        until("all handles are closed", || broker.session().unwrap().handles == 0);
    });
}

#[test]
fn threads_beyond_the_connection_limit_share_the_anchor() {
    bounded(20, || {
        let daemon = daemon();
        many_threads(&connect(&daemon), 90);
    });
}

#[test]
fn threads_share_the_connection_of_a_private_broker() {
    bounded(20, || {
        let mut command = Command::new(binary::broker());
        command.arg("--stdio");
        let broker = Broker::spawn_command(command).unwrap();
        many_threads(&broker, 30);
        assert_eq!(broker.session().unwrap().connections, 1);
    });
}

#[test]
fn tasks_pipeline_over_one_connection() {
    run(async |broker| {
        let broker = Arc::new(broker);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let broker = Arc::clone(&broker);
            tasks.spawn(async move {
                let (left, right) =
                    broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).await.unwrap();
                let mut buffer = [0; 3];
                let (received, sent) = tokio::join!(right.recv(&mut buffer), left.send(b"abc"));
                assert_eq!((received.unwrap(), sent.unwrap()), (3, 3));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let info = broker.session().await.unwrap();
        assert_eq!((info.connections, info.handles), (1, 0));
    });
}
