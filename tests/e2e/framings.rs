//! One socket, several protocols: the same calls have the same answers and the same end.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sockbroker_test_support::message::{notification, request};
use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{Client, Daemon, StdioDaemon, base64, bounded, pause, until};

use crate::broker::{broker, prepare};

/// Connects one client of each protocol.
fn all_clients(broker: &Daemon) -> Vec<(&'static str, Box<dyn Client>)> {
    vec![
        ("lsp", Box::new(broker.lsp())),
        ("ndjson", Box::new(broker.ndjson())),
        ("http", Box::new(broker.http())),
        ("websocket", Box::new(broker.websocket())),
    ]
}

/// Returns results and errors of many kinds: conversions, real sockets, and refusals of each stage.
fn transcript(client: &mut dyn Client) -> Vec<Value> {
    let pair = client.call("socket.socketpair", Value::Null);
    let (left, right) = pair.handles();
    let bytes = base64(b"every byte \x00\xff");
    let calls = [
        ("socket.htons", json!([1])),
        ("socket.inet_aton", json!({ "ip_string": "127.1" })),
        ("socket.getaddrinfo", json!({ "host": "127.0.0.1", "port": 80, "type": "SOCK_STREAM" })),
        ("socket.send", json!([left, bytes])),
        ("socket.recv", json!([right, 100])),
        ("socket.settimeout", json!([right, 0.01])),
        ("socket.recv", json!([right, 100])),
        ("socket.settimeout", json!([right, 0])),
        ("socket.recv", json!([right, 100])),
        ("socket.getsockname", json!({ "handle": left })),
        ("socket.recv", json!([left, -1])),
        ("socket.htons", json!({ "y": 1 })),
        ("socket.fileno", json!(["x"])),
        ("socket.gettimeout", json!([5])),
        ("socket.nothing", Value::Null),
        ("socket.close", json!([left])),
        ("socket.recv", json!([right, 100])),
        ("socket.send", json!([right, bytes])),
        ("socket.getsockopt", json!([right, "SOL_SOCKET", "SO_TYPE"])),
        ("session.attach", json!(["1.00"])),
        ("session.limits", Value::Null),
    ];
    let mut answers = calls.map(|(method, params)| client.call(method, params).json);
    // A worker can open fewer files, and some limits follow from that.
    for limit in answers[20]["result"].as_object_mut().unwrap().values_mut() {
        limit.as_object_mut().unwrap().remove("value").unwrap();
    }
    answers.into()
}

#[test]
fn all_protocols_and_stdio_return_the_same_answers() {
    bounded(20, || {
        let broker = broker();
        let mut alone = StdioDaemon::over_pipes(prepare());
        let expected = transcript(&mut alone.client);
        assert_eq!(expected[4]["result"]["data"], base64(b"every byte \x00\xff"));
        assert_eq!(expected[6]["error"]["data"]["kind"], "timeout");
        assert_eq!(expected[8]["error"]["data"]["name"], "EAGAIN");
        assert_eq!(expected[16]["result"]["eof"], true);
        assert_eq!(expected[17]["error"]["data"]["name"], "EPIPE");
        for (protocol, mut client) in all_clients(&broker) {
            assert_eq!(transcript(client.as_mut()), expected, "{protocol}");
            let info = client.call("session.info", Value::Null);
            assert_eq!(info.result()["framing"], protocol);
            let carries = ["lsp", "ndjson"].contains(&protocol);
            assert_eq!(info.result()["descriptors"], carries);
        }
    });
}

#[test]
fn batch_is_answered_in_order_on_every_protocol() {
    bounded(20, || {
        let broker = broker();
        let batch = json!([
            request("slow", "socket.poll", json!([[], 0.1])),
            request(1, "socket.htons", json!([1])),
            notification("socket.htons", json!([1])),
            17,
            request(2, "socket.nothing", Value::Null),
        ]);
        for (protocol, mut client) in all_clients(&broker) {
            client.send_json(&batch);
            let answers = client.read_json().unwrap();
            let seen: Vec<_> = answers.as_array().unwrap().iter().collect();
            assert_eq!(seen.len(), 4, "{protocol}: {answers}");
            assert_eq!((&seen[0]["id"], &seen[0]["result"]), (&json!("slow"), &json!([])));
            assert_eq!((&seen[1]["id"], &seen[1]["result"]), (&json!(1), &json!(256)));
            assert_eq!((&seen[2]["id"], &seen[2]["error"]["code"]), (&json!(null), &json!(-32600)));
            assert_eq!((&seen[3]["id"], &seen[3]["error"]["code"]), (&json!(2), &json!(-32601)));
        }
    });
}

#[test]
fn answers_have_attachments_only_on_request() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let plain = client.call("socket.inet_aton", json!(["1.2.3.4"]));
        assert_eq!((plain.result(), plain.attachments.len()), (&json!(base64([1, 2, 3, 4])), 0));
        let with_attachments = client.call_for_attachments("socket.inet_aton", json!(["1.2.3.4"]));
        assert_eq!(with_attachments.result(), &json!({ "attachment": 0 }));
        assert_eq!(with_attachments.attachments, [[1, 2, 3, 4]]);
        let again = client.call("socket.inet_aton", json!(["1.2.3.4"]));
        assert_eq!(again.attachments.len(), 0);
    });
}

#[test]
fn session_can_request_attachments_for_all_answers() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.call("session.open", json!({ "attachments": true })).result();
        assert_eq!(client.call("session.info", Value::Null).result()["attachments"], true);
        let with_attachments = client.call("socket.inet_aton", json!(["1.2.3.4"]));
        assert_eq!(with_attachments.result(), &json!({ "attachment": 0 }));
        client.call("session.open", json!({ "attachments": false })).result();
        let plain = client.call("socket.inet_aton", json!(["1.2.3.4"]));
        assert_eq!(plain.result(), &json!(base64([1, 2, 3, 4])));
        for (protocol, mut client) in all_clients(&broker).into_iter().skip(1) {
            let fault = client.call("session.open", json!({ "attachments": true })).fault();
            assert_eq!(fault.exception(), "ValueError", "{protocol}");
        }
    });
}

