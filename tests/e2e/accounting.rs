//! The broker counts the memory that it holds for a user, in every form: before a message is decoded, while it
//! is incomplete or unread, and after the last connection.

use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::websocket::Opcode;
use sockbroker_test_support::{Client, Daemon, LspClient, base64, bounded, pause, until};

use crate::broker::{broker, limited};

const HEAD: &str = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// Returns a restriction of about this size.
fn restriction(bytes: usize) -> Value {
    let paths = (0..bytes / 1000).map(|number| format!("/{number:0900}"));
    let paths: Vec<_> = paths.collect();
    json!({ "filters": [{ "allow": ["session"] }, { "allow": ["connect"], "path": paths }] })
}

#[test]
fn restrictions_are_counted_per_user_until_the_last_session_ends() {
    bounded(60, || {
        for limit in ["restriction_bytes_per_user", "restriction_bytes_in_all"] {
            let broker = limited(&[(limit, 200_000)]);
            let (mut first, mut second) = (broker.lsp(), broker.lsp());
            first.call("session.restrict", restriction(60_000)).result();
            let refused = second.call("session.restrict", restriction(60_000)).fault();
            assert_eq!((refused.limit(), refused.data.call.as_deref()), (limit, Some("restrict")));
            let mut child = restriction(60_000);
            child["linger"] = json!(0);
            assert_eq!(second.call("session.open", child).fault().limit(), limit);
            // A refused restriction is not held, and a clone shares the restrictions of its parent.
            second.call("session.restrict", restriction(20_000)).result();
            let token = first.call("session.clone", Value::Null).result()["token"].clone();
            let mut clone = broker.lsp();
            clone.call("session.attach", json!([token])).result();
            drop((first, second));
            let mut third = broker.lsp();
            until("the second session has ended", || {
                !third.call("session.restrict", restriction(20_000)).is_fault()
            });
            assert_eq!(third.call("session.restrict", restriction(60_000)).fault().limit(), limit);
            drop((clone, third));
            until("both sessions have ended", || {
                !broker.lsp().call("session.restrict", restriction(80_000)).is_fault()
            });
        }
    });
}

#[test]
fn restriction_names_and_paths_have_a_length_limit() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for (params, longest) in [
            (json!({ "rules": ["x".repeat(256)] }), "255"),
            (json!({ "filters": [{ "allow": ["bind"], "interface": ["x".repeat(256)] }] }), "255"),
            (json!({ "filters": [{ "allow": ["bind"], "path": ["/".repeat(4096)] }] }), "4095"),
        ] {
            let fault = client.call("session.restrict", params).fault();
            assert_eq!(fault.data.exception.as_deref(), Some("ValueError"));
            assert!(fault.message.contains(longest), "{}", fault.message);
        }
        client.call("session.restrict", json!({ "rules": ["x".repeat(255)] })).result();
    });
}

/// Leaves an unread answer of about this size in a session that outlives its connection.
fn leave_answer(broker: &Daemon, bytes: usize) -> (Value, u64, u64) {
    let mut client = broker.lsp();
    let opened = client.call("session.open", json!([60])).result().clone();
    // The answer has every unknown handle, with POLLNVAL.
    let fds = vec![(1_u64 << 40, 1); bytes / 18];
    let id = client.send("socket.poll", json!([fds]));
    assert!(client.wire.receives_within(Duration::from_mins(1)));
    (opened["token"].clone(), opened["connection"].as_u64().unwrap(), id)
}

fn state(broker: &Daemon, (token, connection, id): &(Value, u64, u64)) -> Value {
    let mut client = broker.lsp();
    client.call("session.attach", json!([token])).result();
    let resolved = client.call("call.resolve", json!([connection, id]));
    // Otherwise the broker would retain the answer to this call instead.
    client.call("session.close", Value::Null).result();
    resolved.result()["state"].clone()
}

