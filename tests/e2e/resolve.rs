//! `call.resolve`: returns the outcome of a call whose connection was lost.

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Answer, Client, Daemon, HANG, LspClient, base64, bounded, pause};

use crate::broker::{broker, limited};

/// A session with a connection that stays open.
struct KeptSession {
    broker: Daemon,
    anchor: LspClient,
    token: Value,
}

impl KeptSession {
    fn over(broker: Daemon) -> Self {
        let mut anchor = broker.lsp();
        let token = anchor.call("session.open", Value::Null).result()["token"].clone();
        Self { broker, anchor, token }
    }

    /// Opens a further connection and returns it with its number.
    fn further(&self) -> (LspClient, u64) {
        let mut client = self.broker.lsp();
        let opened = client.call("session.attach", json!([self.token]));
        let number = opened.result()["connection"].as_u64().unwrap();
        (client, number)
    }

    fn resolve(&mut self, connection: u64, request: impl Into<Value>) -> Answer {
        let params = json!({ "connection": connection, "request": request.into() });
        self.anchor.call_for_attachments("call.resolve", params)
    }

    fn state(&mut self, connection: u64, request: impl Into<Value>) -> Value {
        self.resolve(connection, request).result()["state"].clone()
    }
}

#[test]
fn lost_answer_is_returned_once() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        client.send_json(&request("lost", "socket.htons", json!([1])));
        client.wire.receives_within(HANG);
        drop(client);
        let resolved = kept.resolve(number, "lost");
        let answer = &resolved.result()["answer"];
        assert_eq!(resolved.result()["state"], "answered");
        assert_eq!(*answer, json!({ "jsonrpc": "2.0", "id": "lost", "result": 256 }));
        assert_eq!(kept.state(number, "lost"), "unknown");
    });
}

#[test]
fn lost_error_is_returned() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        let id = client.send("socket.gettimeout", json!([1]));
        client.wire.receives_within(HANG);
        drop(client);
        let resolved = kept.resolve(number, id);
        assert_eq!(resolved.result()["answer"]["error"]["code"], 4000);
    });
}

#[test]
fn lost_waiting_call_is_cancelled_and_unsent_call_is_unknown() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        let (left, right) = client.pair();
        let waiting = client.send("socket.recv", json!([left, 9]));
        client.send_json(&request("x", "socket.recv", json!([left, 9])));
        client.call("socket.htons", json!([1])).result();
        drop(client);
        assert_eq!(kept.state(number, waiting), "cancelled");
        assert_eq!(kept.state(number, "x"), "cancelled");
        assert_eq!(kept.state(number, "y"), "unknown");
        assert_eq!(kept.state(number, waiting + 50), "unknown");
        assert_eq!(kept.state(number + 1000, waiting), "unknown");
        // The call had no effect, as the protocol guarantees.
        kept.anchor.call("socket.send", json!([right, base64("hi")])).result();
        assert_eq!(kept.anchor.call("socket.recv", json!([left, 9])).data(), b"hi");
    });
}

#[test]
fn lost_attachments_and_descriptors_are_returned() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        let id = client.send_with_parts(
            "socket.inet_aton",
            json!(["1.2.3.4"]),
            RequestParts::attachments(&[]),
        );
        client.wire.receives_within(HANG);
        drop(client);
        let resolved = kept.resolve(number, id);
        assert_eq!(resolved.result()["answer"]["result"], json!({ "attachment": 0 }));
        assert_eq!(resolved.attachments, [[1, 2, 3, 4]]);

        let (mut client, number) = kept.further();
        let (left, right) = client.pair();
        let id = client.send("socket.detach", json!([left]));
        client.wire.receives_within(HANG);
        drop(client);
        let mut resolved = kept.resolve(number, id);
        assert_eq!(resolved.result()["answer"]["result"], 1);
        let mut detached = UnixStream::from(resolved.descriptors.remove(0));
        kept.anchor.call("socket.send", json!([right, base64("hi")])).result();
        kept.anchor.call("socket.close", json!([right])).result();
        let mut text = String::new();
        detached.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    });
}

