//! Quotas of one user, counted across its connections and sessions, quotas of all users together, and rate
//! limits.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::websocket::Opcode;
use sockbroker_test_support::{LspClient, WebSocketClient, bounded, until};

use crate::broker::limited;

#[test]
fn handles_are_counted_across_connections_and_sessions() {
    bounded(20, || {
        for limit in ["handles_per_user", "handles_in_all"] {
            let broker = limited(&[(limit, 4)]);
            let (mut first, mut second) = (broker.lsp(), broker.lsp());
            first.call("session.open", Value::Null).result();
            let (left, _right) = first.pair();
            second.pair();
            let files = broker.idle_open_files();
            for client in [&mut first, &mut second] {
                for (method, params) in [
                    ("socket.socket", Value::Null),
                    ("socket.socketpair", Value::Null),
                    ("socket.create_server", json!([["127.0.0.1", 0]])),
                ] {
                    assert_eq!(client.call(method, params).fault().limit(), limit, "{method}");
                }
            }
            assert_eq!(first.call("socket.dup", json!([left])).fault().limit(), limit);
            assert_eq!(first.call("session.clone", Value::Null).fault().limit(), limit);
            broker.wait_for_open_files(files);
            // Handles that are closed, individually or with their connection, are available again.
            first.call("socket.close", json!([left])).result();
            let again = second.call("socket.socket", Value::Null).handle();
            drop(first);
            until("the first's are closed", || {
                !second.call("socket.socket", Value::Null).is_fault()
            });
            second.call("socket.close", json!([again])).result();
        }
    });
}

#[test]
fn waiting_calls_are_counted_across_connections() {
    bounded(20, || {
        for limit in ["calls_in_flight_per_user", "calls_in_flight_in_all"] {
            let broker = limited(&[(limit, 2)]);
            let (mut first, mut second) = (broker.lsp(), broker.lsp());
            let (one, two) = (first.pair().0, second.pair().0);
            let waiting = first.send("socket.recv", json!([one, 1]));
            let other = second.send("socket.recv", json!([two, 1]));
            second.expect_silence_for(50);
            assert_eq!(first.call("socket.recv", json!([one, 1])).fault().limit(), limit);
            assert_eq!(second.call("socket.recv", json!([two, 1])).fault().limit(), limit);
            // Calls that do not wait are served.
            first.expect_service();
            first.cancel(waiting);
            assert_eq!(first.answer(waiting).fault().code, -32800);
            let third = second.send("socket.recv", json!([two, 1]));
            second.expect_silence_for(50);
            drop(second);
            let _ = (other, third);
            until("the second's are over", || {
                let id = first.send("socket.recv", json!([one, 1]));
                first.cancel(id);
                first.answer(id).fault().code == -32800
            });
        }
    });
}

/// Returns a socket of the broker with full buffers, and its peer, which does not read.
fn full(client: &mut LspClient) -> (u64, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handle = client.lend(&theirs);
    theirs.set_nonblocking(true).unwrap();
    while (&theirs).write(&[0; 4096]).is_ok() {}
    theirs.set_nonblocking(false).unwrap();
    (handle, ours)
}

#[test]
fn bytes_of_waiting_calls_are_counted_across_connections() {
    bounded(20, || {
        for limit in ["buffered_bytes_per_user", "buffered_bytes_in_all"] {
            let broker = limited(&[(limit, 300_000)]);
            let (mut first, mut second) = (broker.lsp(), broker.lsp());
            let ((one, ours), (two, _theirs)) = (full(&mut first), full(&mut second));
            let data = vec![b'x'; 200_000];
            let parts: [&[u8]; 1] = [&data];
            let send = |client: &mut LspClient, handle: u64| {
                let params = json!([handle, { "attachment": 0 }]);
                client.send_with_parts("socket.sendall", params, RequestParts::attachments(&parts))
            };
            let waiting = send(&mut first, one);
            first.expect_silence_for(50);
            let refused = send(&mut second, two);
            assert_eq!(second.answer(refused).fault().limit(), limit);
            // The quota is free again when the first call has ended.
            let reading = std::thread::spawn(move || {
                let mut data = Vec::new();
                (&ours).read_to_end(&mut data).map(|_| data.len())
            });
            first.answer(waiting).result();
            let third = send(&mut second, two);
            second.expect_silence_for(50);
            second.cancel(third);
            assert_eq!(second.answer(third).fault().code, -32800);
            drop((first, second, broker));
            assert!(reading.join().unwrap().unwrap() > 200_000);
        }
    });
}

