//! Shutdown: after SIGTERM, calls in flight can finish within `drain_seconds`.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, Daemon, HANG, bounded, pause, until};

use crate::broker::{broker, limited, prepare};
use crate::observe::metrics;

fn socket_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// Waits until this many calls of the user wait.
fn wait_for_waiting_calls(broker: &Daemon, count: u64) {
    let waiting = || metrics(&mut broker.http())["sockbroker_waiting_calls"];
    until("the calls wait", || waiting() == count);
}

/// Sends SIGTERM and waits until the broker no longer accepts connections.
fn terminate(broker: &mut Daemon) {
    broker.process().terminate();
    let path = broker.socket().to_owned();
    until("the broker no longer accepts connections", || UnixStream::connect(&path).is_err());
}

#[test]
fn shutdown_completes_calls_in_flight_and_accepts_no_new_ones() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 60)]);
        let (mut client, mut lines) = (broker.lsp(), broker.ndjson());
        let (left, right) = client.pair();
        let receive = client.send("socket.recv", json!([right, 9]));
        let ((mut ours, theirs), (mut peer, end)) = (socket_pair(), socket_pair());
        let handle = client.lend(&theirs);
        let waiting = client.send("socket.recv", json!([handle, 9]));
        let mut adopt = request(0, "socket.fromfd", Value::Null);
        adopt["fds"] = json!(1);
        lines.send_with(&adopt, &[end.as_fd()]);
        let handle = lines.answer().handle();
        lines.send_json(&request(1, "socket.recv", json!([handle, 9])));
        // Its answer shows that the calls before it have started.
        lines.send_json(&request(2, "socket.htons", json!([1])));
        assert_eq!(lines.read_json().unwrap()["id"], 2);
        client.expect_service();
        terminate(&mut broker);
        until("the worker accepts no calls", || broker.log().contains("accepting no new calls"));
        client.send("socket.send", json!([left, "aGk="]));
        ours.write_all(b"hi").unwrap();
        assert_eq!(client.answer(waiting).data(), b"hi");
        peer.write_all(b"hi").unwrap();
        assert_eq!(lines.read_json().unwrap()["result"]["data"], "aGk=");
        assert_eq!(lines.read_json(), None);
        client.expect_silence_for(100);
        let _ = receive;
    });
}

#[test]
fn drain_seconds_cancels_calls_that_still_wait() {
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
fn idle_connections_do_not_delay_shutdown() {
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
fn silent_connections_do_not_delay_shutdown() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 1)]);
        let _silent = broker.connect();
        broker.lsp().expect_service();
        terminate(&mut broker);
        assert!(broker.process().ends().success());
    });
}

#[test]
fn drain_seconds_bounds_waiting_http_requests() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 3)]);
        let mut keeper = broker.lsp();
        let token = keeper.call("session.open", Value::Null).result()["token"].clone();
        let (mut ours, theirs) = socket_pair();
        let handle = keeper.lend(&theirs);
        let mut quick = broker.http();
        let mut slow = broker.http();
        quick.call("session.attach", json!([token])).result();
        quick.send_json(&request(1, "socket.recv", json!([handle, 9])));
        slow.send_json(&request(1, "socket.poll", json!([[], 3600])));
        let half = broker.http();
        half.wire
            .send(
                b"POST / HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
                &[],
            )
            .unwrap();
        wait_for_waiting_calls(&broker, 2);
        terminate(&mut broker);
        ours.write_all(b"hi").unwrap();
        assert_eq!(quick.read_json().unwrap()["result"]["data"], "aGk=");
        assert!(broker.process().ends().success());
    });
}

#[test]
fn sigint_ends_the_broker_and_closes_handles() {
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
fn unread_answers_do_not_delay_shutdown() {
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
fn lingering_sessions_end_at_shutdown() {
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
fn sigterm_is_handled_once_the_socket_exists() {
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