#[test]
fn lost_answer_can_be_requested_on_another_protocol() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        let id = client.send_with_parts(
            "socket.inet_aton",
            json!(["1.2.3.4"]),
            RequestParts::attachments(&[]),
        );
        client.wire.receives_within(HANG);
        drop(client);
        let params = json!({ "connection": number, "request": id });
        let refused = kept.anchor.call("call.resolve", params).fault();
        assert_eq!(refused.exception(), "ValueError");
        assert!(refused.message.contains("Attachments"), "{}", refused.message);
        assert_eq!(kept.resolve(number, id).attachments, [[1, 2, 3, 4]]);
    });
}

#[test]
fn resolve_waits_for_the_end_of_the_connection() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        let (left, _) = client.pair();
        let waiting = client.send("socket.recv", json!([left, 9]));
        client.call("socket.htons", json!([1])).result();
        let resolve = kept.anchor.send("call.resolve", json!([number, waiting]));
        kept.anchor.expect_silence_for(100);
        drop(client);
        assert_eq!(kept.anchor.answer(resolve).result()["state"], "cancelled");
    });
}

#[test]
fn resolve_seconds_bounds_the_wait() {
    bounded(20, || {
        let mut kept = KeptSession::over(limited(&[("resolve_seconds", 1)]));
        let (_client, number) = kept.further();
        let fault = kept.resolve(number, 1).fault();
        assert_eq!(fault.limit(), "resolve_seconds");
    });
}

#[test]
fn resolve_kept_bounds_remembered_connections() {
    bounded(20, || {
        let mut kept = KeptSession::over(limited(&[("resolve_kept", 2)]));
        let mut ended = Vec::new();
        for _ in 0..3 {
            let (mut client, number) = kept.further();
            let id = client.send("socket.htons", json!([1]));
            client.wire.receives_within(HANG);
            drop(client);
            // One after the other, so that the order is known.
            assert_eq!(kept.state(number, id + 1), "unknown");
            ended.push((number, id));
        }
        let states = ended.into_iter().map(|(number, id)| kept.state(number, id));
        assert_eq!(states.collect::<Vec<_>>(), ["unknown", "answered", "answered"]);
    });
}

#[test]
fn resolve_kept_bytes_bounds_remembered_answers() {
    bounded(20, || {
        let mut kept = KeptSession::over(limited(&[("resolve_kept_bytes", 350)]));
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let (mut client, number) = kept.further();
                let id = client.send("socket.inet_pton", json!(["AF_INET6", "::1".repeat(40)]));
                client.wire.receives_within(HANG);
                drop(client);
                // When another call reports the end of the connection, the broker has processed it.
                assert_eq!(kept.state(number, "none"), "unknown");
                (number, id)
            })
            .collect();
        let states: Vec<_> = calls.iter().map(|(number, id)| kept.state(*number, *id)).collect();
        assert_eq!(states, ["unknown", "answered", "answered"]);
    });
}

#[test]
fn resolve_kept_seconds_bounds_how_long_answers_are_kept() {
    bounded(20, || {
        let mut kept = KeptSession::over(limited(&[("resolve_kept_seconds", 1)]));
        let (mut client, number) = kept.further();
        let id = client.send("socket.htons", json!([1]));
        client.wire.receives_within(HANG);
        drop(client);
        // This call waits for the end of the connection, from which on the second counts.
        assert_eq!(kept.state(number, "none"), "unknown");
        pause(1300);
        assert_eq!(kept.state(number, id), "unknown");
    });
}

#[test]
fn resolve_returns_nothing_to_other_sessions() {
    bounded(20, || {
        let mut kept = KeptSession::over(broker());
        let (mut client, number) = kept.further();
        let id = client.send("socket.htons", json!([1]));
        client.wire.receives_within(HANG);
        drop(client);
        let mut other_user = kept.broker.lsp();
        other_user.call("session.open", Value::Null).result();
        let answer = other_user.call("call.resolve", json!([number, id]));
        assert_eq!(answer.result()["state"], "unknown");
        assert_eq!(kept.state(number, id), "answered");
    });
}
