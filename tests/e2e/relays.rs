//! Descriptors where a relay drops them, where the peer refuses them, and in newline-delimited JSON.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::option;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, HANG, LspClient, NdjsonClient, bounded, skip};

use crate::broker::{broker, prepare};

const NO_SESSIONS: &str = r#"version = 1
[[rule]]
name = "no sessions"
subject = { everyone = true }
deny = ["session"]
"#;
const DESCRIPTOR: (i64, &str) = (4003, "descriptor");
/// `include/uapi/asm-generic/socket.h`, since Linux 6.16.
const SO_PASSRIGHTS: i32 = 83;

/// Fails if the descriptor is not an end of a connected pair whose other end is `other`.
fn assert_connected(mut other: &UnixStream, descriptor: OwnedFd) {
    other.set_read_timeout(Some(HANG)).unwrap();
    UnixStream::from(descriptor).write_all(b"x").unwrap();
    let mut byte = [0];
    other.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"x");
}

#[test]
fn client_behind_a_relay_refuses_descriptors_before_any_effect() {
    bounded(20, || {
        let broker = broker();
        let token =
            broker.lsp().call("session.open", json!({ "linger": 60 })).result()["token"].clone();
        for (method, params) in [
            ("session.open", json!({ "descriptors": false })),
            ("session.attach", json!({ "token": token, "descriptors": false })),
        ] {
            let mut client = broker.lsp();
            client.call(method, params).result();
            let handles = client.call("session.info", Value::Null);
            assert_eq!(handles.result()["descriptors"], false);
            let fault = client.call("socket.socketpair", json!({ "want_fd": true })).fault();
            assert_eq!(fault.kind(), DESCRIPTOR, "{method}");
            assert!(fault.message.contains("relay"), "{}", fault.message);
            let after = client.call("session.info", Value::Null);
            assert_eq!(after.result()["handles"], handles.result()["handles"]);
            client.call("session.open", json!({ "descriptors": true })).result();
            assert_eq!(client.call("session.info", Value::Null).result()["descriptors"], true);
        }
    });
}

#[test]
fn descriptors_are_refused_even_if_the_policy_refuses_the_session() {
    bounded(20, || {
        let broker = prepare().policy(NO_SESSIONS).start();
        let mut client = broker.lsp();
        let refused = client.call("session.open", json!({ "descriptors": false })).fault();
        assert_eq!(refused.kind(), (3000, "denied"));
        assert_eq!(client.call("session.info", Value::Null).result()["descriptors"], false);
    });
}

#[test]
fn protocols_without_descriptors_refuse_the_wish_for_them() {
    bounded(20, || {
        let broker = broker();
        let fault = broker.websocket().call("session.open", json!({ "descriptors": true })).fault();
        assert_eq!(fault.code, -32602);
        broker.ndjson().call("session.open", json!({ "descriptors": true })).result();
    });
}

#[test]
fn peer_that_refuses_rights_gets_an_error_and_keeps_its_connection() {
    bounded(20, || {
        let broker = broker();
        let stream = broker.connect();
        if option::set_int(stream.as_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, 0).is_err() {
            skip::skip(
                "the kernel has no SO_PASSRIGHTS",
                "peer_that_refuses_rights_gets_an_error_and_keeps_its_connection",
            );
            return;
        }
        let mut client = LspClient::over(stream);
        assert_eq!(client.call("session.info", Value::Null).result()["descriptors"], true);
        let (left, right) = client.pair();
        // Several answers at once: the refusal replaces the one that has a descriptor.
        let ids = [
            client.send("socket.htons", json!([1])),
            client.send("socket.fileno", json!([left])),
            client.send("socket.htons", json!([2])),
        ];
        assert_eq!(*client.answer(ids[0]).result(), 256);
        assert_eq!(client.answer(ids[1]).fault().kind(), DESCRIPTOR);
        assert_eq!(*client.answer(ids[2]).result(), 512);
        assert_eq!(client.call("session.info", Value::Null).result()["descriptors"], false);
        // Now it is refused before the effect: the handle remains.
        assert_eq!(client.call("socket.detach", json!([right])).fault().kind(), DESCRIPTOR);
        client.call("socket.send", json!([left, "eA=="])).result();
        assert_eq!(client.call("socket.recv", json!([right, 9])).data(), b"x");

        let stream = broker.connect();
        option::set_int(stream.as_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, 0).unwrap();
        let mut lines = NdjsonClient::over(stream);
        let (left, _) = lines.call("socket.socketpair", Value::Null).handles();
        assert_eq!(lines.call("socket.fileno", json!([left])).fault().kind(), DESCRIPTOR);
        assert_eq!(*lines.call("socket.htons", json!([1])).result(), 256);
    });
}

#[test]
fn newline_delimited_json_announces_descriptors_in_both_directions() {
    bounded(20, || {
        let broker = broker();
        let mut lines = broker.ndjson();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut adopt = request(1, "socket.socket", json!({ "fileno": 0 }));
        adopt["fds"] = json!(1);
        lines.send_with(&adopt, &[theirs.as_fd()]);
        drop(theirs);
        let handle = lines.answer().result()["handle"].as_u64().unwrap();
        lines.send_with(&request(2, "socket.fileno", json!([handle])), &[]);
        let mut answer = lines.answer();
        assert_eq!((answer.id(), answer.descriptors.len()), (&json!(2), 1));
        assert_connected(&ours, answer.descriptors.remove(0));
        // The same for two messages on one line, whose descriptors come together.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut both = String::new();
        for id in [3, 4] {
            adopt["id"] = json!(id);
            both += &adopt.to_string();
        }
        lines.wire.send(both.as_bytes(), &[theirs.as_fd(), theirs.as_fd()]).unwrap();
        drop(theirs);
        for id in [3, 4] {
            let answer = lines.answer();
            assert_eq!(*answer.id(), id);
            answer.result();
        }
        lines.send_with(&request(5, "socket.sendall", json!([handle, "eQ=="])), &[]);
        lines.answer().result();
        drop(ours);
    });
}

#[test]
fn line_that_announces_missing_descriptors_fails_alone() {
    bounded(20, || {
        let broker = broker();
        let mut lines = broker.ndjson();
        let mut adopt = request(1, "socket.socket", json!({ "fileno": 0 }));
        adopt["fds"] = json!(1);
        lines.send_with(&adopt, &[]);
        assert_eq!(lines.answer().fault().kind(), DESCRIPTOR);
        assert_eq!(*lines.call("socket.htons", json!([1])).result(), 256);
    });
}

#[test]
fn descriptors_that_no_line_can_take_end_the_connection_and_are_closed() {
    bounded(20, || {
        let broker = broker();
        let before = broker.idle_open_files();
        for line in ["{\"fds\":2}\n", "{\"fds\":\"x\"}\n", "not json\n"] {
            let mut lines = broker.ndjson();
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            lines.wire.send(line.as_bytes(), &[theirs.as_fd()]).unwrap();
            drop(theirs);
            assert!(lines.read_json().is_none_or(|answer| answer.get("error").is_some()), "{line}");
            ours.set_read_timeout(Some(HANG)).unwrap();
            assert_eq!(ours.read(&mut [0]).unwrap(), 0, "{line}");
        }
        broker.wait_for_open_files(before);
    });
}
