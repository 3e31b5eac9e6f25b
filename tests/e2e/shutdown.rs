//! The end: SIGTERM lets calls in flight come to theirs within `drain_seconds`.

use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, Daemon, HANG, bounded, pause};

use crate::broker::{broker, limited, prepare};

/// Asks the broker to end, and waits until it no longer accepts.
fn terminate(broker: &mut Daemon) {
    broker.process().terminate();
    let path = broker.socket().to_owned();
    sockbroker_test_support::until("nobody is accepted any more", || {
        UnixStream::connect(&path).is_err()
    });
}

#[test]
fn calls_in_flight_may_end_and_new_ones_are_not_taken() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 60)]);
        let (mut client, mut lines) = (broker.lsp(), broker.ndjson());
        let (left, right) = client.pair();
        let receive = client.send("socket.recv", json!([right, 9]));
        let poll = client.send("socket.poll", json!([[], 0.4]));
        lines.send_json(&request(1, "socket.poll", json!([[], 0.4])));
        // Answered first: what came before it has begun.
        lines.send_json(&request(2, "socket.htons", json!([1])));
        assert_eq!(lines.read_json().unwrap()["id"], 2);
        client.expect_service();
        terminate(&mut broker);
        client.send("socket.send", json!([left, "aGk="]));
        assert_eq!(*client.answer(poll).result(), json!([]));
        assert_eq!(lines.read_json().unwrap()["result"], json!([]));
        assert_eq!(lines.read_json(), None);
        client.expect_silence_for(100);
        let _ = receive;
    });
}

#[test]
fn drain_seconds_bounds_that_and_what_waits_then_is_answered_as_cancelled() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 1)]);
        let path = broker.socket().to_owned();
        let mut client = broker.lsp();
        let (_, right) = client.pair();
        let receive = client.send("socket.recv", json!([right, 9]));
        client.expect_service();
        terminate(&mut broker);
        assert_eq!(client.answer(receive).fault().kind(), (-32800, "cancelled"));
        client.expect_end();
        assert!(broker.process().ends().success());
        assert!(!path.exists());
    });
}

#[test]
fn idle_connections_of_every_spelling_do_not_hold_it_up() {
    bounded(20, || {
        let mut broker = broker();
        let (mut framed, mut lines) = (broker.lsp(), broker.ndjson());
        let (mut web, mut socket) = (broker.http(), broker.websocket());
        framed.expect_service();
        let clients: [&mut dyn Client; 3] = [&mut lines, &mut web, &mut socket];
        for client in clients {
            client.call("socket.htons", json!([1])).result();
        }
        terminate(&mut broker);
        assert!(broker.process().ends().success());
        framed.expect_end();
        assert_eq!(lines.read_json(), None);
    });
}

#[test]
fn connections_that_have_said_nothing_do_not_hold_it_up() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 1)]);
        let _silent = broker.connect();
        broker.lsp().expect_service();
        terminate(&mut broker);
        assert!(broker.process().ends().success());
    });
}

#[test]
fn a_request_over_http_that_waits_is_bounded_by_drain_seconds_too() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 1)]);
        let mut quick = broker.http();
        let mut slow = broker.http();
        quick.send_json(&request(1, "socket.poll", json!([[], 0.3])));
        slow.send_json(&request(1, "socket.poll", json!([[], 60])));
        let half = broker.http();
        half.wire
            .send(
                b"POST / HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
                &[],
            )
            .unwrap();
        pause(300);
        terminate(&mut broker);
        assert_eq!(quick.read_json().unwrap()["result"], json!([]));
        assert!(broker.process().ends().success());
    });
}

#[test]
fn sigint_is_an_end_too_and_handles_close() {
    bounded(20, || {
        let mut broker = broker();
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        client.lend(&theirs);
        drop(theirs);
        let number = broker.process().number().to_string();
        assert!(Command::new("kill").args(["-INT", &number]).status().unwrap().success());
        assert!(broker.process().ends().success());
        ours.set_read_timeout(Some(HANG)).unwrap();
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_peer_that_does_not_read_does_not_hold_it_up() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 1)]);
        let client = broker.ndjson();
        let call = format!("{}\n", request(1, "rpc.discover", Value::Null));
        client.wire.send(call.repeat(20).as_bytes(), &[]).unwrap();
        pause(200);
        terminate(&mut broker);
        assert!(broker.process().ends().success());
    });
}

#[test]
fn sessions_that_linger_end_with_it() {
    bounded(20, || {
        let mut broker = broker();
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        client.call("session.open", json!({ "linger": 600 })).result();
        client.lend(&theirs);
        drop(theirs);
        drop(client);
        pause(50);
        terminate(&mut broker);
        assert!(broker.process().ends().success());
        ours.set_read_timeout(Some(HANG)).unwrap();
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
    });
}

#[test]
fn sigterm_is_minded_as_soon_as_the_socket_is_there() {
    bounded(20, || {
        for _ in 0..20 {
            let (mut command, folder) = prepare().command();
            let path = folder.join("socket");
            command.arg("--socket").arg(&path);
            let mut process = Process::spawn(command);
            while UnixStream::connect(&path).is_err() {
                std::thread::yield_now();
            }
            process.terminate();
            assert!(process.ends().success());
            assert!(!path.exists());
        }
    });
}