#[test]
fn retained_answers_are_counted_across_sessions_without_connections() {
    bounded(60, || {
        for limit in ["resolve_kept_bytes_per_user", "resolve_kept_bytes_in_all"] {
            let broker = limited(&[(limit, 50_000)]);
            let first = leave_answer(&broker, 30_000);
            let second = leave_answer(&broker, 30_000);
            assert_eq!(state(&broker, &second), "unknown", "{limit}");
            assert_eq!(state(&broker, &first), "answered", "{limit}");
            // An answer that was returned is not retained any longer.
            until("the first session has ended", || {
                let third = leave_answer(&broker, 30_000);
                state(&broker, &third) == "answered"
            });
        }
    });
}

#[test]
fn body_in_one_byte_chunks_uses_memory_of_its_length() {
    bounded(120, || {
        let broker = broker();
        // So that the start of the worker is not counted.
        broker.lsp().expect_service();
        let mut client = broker.http();
        client
            .wire
            .send(format!("{HEAD}transfer-encoding: chunked\r\n\r\n").as_bytes(), &[])
            .unwrap();
        let before = broker.resident_bytes();
        let blanks = "1\r\n \r\n".repeat(20_000);
        let mut most = 0;
        for _ in 0..50 {
            client.wire.send(blanks.as_bytes(), &[]).unwrap();
            most = most.max(broker.resident_bytes().saturating_sub(before));
        }
        let body = request(1, "socket.htons", json!([1])).to_string();
        let end = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        client.wire.send(end.as_bytes(), &[]).unwrap();
        assert_eq!(client.read_json().unwrap()["result"], 256);
        // A million bytes, at most twice, plus what the allocator retains.
        assert!(most < 12 << 20, "{most}");
    });
}

#[test]
fn chunked_bodies_are_counted_as_they_grow() {
    bounded(60, || {
        let broker = limited(&[("buffered_bytes_per_user", 300_000)]);
        let mut second = broker.http();
        let chunk = format!("{:x}\r\n{}\r\n", 150_000, " ".repeat(150_000));
        let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
        second.wire.send(head.as_bytes(), &[]).unwrap();
        for _ in 0..3 {
            // The answer can arrive before the whole body is read.
            second.wire.send(chunk.as_bytes(), &[]).ok();
        }
        assert_eq!(second.read().unwrap().status, 503);
    });
}

#[test]
fn message_with_too_many_values_is_refused_before_decoding() {
    bounded(60, || {
        let broker = limited(&[("message_values", 100)]);
        let mut client = broker.lsp();
        let values = |count: usize| json!([vec![1; count]]);
        // Two for the brackets of the message and its parameters, three for the commas of the message.
        let fits = client.call("socket.htons", values(95)).fault();
        assert_eq!(fits.kind().1, "argument");
        let refused = client.call("socket.htons", values(96)).fault();
        assert_eq!(
            (refused.limit(), refused.data.call.as_deref()),
            ("message_values", Some("htons"))
        );
        client.notify("socket.htons", values(200));
        client.send_json(&vec![request(1, "socket.htons", values(20)); 8].into());
        let refused = client.next_answer().unwrap();
        assert_eq!((refused.id(), refused.fault().limit()), (&Value::Null, "message_values"));
        client.expect_service();
    });
}

#[test]
fn list_parameters_are_counted_before_decoding() {
    bounded(60, || {
        let limits = [("message_buffers", 2), ("ancillary_items", 1), ("address_items", 4)];
        let broker = limited(&limits);
        let mut client = broker.lsp();
        let (left, right) = client.pair_of("SOCK_DGRAM");
        let message = json!({ "buffers": ["aGk="] });
        let rights = json!(["SOL_SOCKET", "SCM_RIGHTS", { "descriptors": 0 }]);
        for (method, fitting, crossing, limit) in [
            (
                "socket.sendmmsg",
                json!([left, [message, message]]),
                json!([left, [message, message, message]]),
                "message_buffers",
            ),
            (
                "socket.sendmsg",
                json!({ "handle": left, "buffers": ["aGk=", ""] }),
                json!({ "handle": left, "buffers": ["aGk=", "", ""] }),
                "message_buffers",
            ),
            (
                "socket.recvmsg_into",
                json!([right, [1, 1]]),
                json!([right, [1, 1, 1]]),
                "message_buffers",
            ),
            (
                "socket.sendmsg",
                json!([left, ["aGk="], [rights]]),
                json!([left, ["aGk="], [rights, rights]]),
                "ancillary_items",
            ),
            (
                "socket.getnameinfo",
                json!([["::1", 9, 0, 0], 1]),
                json!([["::1", 9, 0, 0, 0], 1]),
                "address_items",
            ),
        ] {
            let refused = client.call(method, crossing).fault();
            assert_eq!(refused.limit(), limit, "{method}");
            client.call(method, fitting).result();
        }
    });
}

