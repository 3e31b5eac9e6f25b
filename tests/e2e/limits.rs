//! Exceeding a limit returns an error with the name of the limit (promise 7 of PROTOCOL.md).
//!
//! Limits of one theme are tested with it: connections and sessions in `admission`, sending in `backpressure`,
//! `call.resolve` in `resolve`, the resolver in `names`, the shutdown in `shutdown`.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::websocket::Opcode;
use sockbroker_test_support::{Client, LspClient, WebSocketClient, base64, bounded, pause};

use crate::broker::{broker, limited};

/// Every limit, with the modules that exceed it.
const EXCEEDED_BY: [(&str, &str); 94] = [
    ("head_bytes", "limits"),
    ("frame_bytes", "limits, http, websocket"),
    ("attachments", "limits"),
    ("descriptors", "limits"),
    ("batch_calls", "limits"),
    ("calls_in_flight", "limits, panics"),
    ("buffered_bytes", "backpressure"),
    ("buffered_descriptors", "backpressure"),
    ("output_bytes", "backpressure"),
    ("stall_seconds", "backpressure"),
    ("workers", "workers"),
    ("workers_per_user", "workers"),
    ("worker_starts_per_second", "workers"),
    ("worker_idle_seconds", "workers"),
    ("remote_connections", "remote::principals"),
    ("remote_workers", "remote::principals"),
    ("remote_sessions", "remote::principals"),
    ("handshakes", "remote::faults"),
    ("handshakes_per_address", "remote::faults"),
    ("handshake_seconds", "remote::faults"),
    ("detect_seconds", "limits"),
    ("partial_seconds", "limits"),
    ("connections", "admission"),
    ("connections_reserved", "admission"),
    ("connections_per_user", "admission"),
    ("sessions", "admission"),
    ("sessions_reserved", "admission"),
    ("sessions_per_user", "admission"),
    ("handles", "limits"),
    ("handles_per_user", "quotas"),
    ("handles_in_all", "quotas"),
    ("calls_in_flight_per_user", "quotas"),
    ("calls_in_flight_in_all", "quotas"),
    ("buffered_bytes_per_user", "quotas"),
    ("buffered_bytes_in_all", "quotas"),
    ("buffered_descriptors_per_user", "quotas"),
    ("buffered_descriptors_in_all", "quotas"),
    ("kernel_bytes_per_user", "accounting"),
    ("kernel_bytes_in_all", "accounting"),
    ("packets_per_second", "quotas"),
    ("bytes_per_second", "quotas"),
    ("receive_bytes", "limits"),
    ("ancillary_bytes", "limits"),
    ("batch_messages", "limits"),
    ("poll_handles", "limits"),
    ("message_values", "accounting"),
    ("message_buffers", "accounting"),
    ("ancillary_items", "accounting"),
    ("message_routes", "security::quotas"),
    ("address_items", "accounting"),
    ("lookups_kept", "session::tests of the daemon"),
    ("restrictions", "session::tests of the daemon"),
    ("restriction_items", "policy"),
    ("restriction_bytes_per_user", "accounting"),
    ("restriction_bytes_in_all", "accounting"),
    ("captures_per_user", "captures"),
    ("captures_in_all", "captures"),
    ("capture_bytes_per_user", "captures"),
    ("capture_bytes_in_all", "captures"),
    ("replays_per_user", "replay"),
    ("replays_in_all", "replay"),
    ("replay_blocks", "replay"),
    ("channels", "channel_limits"),
    ("channels_per_user", "channel_limits"),
    ("channels_in_all", "channel_limits"),
    ("channel_tokens", "channel_limits"),
    ("channel_token_seconds", "channel_limits"),
    ("channel_bytes", "channel_limits"),
    ("channel_drain_seconds", "channel_limits"),
    ("resolver_jobs", "names"),
    ("resolver_jobs_per_user", "names"),
    ("identity_jobs", "identity"),
    ("identity_jobs_per_user", "identity"),
    ("closing_jobs", "closing"),
    ("closing_jobs_per_user", "closing"),
    ("linger_seconds", "limits"),
    ("clone_seconds", "sessions"),
    ("persistent_sessions_per_user", "restart"),
    ("persistent_sessions_in_all", "restart"),
    ("persistent_handles_per_user", "restart"),
    ("persistent_handles_in_all", "restart"),
    ("persistent_bytes_per_user", "restart"),
    ("reattach_seconds", "restart"),
    ("resolve_seconds", "resolve"),
    ("resolve_kept", "resolve"),
    ("resolve_kept_bytes", "resolve"),
    ("resolve_kept_bytes_per_user", "accounting"),
    ("resolve_kept_bytes_in_all", "accounting"),
    ("resolve_kept_seconds", "resolve"),
    ("audit_records_per_second", "observe"),
    ("audit_records_per_user", "observe"),
    ("audit_users", "observe::audit::rates of the daemon"),
    ("refusal_lines_per_minute", "admission"),
    ("drain_seconds", "shutdown"),
];

