//! Peers that do not read, and many waiting calls: the memory of the broker stays bounded.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::websocket::Opcode;
use sockbroker_test_support::wire::Wire;
use sockbroker_test_support::{
    Client, Daemon, HANG, LspClient, WebSocketClient, base64, bounded, happens_within, pause,
};

use crate::broker::{broker, limited};

const MIB: u64 = 1 << 20;
/// The most memory that one peer is allowed to cost.
const MAX_GROWTH: u64 = 8 * MIB;

/// Sends `message` repeatedly and never reads. Returns the largest growth of the broker until it disconnects.
fn flood(broker: &Daemon, wire: &Wire, message: &[u8]) -> u64 {
    broker.lsp().expect_service();
    let (before, mut most) = (broker.resident_bytes(), 0);
    let hung_up = happens_within(HANG, || {
        most = most.max(broker.resident_bytes());
        for _ in 0..50 {
            match wire.try_send(message, &[]) {
                // The rest of a partly sent message is not sent: the broker no longer reads.
                Ok(sent) if sent == message.len() => {}
                Ok(_) => return false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
        false
    });
    assert!(hung_up, "the broker does not close the connection");
    most.saturating_sub(before)
}

/// Makes calls with small, medium and large answers.
fn calls(client: &mut LspClient) -> Vec<String> {
    let (left, right) = client.pair();
    client.call("socket.sendall", json!([left, base64(vec![1; 150_000])])).result();
    let peek = json!([right, 150_000, "MSG_PEEK"]);
    let calls = [
        ("socket.gettimeout", json!([left])),
        ("rpc.discover", Value::Null),
        ("socket.recv", peek),
    ];
    // Warm up, so that one-time allocations do not count.
    for (method, params) in &calls {
        client.call(method, params.clone()).result();
    }
    calls.map(|(method, params)| request(1, method, params).to_string()).into()
}

#[test]
fn unread_answers_end_the_connection_after_stall_seconds_with_bounded_memory() {
    bounded(40, || {
        for index in 0..3 {
            let broker = limited(&[("stall_seconds", 1)]);
            let mut client = broker.lsp();
            let call = calls(&mut client).swap_remove(index);
            let grown = flood(&broker, &client.wire, &LspClient::frame(&call, None, 0));
            assert!(grown <= MAX_GROWTH, "{grown} bytes for {call}");
            broker.lsp().expect_service();
        }
    });
}

#[test]
fn unread_answers_end_the_connection_on_every_protocol() {
    bounded(40, || {
        let broker = limited(&[("stall_seconds", 1)]);
        let call = request(1, "rpc.discover", Value::Null).to_string();
        broker.lsp().call("rpc.discover", Value::Null).result();
        let client = broker.ndjson();
        let grown = flood(&broker, &client.wire, format!("{call}\n").as_bytes());
        assert!(grown <= MAX_GROWTH, "{grown} bytes for lines");
        let client = broker.websocket();
        let frame = WebSocketClient::frame(Opcode::Text, true, true, call.as_bytes());
        let grown = flood(&broker, &client.wire, &frame);
        assert!(grown <= MAX_GROWTH, "{grown} bytes for WebSocket messages");
        let client = broker.websocket();
        let ping = WebSocketClient::frame(Opcode::Ping, true, true, &[0; 125]);
        let grown = flood(&broker, &client.wire, &ping);
        assert!(grown <= MAX_GROWTH, "{grown} bytes for pings");
        broker.lsp().expect_service();
    });
}

#[test]
fn unread_answers_end_the_connection_over_http() {
    bounded(40, || {
        let broker = limited(&[("stall_seconds", 1)]);
        let get = b"GET /openrpc.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
        broker.http().request("GET /openrpc.json", &[], b"");
        let client = broker.http();
        let grown = flood(&broker, &client.wire, get);
        assert!(grown <= MAX_GROWTH, "{grown} bytes");
    });
}

#[test]
fn slow_reader_receives_all_answers() {
    bounded(20, || {
        let broker = limited(&[("stall_seconds", 60)]);
        let mut client = broker.lsp();
        let frame = |id: u64| {
            LspClient::frame(&request(id, "rpc.discover", Value::Null).to_string(), None, 0)
        };
        let frames: Vec<u8> = (0..100).flat_map(frame).collect();
        client.wire.send(&frames, &[]).unwrap();
        pause(600);
        for id in 0..100_u64 {
            let answer = client.next_answer().unwrap();
            assert_eq!((answer.id(), answer.is_fault()), (&json!(id), false));
            // Reads more slowly than the broker writes, but never pauses as long as the limit.
            if id.is_multiple_of(10) {
                pause(20);
            }
        }
        client.expect_service();
    });
}

#[test]
fn output_bytes_stops_reading_calls_until_the_peer_reads() {
    bounded(20, || {
        let broker = limited(&[("output_bytes", 10_000)]);
        let mut client = broker.lsp();
        let token = client.call("session.open", Value::Null).result()["token"].clone();
        let mut witness = broker.lsp();
        witness.call("session.attach", json!([token])).result();
        let frame =
            LspClient::frame(&request("x", "rpc.discover", Value::Null).to_string(), None, 0);
        client.wire.send(&frame.repeat(30), &[]).unwrap();
        let last = client.send("socket.setdefaulttimeout", json!([5]));
        pause(100);
        let seen = witness.call("socket.getdefaulttimeout", Value::Null);
        assert_eq!(*seen.result(), Value::Null);
        assert_eq!(*client.answer(last).result(), Value::Null);
        let seen = witness.call("socket.getdefaulttimeout", Value::Null);
        assert_eq!(*seen.result(), 5.0);
    });
}

#[test]
fn stall_seconds_applies_after_a_half_close() {
    bounded(20, || {
        let broker = limited(&[("stall_seconds", 60)]);
        let mut keeper = broker.lsp();
        let token = keeper.call("session.open", Value::Null).result()["token"].clone();
        let (left, right) = keeper.pair();
        // Find out how many small answers fill the socket between broker and client.
        let fill = |client: &mut LspClient| {
            let mut sent = 0;
            loop {
                let before = client.wire.arrived();
                client.send("socket.htons", json!([1]));
                sent += 1;
                if !happens_within(Duration::from_millis(300), || client.wire.arrived() > before) {
                    return sent;
                }
            }
        };
        let space = fill(&mut broker.lsp()) - 1;
        let mut client = broker.lsp();
        client.call("session.attach", json!([token])).result();
        for _ in 0..space {
            let before = client.wire.arrived();
            client.send("socket.htons", json!([1]));
            assert!(happens_within(HANG, || client.wire.arrived() > before));
        }
        let waiting = client.send("socket.recv", json!([right, 9]));
        client.wire.close_writing();
        pause(300);
        keeper.call("socket.send", json!([left, "aGk="])).result();
        pause(1500);
        assert_eq!(client.answer(waiting).data(), b"hi");
    });
}

#[test]
fn close_and_cancel_work_during_200_blocked_calls() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let (other, _) = client.pair();
        let before = broker.resident_bytes();
        let ids: Vec<u64> = (0..200)
            .map(|number| {
                let handle = if number % 2 == 0 { left } else { right };
                client.send("socket.recv", json!([handle, 1000]))
            })
            .collect();
        client.call("socket.close", json!([other])).result();
        for id in &ids {
            client.cancel(*id);
        }
        for id in ids {
            assert_eq!(client.answer(id).fault().code, -32800);
        }
        client.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(client.call("socket.recv", json!([right, 9])).data(), b"hi");
        client.call("socket.close", json!([left])).result();
        let grown = broker.resident_bytes().saturating_sub(before);
        assert!(grown < 4 * MIB, "{grown} bytes for 200 calls");
    });
}