#[test]
fn incomplete_messages_are_counted() {
    bounded(20, || {
        let broker = limited(&[("buffered_bytes_per_user", 300_000)]);
        let message = request(1, "socket.htons", json!([1])).to_string();
        let data = vec![b'x'; 250_000];
        let frame = LspClient::frame(&message, Some(&[&data]), 0);
        let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let post = format!("{head}content-length: 250000\r\n\r\n");
        let upgrade = WebSocketClient::handshake("").into_bytes();
        let fragment = WebSocketClient::frame(Opcode::Text, false, true, &data);
        let first = broker.ndjson();
        first.wire.send(&frame[..200_000], &[]).unwrap();
        let mut other = broker.lsp();
        other.expect_service();
        for (what, bytes) in [
            ("a frame", frame[..200_000].to_vec()),
            ("a line", data[..200_000].to_vec()),
            ("a fragment", [upgrade, fragment].concat()),
        ] {
            let mut client = broker.ndjson();
            client.wire.send(&bytes, &[]).ok();
            assert!(client.wire.ends(), "{what}");
        }
        let mut http = broker.ndjson();
        http.wire.send(post.as_bytes(), &[]).unwrap();
        let answered = http.wire.take_through(b"\r\n").unwrap();
        assert!(answered.starts_with(b"HTTP/1.1 503"), "{answered:?}");
        // The first message was counted before, and completes.
        first.wire.send(&frame[200_000..], &[]).unwrap();
        let mut first = LspClient::on(first.wire);
        assert_eq!(*first.answer(1).result(), 256);
        other.expect_service();
    });
}

#[test]
fn descriptors_of_waiting_calls_are_counted_across_connections() {
    bounded(20, || {
        for limit in ["buffered_descriptors_per_user", "buffered_descriptors_in_all"] {
            let broker = limited(&[(limit, 3)]);
            let (mut first, mut second) = (broker.lsp(), broker.lsp());
            let (one, two) = (first.pair().0, second.pair().0);
            let null = std::fs::File::open("/dev/null").unwrap();
            let some = [null.as_fd(); 2];
            let parts = RequestParts::descriptors(&some);
            let waiting = first.send_with_parts("socket.recv", json!([one, 1]), parts);
            first.expect_silence_for(50);
            let refused = second.call_with_parts("socket.recv", json!([two, 1]), parts);
            assert_eq!(refused.fault().limit(), limit);
            first.cancel(waiting);
            assert_eq!(first.answer(waiting).fault().code, -32800);
            // The descriptors of the cancelled call count until they are closed.
            until("the call waits", || {
                let waiting = second.send_with_parts("socket.recv", json!([two, 1]), parts);
                if !second.wire.receives_within(Duration::from_millis(50)) {
                    second.cancel(waiting);
                    return true;
                }
                assert_eq!(second.answer(waiting).fault().limit(), limit);
                false
            });
        }
    });
}

#[test]
fn descriptors_of_incomplete_messages_are_counted() {
    bounded(20, || {
        let broker = limited(&[("buffered_descriptors_per_user", 5)]);
        let files = broker.idle_open_files();
        let null = std::fs::File::open("/dev/null").unwrap();
        let some = [null.as_fd(); 4];
        let begun = |broker: &sockbroker_test_support::Daemon| {
            let client = broker.ndjson();
            client.wire.send(b"Content-Length: 9\r\nFds: 4\r\n", &some).unwrap();
            client
        };
        let mut first = begun(&broker);
        until("they are there", || broker.open_files() >= files + 5);
        for _ in 0..3 {
            assert!(begun(&broker).wire.ends());
        }
        assert!(!first.wire.receives_within(Duration::from_millis(100)));
        drop(first);
        broker.wait_for_open_files(files);
        broker.lsp().expect_service();
    });
}

#[test]
fn rate_limit_delays_blocking_sockets_and_refuses_nonblocking_ones() {
    bounded(120, || {
        for (limit, value, data) in
            [("packets_per_second", 20, "aGk="), ("bytes_per_second", 40, "aGk=")]
        {
            let broker = limited(&[(limit, value)]);
            let mut client = broker.lsp();
            let (left, right) = client.pair_of("SOCK_DGRAM");
            client.call("socket.setblocking", json!([left, false])).result();
            // The amount of one second is sent immediately.
            for _ in 0..20 {
                client.call("socket.send", json!([left, data])).result();
            }
            let mut refused = client.call("socket.send", json!([left, data]));
            // Time passes and allows some more.
            while !refused.is_fault() {
                refused = client.call("socket.send", json!([left, data]));
            }
            let fault = refused.fault();
            assert_eq!((fault.limit(), fault.data.name.as_deref()), (limit, Some("EAGAIN")));
            // Receiving is counted too, on every connection of the user.
            let mut other = broker.lsp();
            let (_, far) = other.pair_of("SOCK_DGRAM");
            other.call("socket.setblocking", json!([far, false])).result();
            let many: Vec<_> = (0..40).map(|_| json!({ "buffers": [data] })).collect();
            client.call("socket.setblocking", json!([left, true])).result();
            // It exceeds the rate by nearly two seconds: nothing is received in the first of them.
            let begun = Instant::now();
            let in_time = || begun.elapsed() < Duration::from_secs(1);
            client.call("socket.sendmmsg", json!([left, many])).result();
            let refused = other.call("socket.recv", json!([far, 8])).fault();
            assert!(!in_time() || refused.data.limit.as_deref() == Some(limit), "{refused:?}");
            client.call("socket.settimeout", json!([right, 0.2])).result();
            let late = client.call("socket.recv", json!([right, 8]));
            assert!(!in_time() || late.fault().kind() == (1001, "timeout"), "{late:?}");
            client.call("socket.settimeout", json!([right, null])).result();
            client.call("socket.recv", json!([right, 8])).result();
            // Other calls are not delayed.
            client.expect_service();
        }
    });
}