#[test]
fn every_limit_is_exceeded_by_a_test() {
    bounded(20, || {
        let broker = limited(&[("handles", 77)]);
        let answer = broker.lsp().call("session.limits", Value::Null);
        let limits = answer.result().as_object().unwrap();
        let reported: BTreeSet<&str> = limits.keys().map(String::as_str).collect();
        assert_eq!(reported, EXCEEDED_BY.iter().map(|(name, _)| *name).collect());
        assert_eq!(limits["handles"]["value"], 77);
        for (name, limit) in limits {
            let unit = limit["unit"].as_str().unwrap();
            assert!(["bytes", "seconds", "count"].contains(&unit), "{name}: {unit}");
            assert!(limit["meaning"].as_str().unwrap().len() > 20, "{name}");
        }
    });
}

#[test]
fn head_over_head_bytes_ends_the_connection() {
    bounded(20, || {
        let broker = limited(&[("head_bytes", 64)]);
        let message = request(1, "socket.htons", json!([1])).to_string();
        let head = |length: usize| {
            let start = format!("Content-Length: {}\r\nX: ", message.len());
            let filler = "x".repeat(length - start.len() - 4);
            format!("{start}{filler}\r\n\r\n")
        };
        let mut client = broker.lsp();
        client.wire.send(format!("{}{message}", head(64)).as_bytes(), &[]).unwrap();
        assert_eq!(*client.answer(1).result(), 256);
        client.wire.send(format!("{}{message}", head(65)).as_bytes(), &[]).unwrap();
        client.expect_end();
        // A head without an end is enough.
        let mut client = broker.lsp();
        client.wire.send(&[b'C'; 64], &[]).unwrap();
        client.expect_end();
    });
}

#[test]
fn frame_or_line_over_frame_bytes_ends_the_connection() {
    bounded(20, || {
        let broker = limited(&[("frame_bytes", 70_000), ("receive_bytes", 1000)]);
        let message = request(1, "socket.htons", json!([1])).to_string();
        let rest = 70_000 - message.len();
        let mut client = broker.lsp();
        let whole = vec![b'x'; rest];
        client.wire.send(&LspClient::frame(&message, Some(&[&whole]), 0), &[]).unwrap();
        assert_eq!(*client.answer(1).result(), 256);
        let head = format!("Content-Length: {}\r\nAttachments: {rest},1\r\n\r\n", message.len());
        client.wire.send(head.as_bytes(), &[]).unwrap();
        client.expect_end();
        let mut client = broker.ndjson();
        client.send_text(&format!("{message}{}\n", " ".repeat(rest)));
        assert_eq!(client.read_json().unwrap()["result"], 256);
        client.wire.send(&vec![b' '; 70_001], &[]).ok();
        assert_eq!(client.read_json(), None);
    });
}

