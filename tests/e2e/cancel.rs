//! A cancelled call loses no data and is answered once (promises 4 and 5 of PROTOCOL.md).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::poll::poll_now;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Answer, Client, HANG, LspClient, base64, bounded, pause, until};

use crate::broker::broker;

const CANCELLED: (i64, &str) = (-32800, "cancelled");

/// Returns a stream of the test and the handle of its other end in the broker.
fn stream_to(client: &mut LspClient) -> (UnixStream, u64) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handle = client.lend(&theirs);
    (ours, handle)
}

fn cancelled(answer: &Answer) -> bool {
    answer.is_fault() && answer.fault().kind() == CANCELLED
}

#[test]
fn waiting_call_can_be_cancelled_and_is_answered_once() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, _) = client.pair();
        let (datagrams, _) = client.pair_of("SOCK_DGRAM");
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let (_ours, full) = stream_to(&mut client);
        let full_params = json!([full, base64(vec![0; 1_000_000])]);
        for (method, params) in [
            ("socket.recv", json!([left, 1])),
            ("socket.recv", json!([left, 1, "MSG_WAITALL"])),
            ("socket.recv_into", json!([left, 1])),
            ("socket.recvfrom", json!([datagrams, 1])),
            ("socket.recvfrom_into", json!([datagrams, 1])),
            ("socket.recvmsg", json!([left, 1])),
            ("socket.recvmsg_into", json!([left, [1]])),
            ("socket.recvmmsg", json!([datagrams, 2, 10])),
            ("socket.accept", json!([listener])),
            ("socket.poll", json!([[[left, "POLLIN"]]])),
            ("socket.sendall", full_params.clone()),
            ("socket.send", full_params),
        ] {
            let id = client.send(method, params);
            pause(5);
            client.cancel(id);
            client.cancel(id);
            assert_eq!(client.answer(id).fault().kind(), CANCELLED, "{method}");
        }
        client.expect_silence_for(50);
    });
}

#[test]
fn string_and_null_ids_are_distinct() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        for id in [json!(1), json!("1"), json!(null)] {
            client.send_json(&request(id, "socket.recv", json!([left, 9])));
        }
        client.notify("$/cancelRequest", json!({ "id": "1" }));
        let answer = client.next_answer().unwrap();
        assert_eq!((answer.id(), answer.fault().code), (&json!("1"), -32800));
        client.notify("$/cancelRequest", json!({ "id": null }));
        client.expect_silence_for(30);
        for id in [json!(1), json!(null)] {
            client.send("socket.send", json!([right, "aGk="]));
            let answers = [client.next_answer().unwrap(), client.next_answer().unwrap()];
            assert!(answers.iter().any(|answer| *answer.id() == id && !answer.is_fault()));
        }
    });
}

#[test]
fn cancel_of_an_unknown_id_is_ignored_and_cancel_as_a_request_is_an_error() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        client.cancel(77);
        let done = client.send("socket.htons", json!([1]));
        client.cancel(done);
        assert_eq!(*client.answer(done).result(), 256);
        for params in [json!({}), json!([]), json!({ "id": [1] }), json!(7), Value::Null] {
            client.notify("$/cancelRequest", params);
        }
        client.expect_silence_for(30);
        let fault = client.call("$/cancelRequest", json!({ "id": 1 })).fault();
        assert_eq!(fault.kind(), (-32600, "request"));
        client.expect_service();
    });
}

#[test]
fn id_in_flight_cannot_be_reused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        client.send_json(&request("a", "socket.recv", json!([left, 9])));
        client.send_json(&request("a", "socket.htons", json!([1])));
        let refused = client.next_answer().unwrap();
        assert_eq!((refused.id(), refused.fault().kind()), (&json!("a"), (-32600, "request")));
        client.call("socket.send", json!([right, "aGk="])).result();
        assert_eq!(client.next_answer().unwrap().data(), b"hi");
        client.send_json(&request("a", "socket.htons", json!([1])));
        assert_eq!(*client.next_answer().unwrap().result(), 256);
    });
}