/// Returns a stream with full buffers, and its other end.
fn full(client: &mut LspClient) -> (u64, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handle = client.lend(&theirs);
    client.call("socket.setblocking", json!([handle, false])).result();
    let data = base64(vec![0; 100_000]);
    while !client.call("socket.send", json!([handle, data])).is_fault() {}
    while !client.call("socket.send", json!([handle, "AA=="])).is_fault() {}
    client.call("socket.setblocking", json!([handle, true])).result();
    (handle, ours)
}

#[test]
fn buffered_bytes_bounds_json_of_waiting_calls() {
    bounded(20, || {
        let broker = limited(&[("buffered_bytes", 100_000)]);
        let mut client = broker.lsp();
        let (handle, _ours) = full(&mut client);
        let call = json!([handle, base64(vec![1; 45_000])]);
        let first = client.send("socket.sendall", call.clone());
        let refused = client.call("socket.sendall", call.clone()).fault();
        assert_eq!(refused.limit(), "buffered_bytes");
        client.expect_service();
        client.cancel(first);
        assert_eq!(client.answer(first).fault().code, -32800);
        let again = client.send("socket.sendall", call);
        client.expect_silence_for(50);
        client.cancel(again);
        assert_eq!(client.answer(again).fault().code, -32800);
    });
}

