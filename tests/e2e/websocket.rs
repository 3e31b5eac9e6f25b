//! WebSocket on the broker's socket, by an HTTP upgrade (RFC 6455).

use serde_json::{Value, json};
use sockbroker_test_support::message::request;
use sockbroker_test_support::websocket::{Frame, Opcode};
use sockbroker_test_support::{Client, WebSocketClient, bounded, pause};

use crate::broker::{broker, limited};

fn call() -> Vec<u8> {
    request(1, "socket.htons", json!([1])).to_string().into_bytes()
}

#[test]
fn fragmented_message_with_pings_is_accepted() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.websocket();
        let message = call();
        client.send(Opcode::Text, false, &message[..3]);
        client.send(Opcode::Ping, true, b"are you there");
        client.send(Opcode::Continuation, false, &message[3..10]);
        client.send(Opcode::Continuation, false, b"");
        client.send(Opcode::Pong, true, b"unasked");
        client.send(Opcode::Continuation, true, &message[10..]);
        let pong = Frame { opcode: 10, last: true, payload: b"are you there".to_vec() };
        assert_eq!(client.read(), Some(pong));
        assert_eq!(client.read_json().unwrap()["result"], 256);
        client.send(Opcode::Binary, true, &message);
        assert_eq!(client.read_json().unwrap()["result"], 256);
    });
}

#[test]
fn close_frame_is_answered_and_ends_the_connection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.websocket();
        client.send(Opcode::Text, true, &call());
        client.send(Opcode::Close, true, &1000_u16.to_be_bytes());
        assert_eq!(client.read_json().unwrap()["result"], 256);
        let close = Frame { opcode: 8, last: true, payload: 1000_u16.to_be_bytes().to_vec() };
        assert_eq!(client.read(), Some(close));
        assert_eq!(client.read(), None);
    });
}

#[test]
fn close_frame_cancels_waiting_calls() {
    bounded(20, || {
        let broker = broker();
        let _starter = broker.start_caller();
        let before = broker.idle_open_files();
        let mut client = broker.websocket();
        let (left, _) = client.call("socket.socketpair", Value::Null).handles();
        client.send_json(&request(2, "socket.recv", json!([left, 1])));
        client.send(Opcode::Close, true, b"");
        assert_eq!(client.read().unwrap().opcode, 8);
        pause(20);
        drop(client);
        broker.wait_for_open_files(before);
    });
}

#[test]
fn invalid_websocket_frame_ends_only_that_connection() {
    bounded(20, || {
        let broker = broker();
        let message = call();
        let masked =
            |opcode, last, payload: &[u8]| WebSocketClient::frame(opcode, last, true, payload);
        let mut reserved = masked(Opcode::Text, true, &message);
        reserved[0] |= 0x40;
        let mut unknown = masked(Opcode::Text, true, &message);
        unknown[0] = 0x83;
        let twice =
            [masked(Opcode::Text, false, b"{"), masked(Opcode::Text, true, &message)].concat();
        for (what, bytes) in [
            ("not masked", WebSocketClient::frame(Opcode::Text, true, false, &message)),
            ("a reserved bit", reserved),
            ("an unknown opcode", unknown),
            ("a continuation of nothing", masked(Opcode::Continuation, true, &message)),
            ("a message within a message", twice),
            ("a long ping", masked(Opcode::Ping, true, &[0; 126])),
            ("a ping in fragments", masked(Opcode::Ping, false, b"x")),
        ] {
            let mut client = broker.websocket();
            client.wire.send(&bytes, &[]).unwrap();
            let next = client.read();
            let ended = next.as_ref().is_none_or(|frame| frame.opcode == Opcode::Close as u8);
            assert!(ended, "{what}: {next:?}");
            assert!(next.is_none() || client.read().is_none(), "{what}");
        }
        broker.lsp().expect_service();
    });
}

#[test]
fn websocket_message_over_frame_bytes_ends_the_connection() {
    bounded(20, || {
        let broker = limited(&[("frame_bytes", 70_000), ("receive_bytes", 1000)]);
        let mut message = call();
        message.resize(70_000, b' ');
        let mut client = broker.websocket();
        client.send(Opcode::Text, true, &message);
        assert_eq!(client.read_json().unwrap()["result"], 256);
        message.push(b' ');
        client.wire.send(&WebSocketClient::frame(Opcode::Text, true, true, &message), &[]).ok();
        assert_eq!(client.read(), None);
        // Also in fragments of an allowed size.
        let mut client = broker.websocket();
        client.send(Opcode::Text, false, &message[..40_000]);
        let rest = WebSocketClient::frame(Opcode::Continuation, true, true, &message[40_000..]);
        client.wire.send(&rest, &[]).ok();
        assert_eq!(client.read(), None);
        // The announced length is enough: the broker does not wait for the bytes.
        let mut client = broker.websocket();
        let head = WebSocketClient::frame(Opcode::Text, true, true, &message);
        client.wire.send(&head[..14], &[]).unwrap();
        assert_eq!(client.read(), None);
    });
}

#[test]
fn invalid_request_returns_json_rpc_error_and_keeps_the_connection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.websocket();
        for (text, code) in
            [(&b"{"[..], -32700), (b"", -32700), (b"\xff", -32700), (b"[]", -32600), (b"1", -32600)]
        {
            client.send(Opcode::Text, true, text);
            assert_eq!(client.read_json().unwrap()["error"]["code"], code, "{text:?}");
        }
        client.send(Opcode::Text, true, &call());
        assert_eq!(client.read_json().unwrap()["result"], 256);
    });
}

#[test]
fn browser_origins_and_incomplete_handshakes_are_refused() {
    bounded(20, || {
        let broker = broker();
        let page = WebSocketClient::handshake("Origin: http://localhost\r\n");
        let whole = WebSocketClient::handshake("");
        let without_key = whole.replace("Sec-WebSocket-Key", "X-Nothing");
        let old = whole.replace("Version: 13", "Version: 8");
        for (text, status) in [(page, 403), (without_key, 400), (old, 400)] {
            let mut client = broker.http();
            client.wire.send(text.as_bytes(), &[]).unwrap();
            assert_eq!(client.read().unwrap().status, status, "{text}");
        }
        broker.websocket().call("socket.htons", json!([1])).result();
    });
}

#[test]
fn frames_sent_with_the_handshake_are_not_lost() {
    bounded(20, || {
        let broker = broker();
        let mut bytes = WebSocketClient::handshake("").into_bytes();
        bytes.extend(WebSocketClient::frame(Opcode::Text, true, true, &call()));
        let mut client = broker.http();
        client.wire.send(&bytes, &[]).unwrap();
        assert_eq!(client.read().unwrap().status, 101);
        let mut client = WebSocketClient { wire: client.wire };
        assert_eq!(client.read_json().unwrap()["result"], 256);
    });
}