#[test]
fn answer_over_frame_bytes_returns_limit_error() {
    bounded(20, || {
        let broker = limited(&[("frame_bytes", 66_000), ("receive_bytes", 100)]);
        let mut client = broker.lsp();
        // The POLLNVAL entries make the answer longer than the request.
        let fault = client.call("socket.poll", json!([vec![(5, 0); 10_000]])).fault();
        assert_eq!((fault.limit(), fault.data.call.as_deref()), ("frame_bytes", Some("poll")));
        let constants = |id: u64| request(id, "socket.constants", Value::Null);
        let one = client.call("socket.constants", Value::Null).json.to_string().len();
        let fitting = 66_000 / one;
        client.send_json(&(0..10).map(constants).collect());
        let answers = client.read_json().unwrap();
        for (index, answer) in answers.as_array().unwrap().iter().enumerate() {
            assert_eq!(answer["id"], index);
            let limit = &answer["error"]["data"]["limit"];
            assert_eq!(*limit == "frame_bytes", index >= fitting, "{index}: {limit}");
        }
        assert!(answers.to_string().len() < 66_000 + 10 * 300);
        client.expect_service();
    });
}

#[test]
fn attachments_limit_applies_in_both_directions() {
    bounded(20, || {
        let broker = limited(&[("attachments", 2)]);
        let mut client = broker.lsp();
        let (left, right) = client.pair_of("SOCK_DGRAM");
        for data in [b"a", b"b", b"c"] {
            client.call("socket.send", json!([left, base64(data)])).result();
        }
        // Bytes beyond the limit are in the JSON of the answer.
        let answer = client.call_for_attachments("socket.recvmmsg", json!([right, 9, 9]));
        assert_eq!(answer.attachments, [b"a", b"b"]);
        assert_eq!(answer.result()[2]["data"], base64("c"));
        let params = json!([left, { "attachment": 1 }]);
        client
            .call_with_parts(
                "socket.send",
                params.clone(),
                RequestParts::attachments(&[b"x", b"y"]),
            )
            .result();
        client.send_with_parts(
            "socket.send",
            params,
            RequestParts::attachments(&[b"x", b"y", b"z"]),
        );
        client.expect_end();
    });
}

#[test]
fn descriptors_limit_applies_to_announced_and_unannounced_descriptors() {
    bounded(20, || {
        let broker = limited(&[("descriptors", 2)]);
        let null = std::fs::File::open("/dev/null").unwrap();
        let some = [null.as_fd(); 3];
        let mut client = broker.lsp();
        client
            .call_with_parts("socket.htons", json!([1]), RequestParts::descriptors(&some[..2]))
            .result();
        client.send_with_parts("socket.htons", json!([1]), RequestParts::descriptors(&some));
        client.expect_end();
        let mut client = broker.lsp();
        for _ in 0..3 {
            client.wire.send(b"Content", &some[..2]).unwrap();
        }
        client.expect_end();
        let mut client = broker.ndjson();
        for _ in 0..3 {
            client.wire.send(b" ", &some[..2]).unwrap();
        }
        assert_eq!(client.read_json(), None);
        broker.lsp().expect_service();
    });
}

#[test]
fn batch_over_batch_calls_is_refused_as_a_whole() {
    bounded(20, || {
        let broker = limited(&[("batch_calls", 3)]);
        let mut client = broker.lsp();
        let (left, _) = client.pair();
        let close = request(1, "socket.close", json!([left]));
        client.send_json(&vec![close; 4].into());
        let refused = client.next_answer().unwrap();
        assert_eq!((refused.id(), refused.fault().limit()), (&Value::Null, "batch_calls"));
        client.call("socket.gettimeout", json!([left])).result();
        client.send_json(&vec![request(1, "socket.htons", json!([1])); 3].into());
        assert_eq!(client.read_json().unwrap().as_array().unwrap().len(), 3);
    });
}

