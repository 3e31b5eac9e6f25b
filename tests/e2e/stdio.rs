//! `--stdio`: one client on standard input and output.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::{LspClient, Start, StdioDaemon, bounded};

use crate::broker::prepare;

/// The kinds of standard input and output.
const TRANSPORTS: [fn(Start) -> StdioDaemon; 3] =
    [StdioDaemon::over_pipes, StdioDaemon::over_a_socket, StdioDaemon::over_two_sockets];

#[test]
fn pipes_support_attachments_and_refuse_descriptors() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_pipes(prepare());
        let client = &mut broker.client;
        let info = client.call("session.info", Value::Null);
        assert_eq!(
            (&info.result()["framing"], &info.result()["pid"]),
            (&json!("lsp"), &json!(null))
        );
        let (left, right) = client.pair();
        let data = vec![7; 100_000];
        let descriptors: [&[u8]; 2] = [b"unused", &data];
        let sent = client.call_with_parts(
            "socket.sendall",
            json!([left, { "attachment": 1 }]),
            RequestParts::attachments(&descriptors),
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
fn socket_passes_descriptors_in_both_directions() {
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
fn end_of_input_ends_the_broker_after_the_last_answer() {
    bounded(20, || {
        for over in TRANSPORTS {
            let mut broker = over(prepare());
            let id = broker.client.send("socket.poll", json!([[], 0.2]));
            broker.client.wire.close_writing();
            assert_eq!(*broker.client.answer(id).result(), json!([]));
            broker.client.expect_end();
            assert!(broker.process.ends().success());
        }
    });
}

#[test]
fn broker_ends_if_the_client_is_gone() {
    bounded(20, || {
        for over in TRANSPORTS {
            let mut broker = over(prepare());
            let (left, _) = broker.client.pair();
            broker.client.send("socket.recv", json!([left, 1]));
            drop(std::mem::replace(&mut broker.client, unconnected()));
            assert!(broker.process.ends().success());
        }
    });
}

fn unconnected() -> LspClient {
    LspClient::over(UnixStream::pair().unwrap().0)
}

#[test]
fn own_end_of_the_client_is_refused_as_a_descriptor() {
    bounded(20, || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut command, _folder) = prepare().argument("--stdio").command();
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
        let mut process = Process::spawn(command);
        let mut client = LspClient::over(ours.try_clone().unwrap());
        let descriptors = [ours.as_fd()];
        let params = json!([0]);
        let fault = client
            .call_with_parts("socket.fromfd", params, RequestParts::descriptors(&descriptors))
            .fault();
        assert_eq!(fault.kind(), (3000, "denied"));
        drop((client, ours));
        assert!(process.ends().success());
    });
}

#[test]
fn json_lines_are_answered_as_json_lines() {
    bounded(20, || {
        for over in TRANSPORTS {
            let mut broker = over(prepare());
            let wire = &mut broker.client.wire;
            let call =
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"socket.htons\",\"params\":[1]}\n";
            wire.send(call.as_bytes(), &[]).unwrap();
            let answer = wire.take_through(b"\n").unwrap();
            assert_eq!(answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":256}\n");
            wire.close_writing();
            assert!(broker.process.ends().success());
        }
    });
}

#[test]
fn unknown_framing_is_refused_with_a_message() {
    bounded(20, || {
        let (mut command, folder) = prepare().argument("--stdio").command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(69));
        let log = std::fs::read_to_string(folder.join("log")).unwrap();
        assert!(log.contains("send LSP framing (Content-Length: ...) or one JSON"), "{log}");
    });
}

#[test]
fn answers_go_to_standard_output_if_it_is_another_socket() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_two_sockets(prepare());
        let client = &mut broker.client;
        assert_eq!(client.call("session.info", Value::Null).result()["descriptors"], false);
        let (left, right) = client.pair();
        client.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(client.call("socket.recv", json!([right, 9])).data(), b"hi");
    });
}

#[test]
fn unpollable_standard_input_is_refused_with_a_reason() {
    bounded(20, || {
        let (mut command, folder) = prepare().argument("--stdio").command();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        assert_eq!(command.status().unwrap().code(), Some(69));
        let log = std::fs::read_to_string(folder.join("log")).unwrap();
        assert!(log.contains("must be a pipe or a socket"), "{log}");
    });
}

#[test]
fn sigterm_ends_stdio_broker_after_calls_in_flight() {
    bounded(20, || {
        let mut broker = StdioDaemon::over_pipes(prepare().limit("drain_seconds", 3));
        let (_, right) = broker.client.pair();
        let waiting = broker.client.send("socket.recv", json!([right, 9]));
        let quick = broker.client.send("socket.poll", json!([[], 0.3]));
        broker.client.call("socket.htons", json!([1])).result();
        broker.process.terminate();
        assert_eq!(*broker.client.answer(quick).result(), json!([]));
        assert!(broker.process.ends().success());
        assert_eq!(broker.client.answer(waiting).fault().kind(), (-32800, "cancelled"));
        broker.client.expect_end();
    });
}

#[test]
fn sigterm_is_handled_after_the_first_answer() {
    bounded(20, || {
        for _ in 0..20 {
            let mut broker = StdioDaemon::over_pipes(prepare());
            let waiting = broker.client.send("socket.poll", json!([[], 0.05]));
            broker.client.expect_service();
            broker.process.terminate();
            assert_eq!(*broker.client.answer(waiting).result(), json!([]));
            assert!(broker.process.ends().success());
        }
    });
}
