//! Bytes that violate the framing end their connection and affect nothing else.

use std::os::fd::AsFd;

use serde_json::json;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Client, LspClient, bounded};

use crate::broker::broker;

fn call() -> String {
    request(1, "socket.htons", json!([1])).to_string()
}

#[test]
fn invalid_head_ends_the_connection_without_an_answer() {
    bounded(20, || {
        let broker = broker();
        let before = broker.idle_open_files();
        let message = call();
        let length = message.len();
        let long = "9".repeat(400);
        for head in [
            "Content-Length: -1".to_owned(),
            format!("Content-Length: +{length}"),
            format!("Content-Length: {length}x"),
            format!("Content-Length: 0x{length:x}"),
            format!("Content-Length: {length}.0"),
            "Content-Length: ".to_owned(),
            "Content-Length".to_owned(),
            "Content-Length: 8388609".to_owned(),
            format!("Content-Length: {}", u64::MAX),
            format!("Content-Length: {long}"),
            format!("Content-Length: {length}\r\nContent-Length: {length}"),
            format!("Content-Length: {length}\r\nAttachments: 1,,2"),
            format!("Content-Length: {length}\r\nAttachments: -1"),
            format!("Content-Length: {length}\r\nAttachments: x"),
            format!("Content-Length: {length}\r\nAttachments: 8388608"),
            format!("Content-Length: {length}\r\nAttachments: {}", u64::MAX),
            format!("Content-Length: {length}\r\nAttachments: 1\r\nAttachments: 1"),
            format!("Content-Length: {length}\r\nFds: 254"),
            format!("Content-Length: {length}\r\nFds: -1"),
            format!("Content-Length: {length}\r\nFds: {long}"),
            format!("Content-Length: {length}\r\nFds: 1"),
            format!("Content-Length: {length}\r\nno colon"),
            format!("Content-Length: {length}\r\n: no name"),
            format!("Content-Length: {length}\nFds: 0"),
            format!("Content-Length: {length}\r\nX: \u{e9}"),
            "Content-Type: application/json".to_owned(),
            "CONNECT / HTTP/1.1".to_owned(),
        ] {
            let mut client = broker.lsp();
            client.wire.send(format!("{head}\r\n\r\n{message}").as_bytes(), &[]).unwrap();
            assert!(client.next_answer().is_none(), "{head}");
        }
        broker.wait_for_open_files(before);
        broker.lsp().expect_service();
    });
}

#[test]
fn head_of_1024_bytes_is_accepted_and_a_longer_one_is_not() {
    bounded(20, || {
        let broker = broker();
        let message = call();
        let start = format!("Content-Length: {}\r\nX: ", message.len());
        let filler = "x".repeat(1024 - start.len() - 4);
        let mut client = broker.lsp();
        client.wire.send(format!("{start}{filler}\r\n\r\n{message}").as_bytes(), &[]).unwrap();
        assert_eq!(*client.answer(1).result(), 256);
        client.wire.send(format!("{start}{filler}x\r\n\r\n{message}").as_bytes(), &[]).unwrap();
        client.expect_end();
    });
}

#[test]
fn unusual_valid_heads_are_accepted() {
    bounded(20, || {
        let broker = broker();
        let message = call();
        let length = message.len();
        let mut client = broker.lsp();
        for head in [
            format!("content-length:{length}"),
            format!("CONTENT-LENGTH:    {length}   "),
            format!("Content-Length: 000{length}"),
            format!(
                "Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: {length}"
            ),
            format!("Content-Length: {length}\r\nAttachments:"),
            format!("Content-Length: {length}\r\nAttachments: 0, 0\r\nFds: 0"),
            format!("Content-Length: {length}\r\nX-Unknown: a: b"),
        ] {
            client.wire.send(format!("{head}\r\n\r\n{message}").as_bytes(), &[]).unwrap();
            assert_eq!(*client.answer(1).result(), 256, "{head}");
        }
    });
}

#[test]
fn framing_error_answers_earlier_calls_and_cancels_waiting_ones() {
    bounded(20, || {
        let broker = broker();
        let _starter = broker.start_caller();
        let before = broker.idle_open_files();
        let mut client = broker.lsp();
        let (left, _) = client.pair();
        client.send("socket.recv", json!([left, 1]));
        let whole = LspClient::frame(&call(), None, 0);
        client.wire.send(&[&whole[..], b"Content-Length: x\r\n\r\n"].concat(), &[]).unwrap();
        assert_eq!(client.read_json().unwrap()["result"], 256);
        client.expect_end();
        broker.wait_for_open_files(before);
    });
}

#[test]
fn connection_can_end_at_any_byte_of_a_frame() {
    bounded(20, || {
        let broker = broker();
        let before = broker.idle_open_files();
        let null = std::fs::File::open("/dev/null").unwrap();
        let whole = LspClient::frame(&call(), Some(&[b"attached"]), 1);
        for cut in 1..whole.len() {
            let mut client = broker.lsp();
            client.wire.send(&whole[..cut], &[null.as_fd()]).unwrap();
            if cut % 2 == 0 {
                client.wire.close_writing();
                client.expect_end();
            }
        }
        broker.wait_for_open_files(before);
        broker.lsp().expect_service();
    });
}

#[test]
fn missing_descriptors_end_the_connection() {
    bounded(20, || {
        let broker = broker();
        let before = broker.idle_open_files();
        let null = std::fs::File::open("/dev/null").unwrap();
        for (announced, sent) in [(1, 0), (2, 1), (253, 252)] {
            let mut client = broker.lsp();
            let frame = LspClient::frame(&call(), None, announced);
            client.wire.send(&frame, &vec![null.as_fd(); sent]).unwrap();
            assert!(client.next_answer().is_none(), "{announced} announced, {sent} sent");
        }
        broker.wait_for_open_files(before);
    });
}

#[test]
fn unused_descriptors_are_closed_with_their_call() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.expect_service();
        let before = broker.idle_open_files();
        let null = std::fs::File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); 253];
        for method in ["socket.htons", "socket.nothing", "socket.fromfd"] {
            let parts = RequestParts::descriptors(&many);
            client.call_with_parts(method, json!([1]), parts);
            broker.wait_for_open_files(before);
        }
        client.send_with(
            &json!([request(1, "socket.htons", json!([1]))]),
            RequestParts::descriptors(&many),
        );
        client.read_json().unwrap();
        client.send_with(&json!(17), RequestParts::descriptors(&many));
        client.read_json().unwrap();
        broker.wait_for_open_files(before);
        client.expect_service();
    });
}

#[test]
fn lsp_frame_on_an_ndjson_connection_ends_it() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.expect_service();
        client.wire.send(format!("{}\r\n\r\n", call()).as_bytes(), &[]).unwrap();
        client.expect_end();
        let mut client = broker.ndjson();
        client.call("socket.htons", json!([1])).result();
        client.send_text("Content-Length: 2\r\n\r\n");
        assert_eq!(client.read_json().unwrap()["error"]["code"], -32700);
        // A blank line is skipped.
        assert_eq!(*client.call("socket.htons", json!([1])).result(), 256);
    });
}