#[test]
fn call_over_calls_in_flight_is_refused_and_immediate_calls_are_served() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let receive = json!([left, 1]);
        let ids: Vec<u64> = (0..256).map(|_| client.send("socket.recv", receive.clone())).collect();
        let refused = client.call("socket.recv", receive.clone()).fault();
        assert_eq!(refused.limit(), "calls_in_flight");
        // A notification that would wait is refused without an answer.
        client.notify("socket.recv", receive.clone());
        client.expect_service();
        client.call("socket.send", json!([right, base64(vec![1; 256])])).result();
        for id in ids {
            assert_eq!(client.answer(id).data(), [1]);
        }
        let waiting = client.send("socket.recv", receive);
        client.call("socket.send", json!([right, base64([2])])).result();
        assert_eq!(client.answer(waiting).data(), [2]);
    });
}

#[test]
fn silent_connection_ends_after_detect_seconds() {
    bounded(20, || {
        let broker = limited(&[("detect_seconds", 5)]);
        let mut idle = broker.lsp();
        idle.expect_service();
        let (mut silent, mut half) = (broker.lsp(), broker.http());
        half.wire.send(b"POST / HTTP/1.1\r\n", &[]).unwrap();
        silent.expect_end();
        // Status 408, or no answer.
        if let Some(response) = half.read() {
            assert_eq!(response.status, 408);
            assert!(half.read().is_none());
        }
        // A connection that has sent a message can be silent for any time.
        pause(300);
        idle.expect_service();
    });
}

#[test]
fn stalled_message_ends_the_connection_after_partial_seconds() {
    bounded(20, || {
        let broker = limited(&[("partial_seconds", 5)]);
        let message = request(1, "socket.htons", json!([1])).to_string();
        let frame = LspClient::frame(&message, Some(&[b"attached"]), 0);
        let head = frame.len() - message.len() - 8;
        let masked = |last, part: &[u8]| WebSocketClient::frame(Opcode::Text, last, true, part);
        let upgrade = WebSocketClient::handshake("").into_bytes();
        let fragment = [upgrade.clone(), masked(false, message.as_bytes())].concat();
        let half = [upgrade, masked(true, message.as_bytes())[..9].to_vec()].concat();
        let begun = [
            ("half a head", frame[..5].to_vec()),
            ("a head alone", frame[..head].to_vec()),
            ("half of the JSON", frame[..head + 9].to_vec()),
            ("the JSON alone", frame[..frame.len() - 8].to_vec()),
            ("half a line", message.as_bytes()[..9].to_vec()),
            ("half a WebSocket frame", half),
            ("a fragment", fragment),
        ];
        let begin = |(what, bytes): (&'static str, Vec<u8>)| {
            let client = broker.ndjson();
            client.wire.send(&bytes, &[]).unwrap();
            (what, client)
        };
        let mut clients = begun.map(begin);
        let mut slow = broker.ndjson();
        // A slow sender that makes progress is not disconnected.
        for part in message.as_bytes().chunks(message.len() / 5) {
            slow.wire.send(part, &[]).unwrap();
            pause(1100);
        }
        let open = clients.iter_mut().filter_map(|(what, client)| {
            let open = !client.wire.ends();
            open.then_some(*what)
        });
        assert_eq!(open.collect::<Vec<_>>(), [""; 0], "still open");
        slow.send_text("\n");
        assert_eq!(slow.read_json().unwrap()["result"], 256);
    });
}

#[test]
fn sockets_over_handles_are_refused_by_every_method() {
    bounded(20, || {
        let broker = limited(&[("handles", 3)]);
        let mut client = broker.lsp();
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let address = client.call("socket.getsockname", json!([listener])).result().clone();
        let port = u16::try_from(address[1].as_u64().unwrap()).unwrap();
        let (left, right) = client.pair();
        let files = broker.idle_open_files();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let descriptors = [ours.as_fd()];
        for (method, params) in [
            ("socket.socket", Value::Null),
            ("socket.socketpair", Value::Null),
            ("socket.dup", json!([left])),
            ("socket.fromfd", Value::Null),
            ("socket.socket", json!({ "fileno": 0 })),
            ("socket.create_server", json!([["127.0.0.1", 0]])),
            ("socket.create_connection", json!([address])),
        ] {
            let refused =
                client.call_with_parts(method, params, RequestParts::descriptors(&descriptors));
            assert_eq!(refused.fault().limit(), "handles", "{method}");
        }
        broker.wait_for_open_files(files);
        client.call("socket.close", json!([right])).result();
        // One handle is free, two are needed: no socket is left open.
        assert_eq!(client.call("socket.socketpair", Value::Null).fault().limit(), "handles");
        assert_eq!(client.call("session.info", Value::Null).result()["handles"], 2);
        client.call("socket.dup", json!([left])).handle();
        drop(TcpStream::connect(("127.0.0.1", port)));
    });
}