#[test]
fn unknown_first_byte_ends_only_that_connection() {
    bounded(20, || {
        let broker = broker();
        for first in [b'x', b'"', b'1', 0, 0x16, 0x80, 0xff] {
            let mut client = broker.ndjson();
            client.wire.send(&[first], &[]).unwrap();
            assert_eq!(client.read_json(), None, "{first}");
        }
        broker.lsp().expect_service();
    });
}

#[test]
fn half_close_still_receives_answers() {
    bounded(20, || {
        let broker = broker();
        let slow = || request("slow", "socket.poll", json!([[], 0.2]));
        let mut client = broker.lsp();
        client.send_json(&slow());
        client.wire.close_writing();
        assert_eq!(client.read_json().unwrap()["result"], json!([]));
        assert_eq!(client.read_json(), None);
        // The last line can end without a newline.
        let mut client = broker.ndjson();
        client.send_json(&slow());
        client.send_text(&request("last", "socket.htons", json!([1])).to_string());
        client.wire.close_writing();
        // Usually the second comes first.
        let mut ids = [(); 2].map(|()| client.read_json().unwrap()["id"].to_string());
        ids.sort_unstable();
        assert_eq!(ids, ["\"last\"", "\"slow\""]);
        assert_eq!(client.read_json(), None);
        let mut client = broker.ndjson();
        client.send_text(&large("last").to_string());
        client.wire.close_writing();
        assert_eq!(client.read_json().unwrap()["id"], "last");
        assert_eq!(client.read_json(), None);
    });
}

/// A request that the broker decodes on another thread.
fn large(id: impl Into<Value>) -> Value {
    request(id, "socket.inet_aton", json!(["x".repeat(100_000)]))
}

#[test]
fn large_and_small_messages_are_answered_in_the_order_sent() {
    fn check(protocol: &str, mut client: impl Client) {
        let small = |id| request(id, "socket.htons", json!([1]));
        for message in [small(1), large(2), large(3), small(4), large(5), small(6)] {
            client.send_json(&message);
        }
        for id in 1..=6 {
            assert_eq!(client.read_json().unwrap()["id"], id, "{protocol}");
        }
    }
    bounded(20, || {
        let broker = broker();
        check("LSP", broker.lsp());
        check("NDJSON", broker.ndjson());
        check("WebSocket", broker.websocket());
    });
}

#[test]
fn half_close_still_receives_the_answer_over_http() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.http();
        client.send_json(&request("slow", "socket.poll", json!([[], 0.2])));
        client.wire.close_writing();
        let answer = client.read_json().expect("the answer to a call that waits");
        assert_eq!(answer["result"], json!([]));
    });
}

#[test]
fn close_cancels_waiting_calls_and_closes_handles() {
    bounded(20, || {
        let broker = broker();
        let _starter = broker.start_caller();
        let before = broker.idle_open_files();
        for index in 0..4 {
            let (_, mut client) = all_clients(&broker).swap_remove(index);
            let (left, _) = client.call("socket.socketpair", Value::Null).handles();
            client.send_json(&request(7, "socket.recv", json!([left, 1])));
            until("the broker has its files", || broker.open_files() >= before + 3);
            drop(client);
            broker.wait_for_open_files(before);
        }
    });
}

#[test]
fn close_after_half_close_cancels_waiting_calls() {
    bounded(20, || {
        let broker = broker();
        let _starter = broker.start_caller();
        let before = broker.idle_open_files();
        let mut client = broker.lsp();
        let (left, _) = client.pair();
        client.send("socket.recv", json!([left, 1]));
        client.wire.close_writing();
        pause(20);
        drop(client);
        broker.wait_for_open_files(before);
    });
}

#[test]
fn descriptor_with_the_first_byte_survives_protocol_detection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        drop(theirs);
        client.call("socket.send", json!([handle, base64("hi")])).result();
        let mut text = [0; 2];
        std::io::Read::read_exact(&mut &ours, &mut text).unwrap();
        assert_eq!(&text, b"hi");
    });
}

#[test]
fn socat_and_curl_can_call_methods() {
    let test = "framings::socat_and_curl_can_call_methods";
    if !program_or_skip("socat", test) || !program_or_skip("curl", test) {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let message = request(1, "socket.getaddrinfo", json!({ "host": "127.0.0.1", "port": 80 }));
        let path = broker.socket().display();
        let line = format!("printf '%s\\n' \"$1\" | socat -t 60 - UNIX-CONNECT:{path}");
        let post = format!(
            "curl --silent --max-time 120 --unix-socket {path} -H 'content-type: application/json' \
             -d \"$1\" http://localhost/"
        );
        for command in [line, post] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &command, "sh", &message.to_string()]).stdin(Stdio::null());
            let output = shell.output().unwrap();
            let answer: Value = serde_json::from_slice(&output.stdout).expect(&command);
            assert_eq!(answer["result"][0][4], json!(["127.0.0.1", 80]), "{command}");
        }
    });
}

#[test]
fn message_can_arrive_byte_by_byte() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let message = request(1, "socket.htons", json!([1])).to_string();
        for byte in sockbroker_test_support::LspClient::frame(&message, Some(&[b"ab"]), 0) {
            client.wire.send(&[byte], &[]).unwrap();
            std::thread::yield_now();
        }
        assert_eq!(*client.answer(1).result(), 256);
        client.expect_service();
    });
}
