//! An empty datagram, the end of a stream and EAGAIN are different answers (promise 6 of PROTOCOL.md).

use serde_json::{Value, json};
use sockbroker_test_support::{Answer, LspClient, base64, bounded};

use crate::broker::broker;

/// Calls a receive method and returns the one message of its answer.
fn receive(client: &mut LspClient, method: &str, handle: u64, bytes: u32) -> Result<Value, Answer> {
    let params = match method {
        "socket.recvmsg_into" => json!([handle, [bytes]]),
        "socket.recvmmsg" => json!([handle, 1, bytes]),
        _ => json!([handle, bytes]),
    };
    let answer = client.call(method, params);
    if answer.is_fault() {
        return Err(answer);
    }
    match answer.result() {
        Value::Array(messages) => Ok(messages[0].clone()),
        message => Ok(message.clone()),
    }
}

const METHODS: [&str; 7] = [
    "socket.recv",
    "socket.recv_into",
    "socket.recvfrom",
    "socket.recvfrom_into",
    "socket.recvmsg",
    "socket.recvmsg_into",
    "socket.recvmmsg",
];

fn seen(message: &Value) -> (&str, u64, bool) {
    let data = message["data"].as_str().unwrap();
    (data, message["n"].as_u64().unwrap(), message["eof"].as_bool().unwrap())
}

#[test]
fn eagain_empty_datagram_and_data_are_distinct() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let udp = |client: &mut LspClient| {
            let receiver = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
            let sender = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
            client.call("socket.bind", json!([receiver, ["127.0.0.1", 0]])).result();
            let address = client.call("socket.getsockname", json!([receiver])).result().clone();
            client.call("socket.connect", json!([sender, address])).result();
            (sender, receiver)
        };
        for pair in
            [client.pair_of("SOCK_DGRAM"), client.pair_of("SOCK_SEQPACKET"), udp(&mut client)]
        {
            for method in METHODS {
                let (sender, receiver) = pair;
                client.call("socket.settimeout", json!([receiver, 0])).result();
                let nothing = receive(&mut client, method, receiver, 9).unwrap_err();
                assert_eq!(nothing.fault().errno(), "EAGAIN", "{method}");
                client.call("socket.settimeout", json!([receiver, 0.01])).result();
                let nothing = receive(&mut client, method, receiver, 9).unwrap_err().fault();
                assert_eq!((nothing.kind(), nothing.data.errno), ((1001, "timeout"), None));
                client.call("socket.settimeout", json!([receiver, 2])).result();
                client.call("socket.send", json!([sender, ""])).result();
                client.call("socket.send", json!([sender, "aGk="])).result();
                let empty = receive(&mut client, method, receiver, 9).unwrap();
                assert_eq!(seen(&empty), ("", 0, false), "{method}");
                let data = receive(&mut client, method, receiver, 9).unwrap();
                assert_eq!(seen(&data), ("aGk=", 2, false), "{method}");
            }
        }
    });
}

#[test]
fn end_of_stream_is_reported_by_every_receive() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for kind in ["SOCK_STREAM", "SOCK_SEQPACKET"] {
            let (left, right) = client.pair_of(kind);
            client.call("socket.send", json!([left, "aGk="])).result();
            client.call("socket.shutdown", json!([left, "SHUT_WR"])).result();
            let data = receive(&mut client, "socket.recv", right, 9).unwrap();
            assert_eq!(seen(&data), ("aGk=", 2, false));
            for method in METHODS {
                let end = receive(&mut client, method, right, 9).unwrap();
                assert_eq!(seen(&end), ("", 0, true), "{method} {kind}");
            }
            // The other direction still works.
            client.call("socket.send", json!([right, "aGk="])).result();
            assert_eq!(client.call("socket.recv", json!([left, 9])).data(), b"hi");
        }
    });
}

#[test]
fn waiting_receive_reports_end_of_stream() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let waiting = client.send("socket.recv", json!([right, 9]));
        client.call("socket.close", json!([left])).result();
        assert_eq!(seen(client.answer(waiting).result()), ("", 0, true));
        let (left, right) = client.pair_of("SOCK_DGRAM");
        let waiting = client.send("socket.recv", json!([right, 9]));
        client.call("socket.send", json!([left, ""])).result();
        assert_eq!(seen(client.answer(waiting).result()), ("", 0, false));
    });
}

#[test]
fn receive_of_zero_bytes_is_not_end_of_stream() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        client.call("socket.send", json!([left, "aGk="])).result();
        for method in ["socket.recv", "socket.recv_into"] {
            let none = receive(&mut client, method, right, 0).unwrap();
            assert_eq!(seen(&none), ("", 0, false), "{method}");
        }
        assert_eq!(client.call("socket.recv", json!([right, 9])).data(), b"hi");
        client.call("socket.close", json!([left])).result();
        let none = receive(&mut client, "socket.recv", right, 0).unwrap();
        assert_eq!(seen(&none), ("", 0, false));
    });
}

#[test]
fn sendmmsg_returns_one_result_per_datagram() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair_of("SOCK_DGRAM");
        let messages: Vec<Value> =
            ["a", "", "ccc"].map(|data| json!({ "buffers": [base64(data), base64("!")] })).into();
        let sent = client.call("socket.sendmmsg", json!([left, messages]));
        assert_eq!(*sent.result(), json!([{ "n": 2 }, { "n": 1 }, { "n": 4 }]));
        client.call("socket.send", json!([left, ""])).result();
        let received = client.call("socket.recvmmsg", json!([right, 9, 2]));
        let received: Vec<_> = received.result().as_array().unwrap().iter().map(seen).collect();
        let expected = [("YSE=", 2, false), ("IQ==", 1, false), ("Y2M=", 2, false), ("", 0, false)];
        assert_eq!(received, expected);
        let far = json!({ "buffers": ["aGk="], "address": "/nonexistent/socket" });
        let near = json!({ "buffers": ["aGk="] });
        let sender = client.call("socket.dup", json!([left])).handle();
        let mixed = client.call("socket.sendmmsg", json!([sender, [near, far, near]]));
        assert_eq!(mixed.result()[0], json!({ "n": 2 }));
        assert_eq!(mixed.result().as_array().unwrap().len(), 2);
        assert!(mixed.result()[1]["error"]["errno"].is_i64());
    });
}

#[test]
fn truncated_datagram_reports_its_full_length() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair_of("SOCK_DGRAM");
        for (flags, expected) in
            [(json!(0), ("aGU=", 2, false)), (json!("MSG_TRUNC"), ("aGU=", 5, false))]
        {
            client.call("socket.send", json!([left, base64("hello")])).result();
            let cut = client.call("socket.recv", json!([right, 2, flags]));
            assert_eq!(seen(cut.result()), expected);
        }
        client.call("socket.send", json!([left, base64("hello")])).result();
        let cut = client.call("socket.recvmsg", json!([right, 2]));
        assert_eq!(
            (seen(cut.result()), &cut.result()["flags"]),
            (("aGU=", 2, false), &json!(libc::MSG_TRUNC))
        );
    });
}