#[test]
fn accept_over_handles_leaves_the_connection_queued() {
    bounded(20, || {
        // The limit can be reached before the call and while it waits.
        for waits in [false, true] {
            let broker = limited(&[("handles", 2)]);
            let mut client = broker.lsp();
            let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
            let name = client.call("socket.getsockname", json!([listener]));
            let port = u16::try_from(name.result()[1].as_u64().unwrap()).unwrap();
            let early = waits.then(|| client.send("socket.accept", json!([listener])));
            let other = client.call("socket.socket", Value::Null).handle();
            let peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let refused = early.unwrap_or_else(|| client.send("socket.accept", json!([listener])));
            assert_eq!(client.answer(refused).fault().limit(), "handles", "waits: {waits}");
            client.call("socket.close", json!([other])).result();
            // Like EMFILE, which leaves the connection in the queue too (accept(2)).
            client.call("socket.settimeout", json!([listener, 1])).result();
            let accepted = client.call("socket.accept", json!([listener]));
            let from = &accepted.result()["address"][1];
            assert_eq!(*from, peer.local_addr().unwrap().port(), "waits: {waits}");
        }
    });
}

#[test]
fn call_sizes_over_their_limits_are_refused() {
    bounded(20, || {
        let broker = limited(&[
            ("receive_bytes", 1000),
            ("ancillary_bytes", 500),
            ("batch_messages", 4),
            ("poll_handles", 2),
            ("linger_seconds", 5),
        ]);
        let mut client = broker.lsp();
        let (left, right) = client.pair_of("SOCK_DGRAM");
        for _ in 0..8 {
            client.call("socket.send", json!([left, "aGk="])).result();
        }
        let message = json!({ "buffers": ["aGk="] });
        let poll = json!([right, "POLLIN"]);
        for (method, fitting, crossing, limit) in [
            ("socket.recv", json!([right, 1000]), json!([right, 1001]), "receive_bytes"),
            ("socket.recvfrom", json!([right, 1000]), json!([right, i64::MAX]), "receive_bytes"),
            ("socket.recvmsg", json!([right, 1000]), json!([right, 1001]), "receive_bytes"),
            (
                "socket.recvmsg_into",
                json!([right, [500, 500]]),
                json!([right, [500, 501]]),
                "receive_bytes",
            ),
            ("socket.recvmmsg", json!([right, 4, 250]), json!([right, 4, 251]), "receive_bytes"),
            ("socket.recvmsg", json!([right, 9, 500]), json!([right, 9, 501]), "ancillary_bytes"),
            ("socket.recvmmsg", json!([right, 4, 9]), json!([right, 5, 9]), "batch_messages"),
            (
                "socket.sendmmsg",
                json!([left, [message, message, message, message]]),
                json!([left, [message, message, message, message, message]]),
                "batch_messages",
            ),
            (
                "socket.poll",
                json!([[poll, poll], 0]),
                json!([[poll, poll, poll], 0]),
                "poll_handles",
            ),
            ("session.open", json!([5]), json!([5.5]), "linger_seconds"),
        ] {
            assert_eq!(client.call(method, crossing).fault().limit(), limit, "{method}");
            client.call("socket.settimeout", json!([right, 1])).result();
            client.call("socket.send", json!([left, "aGk="])).result();
            client.call(method, fitting).result();
        }
        client.expect_service();
    });
}