#[test]
fn cancelled_receive_loses_no_data() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (mut ours, handle) = stream_to(&mut client);
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        let (mut cancels, mut data) = (0, 0);
        for round in 0..400_u16 {
            let method =
                ["socket.recv", "socket.recvmsg", "socket.recvfrom"][usize::from(round % 3)];
            let id = client.send(method, json!([handle, 100]));
            let chunk = round.to_be_bytes();
            // Both orders, with short and longer delays.
            if round % 4 < 2 {
                ours.write_all(&chunk).unwrap();
            }
            client.cancel(id);
            if round % 4 == 2 {
                pause(1);
            }
            if round % 4 >= 2 {
                ours.write_all(&chunk).unwrap();
            }
            written.extend(chunk);
            let answer = client.answer(id);
            if cancelled(&answer) {
                cancels += 1;
            } else {
                data += 1;
                seen.extend(answer.data());
            }
        }
        drop(ours);
        while seen.len() < written.len() {
            let more = client.call("socket.recv", json!([handle, 4096])).data();
            assert!(!more.is_empty(), "{} of {} bytes arrived", seen.len(), written.len());
            seen.extend(more);
        }
        assert!(seen == written);
        assert!(cancels > 0 && data > 0, "{cancels} cancels and {data} receives");
        client.expect_silence_for(20);
    });
}

#[test]
fn cancelled_accept_loses_no_connection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let name = client.call("socket.getsockname", json!([listener]));
        let port = u16::try_from(name.result()[1].as_u64().unwrap()).unwrap();
        let (mut connections, mut accepted) = (Vec::new(), 0);
        for _ in 0..100 {
            let id = client.send("socket.accept", json!([listener]));
            connections.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
            client.cancel(id);
            accepted += usize::from(!cancelled(&client.answer(id)));
        }
        client.call("socket.settimeout", json!([listener, 0])).result();
        while accepted < connections.len() {
            client.call("socket.accept", json!([listener])).handle();
            accepted += 1;
        }
        assert_eq!(client.call("socket.accept", json!([listener])).fault().errno(), "EAGAIN");
    });
}

#[test]
fn cancelled_receive_loses_and_leaks_no_descriptors() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (ours, handle) = stream_to(&mut client);
        let peer = LspClient::over(ours);
        let null = std::fs::File::open("/dev/null").unwrap();
        client.call("socket.gettimeout", json!([handle])).result();
        let before = broker.idle_open_files();
        let mut received = 0;
        let parameters = json!([handle, 1, 100]);
        for round in 0..100 {
            let id = client.send("socket.recvmsg", parameters.clone());
            if round % 2 == 0 {
                pause(1);
            }
            peer.wire.send(b"x", &[null.as_fd()]).unwrap();
            client.cancel(id);
            received += client.answer(id).descriptors.len();
        }
        while received < 100 {
            let answer = client.call("socket.recvmsg", parameters.clone());
            assert_eq!(answer.result()["ancdata"][0][2]["descriptors"], 1);
            received += answer.descriptors.len();
        }
        assert_eq!(received, 100);
        broker.wait_for_open_files(before);
    });
}

#[test]
fn cancelled_waitall_returns_its_bytes_with_the_next_receive() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for next in ["socket.recv", "socket.recvmsg", "socket.recvfrom"] {
            let (mut ours, handle) = stream_to(&mut client);
            let id = client.send("socket.recv", json!([handle, 10, "MSG_WAITALL"]));
            ours.write_all(b"abcd").unwrap();
            pause(20);
            client.cancel(id);
            assert!(cancelled(&client.answer(id)), "{next}");
            let peeked = client.call("socket.recv", json!([handle, 2, "MSG_PEEK"]));
            assert_eq!(peeked.data(), b"ab");
            let ready = client.call("socket.poll", json!([[[handle, "POLLIN"]], 0]));
            assert_eq!(*ready.result(), json!([[handle, 1]]), "{next}");
            ours.write_all(b"efgh").unwrap();
            let mut seen = Vec::new();
            while seen.len() < 8 {
                let part = client.call(next, json!([handle, 3])).data();
                assert!(!part.is_empty());
                seen.extend(part);
            }
            assert_eq!(seen, b"abcdefgh", "{next}");
        }
    });
}