#[test]
fn list_parameters_of_waiting_calls_are_counted_by_item() {
    bounded(60, || {
        let broker = limited(&[("buffered_bytes_per_user", 1_000_000)]);
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let poll = json!([vec![(left, 1); 1000]]);
        // Each has ten kilobytes of text and a thousand decoded items.
        let waiting: Vec<_> = (0..3).map(|_| client.send("socket.poll", poll.clone())).collect();
        let refused = client.call("socket.poll", poll.clone()).fault();
        assert_eq!(refused.limit(), "buffered_bytes_per_user");
        client.call("socket.send", json!([right, "aGk="])).result();
        for id in waiting {
            assert_eq!(client.answer(id).result().as_array().unwrap().len(), 1000);
        }
        client.call("socket.poll", poll).result();
    });
}

#[test]
fn unread_answers_are_counted_per_user() {
    bounded(60, || {
        // One connection holds at most about `output_bytes` of unread responses.
        let broker = limited(&[("buffered_bytes_per_user", 1_300_000)]);
        let (mut first, mut second) = (broker.lsp(), broker.lsp());
        let data = vec![0; 600_000];
        let attachments = [&data[..]];
        let (left, right) = first.pair();
        let parts = RequestParts::attachments(&attachments);
        let waiting = first.send_with_parts("socket.recv", json!([left, 2]), parts);
        first.expect_service();
        let one = second.call("rpc.discover", Value::Null).json.to_string().len();
        for _ in 0..=2_000_000 / one {
            second.send("rpc.discover", Value::Null);
        }
        second.wire.wait_for_the_other_end_to_close();
        first.call("socket.send", json!([right, "aGk="])).result();
        first.answer(waiting).result();
        first.expect_service();
    });
}

/// Encodes a `struct tpacket_req` with this number of one-page blocks, each with one frame of this size.
fn ring(blocks: u32, frame: u32) -> Value {
    let page = if blocks == 0 { 0 } else { 4096 };
    let words = [page, blocks, frame.min(page * 2), blocks];
    json!(base64(words.map(u32::to_ne_bytes).concat()))
}

#[test]
fn kernel_memory_of_options_is_counted_until_the_last_duplicate_is_closed() {
    let test = "accounting::kernel_memory_of_options_is_counted_until_the_last_duplicate_is_closed";
    inside(test, || {
        const PAGE: u32 = 4096;
        let (receive, send) = (5, 13);
        for limit in ["kernel_bytes_per_user", "kernel_bytes_in_all"] {
            let broker = limited(&[(limit, 100 * u64::from(PAGE))]);
            let mut client = broker.lsp();
            let [first, second, third] = [(); 3].map(|()| {
                client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle()
            });
            let set = |client: &mut LspClient, socket: u64, ring_of: u8, value: Value| {
                client.call("socket.setsockopt", json!([socket, 263, ring_of, value]))
            };
            set(&mut client, first, receive, ring(50, PAGE)).result();
            let refused = set(&mut client, second, receive, ring(60, PAGE)).fault();
            assert_eq!(
                (refused.limit(), refused.data.call.as_deref()),
                (limit, Some("setsockopt"))
            );
            // A ring that the kernel refuses is not counted: a frame larger than its block.
            for _ in 0..3 {
                let wrong = set(&mut client, second, receive, ring(40, 2 * PAGE)).fault();
                assert_eq!(wrong.data.name.as_deref(), Some("EINVAL"));
            }
            set(&mut client, second, send, ring(40, PAGE)).result();
            let duplicate = client.call("socket.dup", json!([first])).handle();
            client.call("socket.close", json!([first])).result();
            assert_eq!(set(&mut client, third, receive, ring(40, PAGE)).fault().limit(), limit);
            // A ring without blocks frees the memory.
            set(&mut client, duplicate, receive, ring(0, 0)).result();
            set(&mut client, third, receive, ring(40, PAGE)).result();
            client.call("socket.close", json!([second])).result();
            set(&mut client, duplicate, receive, ring(50, PAGE)).result();
            let force = json!([duplicate, "SOL_SOCKET", 33, 1 << 20]);
            assert_eq!(client.call("socket.setsockopt", force).fault().limit(), limit);
            for socket in [duplicate, third] {
                client.call("socket.close", json!([socket])).result();
            }
            let last = client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
            set(&mut client, last, receive, ring(90, PAGE)).result();
        }
    });
}

