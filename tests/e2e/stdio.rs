//! `--stdio`: one client on standard input and output.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::Beside;
use sockbroker_test_support::{StdioDaemon, bounded};

use crate::broker::prepare;

#[test]
fn pipes_carry_attachments_and_refuse_descriptors() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_pipes(prepare());
        let client = &mut broker.client;
        let info = client.call("session.info", Value::Null);
        assert_eq!(
            (&info.result()["spelling"], &info.result()["pid"]),
            (&json!("lsp"), &json!(null))
        );
        let (left, right) = client.pair();
        let data = vec![7; 100_000];
        let beside: [&[u8]; 2] = [b"unused", &data];
        let sent = client.call_beside(
            "socket.sendall",
            json!([left, { "attachment": 1 }]),
            Beside::attachments(&beside),
        );
        assert_eq!(*sent.result(), Value::Null);
        let received =
            client.call_for_attachments("socket.recv", json!([right, 100_000, "MSG_WAITALL"]));
        assert_eq!(received.attachments, [data]);
        assert_eq!(
            client.call("socket.fileno", json!([left])).fault().kind(),
            (4003, "descriptor")
        );
    });
}

#[test]
fn a_socket_carries_descriptors_in_both_directions() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_a_socket(prepare());
        let client = &mut broker.client;
        assert_eq!(client.call("session.info", Value::Null).result()["descriptors"], true);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        drop(theirs);
        ours.write_all(b"in").unwrap();
        assert_eq!(client.call("socket.recv", json!([handle, 9])).data(), b"in");
        let mut back = client.call("socket.detach", json!([handle]));
        assert_eq!(*back.result(), 1);
        let mut theirs = UnixStream::from(back.descriptors.remove(0));
        theirs.write_all(b"out").unwrap();
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out");
    });
}

#[test]
fn the_broker_ends_with_its_input_after_the_last_answer() {
    bounded(20, || {
        for over in [StdioDaemon::over_pipes, StdioDaemon::over_a_socket] {
            let mut broker = over(prepare());
            let id = broker.client.send("socket.poll", json!([[], 0.2]));
            broker.client.wire.close_writing();
            assert_eq!(*broker.client.answer(id).result(), json!([]));
            broker.client.is_ended();
            assert!(broker.process.ends().success());
        }
    });
}

#[test]
fn the_broker_ends_with_a_client_that_is_gone() {
    bounded(20, || {
        for over in [StdioDaemon::over_pipes, StdioDaemon::over_a_socket] {
            let mut broker = over(prepare());
            let (left, _) = broker.client.pair();
            broker.client.send("socket.recv", json!([left, 1]));
            drop(std::mem::replace(&mut broker.client, unconnected()));
            assert!(broker.process.ends().success());
        }
    });
}

fn unconnected() -> sockbroker_test_support::LspClient {
    sockbroker_test_support::LspClient::over(UnixStream::pair().unwrap().0)
}

#[test]
fn only_lsp_framing_is_spoken_there() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_pipes(prepare());
        let line = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"socket.gethostname\"}\r\n\r\n";
        broker.client.wire.send(line.as_bytes(), &[]).unwrap();
        broker.client.is_ended();
        broker.process.ends();
    });
}

#[test]
fn what_cannot_be_waited_for_is_refused_with_a_reason() {
    bounded(20, || {
        let (mut command, folder) = prepare().argument("--stdio").command();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        assert_eq!(command.status().unwrap().code(), Some(69));
        let said = std::fs::read_to_string(folder.join("log")).unwrap();
        assert!(said.contains("must be a pipe or a socket"), "{said}");
    });
}

#[test]
fn sigterm_ends_it_after_what_is_in_flight() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_pipes(prepare().limit("drain_seconds", 1));
        let (_, right) = broker.client.pair();
        let waiting = broker.client.send("socket.recv", json!([right, 9]));
        let quick = broker.client.send("socket.poll", json!([[], 0.3]));
        broker.client.call("socket.htons", json!([1])).result();
        broker.process.terminate();
        assert_eq!(*broker.client.answer(quick).result(), json!([]));
        assert!(broker.process.ends().success());
        assert_eq!(broker.client.answer(waiting).fault().kind(), (-32800, "cancelled"));
        broker.client.is_ended();
    });
}

#[test]
fn sigterm_is_minded_from_the_first_answer_on() {
    bounded(20, || {
        for _ in 0..20 {
            let mut broker = StdioDaemon::over_pipes(prepare());
            let waiting = broker.client.send("socket.poll", json!([[], 0.05]));
            broker.client.is_served();
            broker.process.terminate();
            assert_eq!(*broker.client.answer(waiting).result(), json!([]));
            assert!(broker.process.ends().success());
        }
    });
}