#[test]
fn cancelled_waitall_returns_its_bytes_first_in_recvmmsg() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (mut ours, handle) = stream_to(&mut client);
        let id = client.send("socket.recv", json!([handle, 10, "MSG_WAITALL"]));
        ours.write_all(b"abcd").unwrap();
        pause(20);
        client.cancel(id);
        assert!(cancelled(&client.answer(id)));
        ours.write_all(b"efgh").unwrap();
        let batch = client.call("socket.recvmmsg", json!([handle, 1, 3]));
        assert_eq!(batch.bytes_of(&batch.result()[0]["data"]), b"abc");
    });
}

#[test]
fn cancelled_waitall_keeps_its_bytes_for_the_next_waitall() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (mut ours, handle) = stream_to(&mut client);
        for part in [b"ab", b"cd", b"ef"] {
            let id = client.send("socket.recv", json!([handle, 10, "MSG_WAITALL"]));
            ours.write_all(part).unwrap();
            pause(20);
            client.cancel(id);
            assert!(cancelled(&client.answer(id)));
        }
        let whole = client.send("socket.recv", json!([handle, 8, "MSG_WAITALL"]));
        ours.write_all(b"gh").unwrap();
        assert_eq!(client.answer(whole).data(), b"abcdefgh");
    });
}

#[test]
fn dropped_connection_keeps_received_bytes_for_the_session() {
    bounded(20, || {
        let broker = broker();
        let mut keeper = broker.lsp();
        let token = keeper.call("session.open", Value::Null).result()["token"].clone();
        let (mut ours, handle) = stream_to(&mut keeper);
        let mut second = broker.lsp();
        second.call("session.attach", json!([token])).result();
        second.send("socket.recv", json!([handle, 10, "MSG_WAITALL"]));
        ours.write_all(b"abcd").unwrap();
        pause(20);
        drop(second);
        pause(20);
        keeper.call("socket.settimeout", json!([handle, 2])).result();
        assert_eq!(keeper.call("socket.recv", json!([handle, 10])).data(), b"abcd");
    });
}

#[test]
fn cancelled_send_reports_the_bytes_sent() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for method in ["socket.sendall", "socket.send"] {
            let (mut ours, handle) = stream_to(&mut client);
            let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
            let parts: [&[u8]; 1] = [&data];
            let parts = RequestParts::attachments(&parts);
            let id = client.send_with_parts(method, json!([handle, { "attachment": 0 }]), parts);
            // The call has begun, and cannot end: its data is more than the buffers hold.
            let events = || poll_now(&[(ours.as_fd(), libc::POLLIN)]).unwrap();
            until("data arrives", || events() != [0]);
            client.cancel(id);
            let fault = client.answer(id).fault();
            let sent = usize::try_from(fault.data.sent.unwrap()).unwrap();
            client.call("socket.close", json!([handle])).result();
            ours.set_read_timeout(Some(HANG)).unwrap();
            let mut seen = Vec::new();
            ours.read_to_end(&mut seen).unwrap();
            assert!(
                sent > 0 && seen == data[..sent],
                "{method}: {sent} bytes reported, {} received",
                seen.len()
            );
        }
    });
}

#[test]
fn batch_entries_can_be_cancelled_individually() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        client.send_json(&json!([
            request("a", "socket.recv", json!([left, 9])),
            request("b", "socket.recv", json!([right, 9])),
            request("c", "socket.htons", json!([1])),
        ]));
        client.notify("$/cancelRequest", json!({ "id": "a" }));
        client.expect_silence_for(30);
        client.notify("$/cancelRequest", json!(["b"]));
        let answers = client.read_json().unwrap();
        assert_eq!(answers[0]["error"]["code"], -32800, "{answers}");
        assert_eq!(answers[1]["error"]["code"], -32800);
        assert_eq!(answers[2]["result"], 256);
    });
}