#[test]
fn buffered_bytes_bounds_attachments_of_waiting_calls() {
    bounded(20, || {
        let broker = limited(&[("buffered_bytes", 100_000)]);
        let mut client = broker.lsp();
        let (handle, _ours) = full(&mut client);
        let data = vec![1; 60_000];
        let attachments: [&[u8]; 1] = [&data];
        let call = |client: &mut LspClient| {
            let params = json!([handle, { "attachment": 0 }]);
            client.send_with_parts(
                "socket.sendall",
                params,
                RequestParts::attachments(&attachments),
            )
        };
        let first = call(&mut client);
        let second = call(&mut client);
        let answered = client.wire.receives_within(HANG);
        assert!(answered, "120 000 bytes wait where 100 000 may");
        assert_eq!(client.answer(second).fault().limit(), "buffered_bytes");
        client.cancel(first);
        assert_eq!(client.answer(first).fault().code, -32800);
    });
}

#[test]
fn buffered_descriptors_bounds_descriptors_of_waiting_calls() {
    bounded(20, || {
        let broker = limited(&[("buffered_descriptors", 3)]);
        let mut client = broker.lsp();
        let (handle, _ours) = full(&mut client);
        let files = broker.idle_open_files();
        let null = std::fs::File::open("/dev/null").unwrap();
        let some = [null.as_fd(); 2];
        let call = |client: &mut LspClient| {
            let item = json!([1, 1, { "descriptors": 2 }]);
            let params = json!([handle, ["aGk="], [item]]);
            client.send_with_parts("socket.sendmsg", params, RequestParts::descriptors(&some))
        };
        let first = call(&mut client);
        let second = call(&mut client);
        assert_eq!(client.answer(second).fault().limit(), "buffered_descriptors");
        broker.wait_for_open_files(files + 2);
        client.cancel(first);
        assert_eq!(client.answer(first).fault().code, -32800);
        broker.wait_for_open_files(files);
        // Descriptors of calls that do not wait are not counted.
        client
            .call_with_parts("socket.htons", json!([1]), RequestParts::descriptors(&some))
            .result();
    });
}

/// Returns the growth of the broker while `rounds` sends of `waiting` bytes wait. Each of them arrived directly
/// after a frame of `before` bytes.
fn grown_by(before: usize, waiting: usize, rounds: u64) -> u64 {
    let broker = broker();
    let mut client = broker.lsp();
    let (handle, _ours) = full(&mut client);
    let (junk, data) = (vec![b'x'; before], vec![b'y'; waiting]);
    let large = request(1, "socket.htons", json!([1])).to_string();
    let large = LspClient::frame(&large, Some(&[&junk]), 0);
    client.wire.send(&large, &[]).unwrap();
    client.answer(1).result();
    let before = broker.resident_bytes();
    for id in 1000..1000 + rounds {
        let small = request(id, "socket.sendall", json!([handle, { "attachment": 0 }]));
        let small = LspClient::frame(&small.to_string(), Some(&[&data]), 0);
        client.wire.send(&[&large[..], &small].concat(), &[]).unwrap();
        client.answer(1).result();
    }
    // All of them wait: the broker has not refused the last one.
    client.expect_silence_for(50);
    broker.resident_bytes().saturating_sub(before)
}

#[test]
fn waiting_calls_do_not_retain_earlier_frames() {
    bounded(30, || {
        let grown = grown_by(1 << 20, 1, 200);
        assert!(grown <= 24 * MIB, "{} MiB for 200 bytes that wait", grown / MIB);
        let grown = grown_by(6 << 20, 1_100_000, 14);
        assert!(grown <= 40 * MIB, "{} MiB for 15 MiB that wait", grown / MIB);
    });
}

#[test]
fn incomplete_batches_do_not_accumulate_answers() {
    bounded(30, || {
        // One of several limits applies; each is far below the size of all answers.
        let limits = [("frame_bytes", MIB), ("receive_bytes", 100_000), ("buffered_bytes", MIB)];
        let broker = limited(&limits);
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        client.call("socket.sendall", json!([left, base64(vec![1; 100_000])])).result();
        let peek = request(1, "socket.recv", json!([right, 100_000, "MSG_PEEK"]));
        client.send_json(&peek);
        client.answer(1).result();
        let mut batch = vec![peek; 40];
        batch.push(request(Value::Null, "socket.recv", json!([left, 1])));
        let batch = Value::from(batch);
        let before = broker.resident_bytes();
        for _ in 0..8 {
            client.send_json(&batch);
        }
        // The calls after the batches are served.
        client.expect_service();
        let grown = broker.resident_bytes().saturating_sub(before);
        assert!(grown <= 20 * MIB, "{} MiB of answers that are not sent", grown / MIB);
    });
}