#[test]
fn responses_of_incomplete_batches_are_counted() {
    bounded(60, || {
        for limit in ["buffered_bytes_per_user", "buffered_bytes_in_all"] {
            let broker = limited(&[(limit, 1_000_000)]);
            let mut client = broker.lsp();
            let (left, right) = client.pair();
            let one = client.call("rpc.discover", Value::Null).result().to_string().len();
            let mut batch = vec![request(1, "rpc.discover", Value::Null); 2_000_000 / one];
            batch.push(request(2, "socket.recv", json!([left, 2])));
            for _ in 0..2 {
                client.send_json(&batch.clone().into());
                client.notify("socket.send", json!([right, "aGk="]));
                let answer = client.read_json().unwrap();
                let (answers, last) = answer.as_array().unwrap().split_at(batch.len() - 1);
                let refused: Vec<_> =
                    answers.iter().filter(|answer| answer["result"].is_null()).collect();
                assert!(refused.len() > 1 && refused.len() < answers.len());
                assert!(refused.iter().all(|answer| answer["error"]["data"]["limit"] == limit));
                assert_eq!(last[0]["error"], Value::Null);
            }
            client.call("rpc.discover", Value::Null).result();
        }
    });
}

#[test]
fn idle_connections_do_not_keep_the_buffers_of_large_messages() {
    const MESSAGE: usize = 7 << 20;
    const CONNECTIONS: u64 = 24;
    bounded(180, || {
        let broker = broker();
        let text = request(1, "socket.htons", json!([1])).to_string();
        // The part of the next message arrives with the end of the large one.
        let line = format!("{text}{}\n{{", " ".repeat(MESSAGE));
        broker.lsp().expect_service();
        let before = broker.resident_bytes();
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut client = broker.ndjson();
                client.wire.send(line.as_bytes(), &[]).unwrap();
                client.read_json().unwrap();
                client
            })
            .collect();
        let websockets: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut client = broker.websocket();
                let payload = format!("{text}{}", " ".repeat(MESSAGE));
                client.send(Opcode::Text, true, payload.as_bytes());
                client.send(Opcode::Text, false, b"{");
                client.read_json().unwrap();
                client
            })
            .collect();
        let all = 2 * CONNECTIONS * MESSAGE as u64;
        until("the buffers are free", || broker.resident_bytes() < before + all / 4);
        drop((connections, websockets));
    });
}

#[test]
fn other_connections_are_served_while_a_large_message_is_decoded() {
    bounded(60, || {
        // Before the broker waits for the first byte of a connection.
        let message = request(1, "socket.sendmsg", json!([1, [""], "ITEMS"])).to_string();
        // As text: a value of this size takes longer to make than the broker takes to decode it.
        let items = format!("[{}0]", "[0,2,\"\"],".repeat(800_000));
        let message = message.replace("\"ITEMS\"", &items);
        let frame = LspClient::frame(&message, None, 0);
        let (begin, end) = frame.split_at(frame.len() - 1);
        let broker = broker();
        let (mut large, mut other) = (broker.lsp(), broker.lsp());
        let answered_first = (0..20).any(|_| {
            large.wire.send(begin, &[]).unwrap();
            other.expect_service();
            large.wire.send(end, &[]).unwrap();
            pause(5);
            other.expect_service();
            let first = large.wire.arrived() == 0;
            assert_eq!(large.next_answer().unwrap().fault().limit(), "message_values");
            first
        });
        assert!(answered_first, "the other connection always waits");
    });
}
