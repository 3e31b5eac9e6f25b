//! Calls start in arrival order and keep this order on each handle (promises 1 to 3 of PROTOCOL.md).

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::{Value, json};
use sockbroker_test_support::message::request;
use sockbroker_test_support::wire::Wire;
use sockbroker_test_support::{LspClient, base64, bounded, namespace};
use sockbrokerd::config::limits::Limits;

use crate::broker::broker;
use crate::in_process::InProcess;

const MANY: u64 = 20_000;

/// Sends frames on another thread, so that the test can read the answers at the same time.
fn send_on_thread(
    stream: &UnixStream,
    messages: impl Iterator<Item = Value>,
) -> thread::JoinHandle<()> {
    let frames: Vec<u8> =
        messages.flat_map(|message| LspClient::frame(&message.to_string(), None, 0)).collect();
    let wire = Wire::socket(stream.try_clone().unwrap());
    thread::spawn(move || wire.send(&frames, &[]).unwrap())
}

#[test]
fn pipelined_calls_start_in_order_and_are_answered_once() {
    bounded(30, || {
        let limits = Limits { calls_in_flight: MANY, ..Limits::default() };
        let server = InProcess::start(limits);
        let stream = server.connect();
        let mut client = LspClient::over(stream.try_clone().unwrap());
        let calls = (0..MANY).map(|number| request(number, "test_arrive", json!([number])));
        let sender = send_on_thread(&stream, calls);
        let mut missing: BTreeSet<u64> = (0..MANY).collect();
        let mut overtaken = false;
        while let Some(first) = missing.first().copied() {
            let answer = client.next_answer().unwrap();
            let id = answer.id().as_u64().unwrap();
            assert_eq!(*answer.result(), id);
            assert!(missing.remove(&id), "{id} was answered twice");
            overtaken |= id != first;
        }
        sender.join().unwrap();
        assert_eq!(server.arrived.load(Ordering::SeqCst), MANY);
        assert_eq!(server.misplaced.load(Ordering::SeqCst), 0);
        assert!(overtaken, "waiting calls delay no other calls");
        client.expect_silence_for(50);
    });
}

#[test]
fn pipelined_calls_observe_the_effects_of_earlier_calls() {
    bounded(30, || {
        let broker = broker();
        let stream = broker.connect();
        let mut client = LspClient::over(stream.try_clone().unwrap());
        let (handle, _) = client.pair();
        let calls = (0..MANY / 2).flat_map(|number| {
            let set = request(2 * number, "socket.settimeout", json!([handle, number + 1]));
            [set, request(2 * number + 1, "socket.gettimeout", json!([handle]))]
        });
        let sender = send_on_thread(&stream, calls);
        for number in 0..MANY / 2 {
            assert_eq!(*client.next_answer().unwrap().id(), 2 * number);
            let got = client.next_answer().unwrap();
            #[expect(clippy::cast_precision_loss, reason = "at most 10 000")]
            let expected = (number + 1) as f64;
            assert_eq!((got.id(), got.result().as_f64()), (&json!(2 * number + 1), Some(expected)));
        }
        sender.join().unwrap();
    });
}

#[test]
fn accept_is_judged_by_the_address_of_an_earlier_bind() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let filters = json!([
            { "allow": ["create", "bind", "listen", "resolve"] },
            { "allow": ["accept"], "local": ["127.0.0.1"] },
        ]);
        client.call("session.restrict", json!({ "filters": filters })).result();
        let tcp = client.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        client.call("socket.settimeout", json!([tcp, 0])).result();
        // The lookup of the name delays the bind.
        client.send("socket.bind", json!([tcp, ["localhost", 0]]));
        client.send("socket.listen", json!([tcp, 1]));
        let accept = client.send("socket.accept", json!([tcp]));
        assert_eq!(client.answer(accept).fault().errno(), "EAGAIN");
    });
}

#[test]
fn waiting_sends_keep_their_order() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        drop(theirs);
        // Sends of many kinds, more than the socket buffer holds, so that most of them wait.
        let mut expected = Vec::new();
        for number in 0..200_u8 {
            let data = vec![number; 1000 * usize::from(number % 13) + 1];
            let bytes = base64(&data);
            match number % 3 {
                0 => client.send("socket.send", json!([handle, bytes])),
                1 => client.send("socket.sendall", json!([handle, bytes])),
                _ => client.send("socket.sendmsg", json!([handle, [bytes]])),
            };
            expected.extend(data);
        }
        client.send("socket.shutdown", json!([handle, "SHUT_WR"]));
        let mut seen = Vec::new();
        ours.read_to_end(&mut seen).unwrap();
        assert!(seen == expected, "{} bytes of {} arrived", seen.len(), expected.len());
        for _ in 0..=200 {
            client.next_answer().unwrap().result();
        }
    });
}

#[test]
fn option_change_is_ordered_between_sends() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        let big = client.send("socket.sendall", json!([handle, base64(vec![1; 1_000_000])]));
        let change =
            client.send("socket.setsockopt", json!([handle, "SOL_SOCKET", "SO_SNDBUF", 9000]));
        let after = client.send("socket.send", json!([handle, base64([2])]));
        // Reading an option, and calls on other handles, are not part of this order.
        client.call("socket.getsockopt", json!([handle, "SOL_SOCKET", "SO_SNDBUF"])).result();
        client.expect_silence_for(50);
        let mut data = vec![0; 1_000_001];
        (&ours).read_exact(&mut data).unwrap();
        let order = [0; 3].map(|_: u64| client.next_answer().unwrap().id().as_u64().unwrap());
        assert_eq!(order, [big, change, after]);
        assert_eq!(data.pop(), Some(2));
    });
}

#[test]
fn datagram_option_change_applies_to_later_datagrams() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let socket = json!({ "type": "SOCK_DGRAM" });
        let receiver = client.call("socket.socket", socket.clone()).handle();
        let sender = client.call("socket.socket", socket).handle();
        client.call("socket.bind", json!([receiver, ["127.0.0.1", 0]])).result();
        client.call("socket.setsockopt", json!([receiver, 0, "IP_RECVTTL", 1])).result();
        let address = client.call("socket.getsockname", json!([receiver])).result().clone();
        for ttl in 1..=100_u8 {
            client.send("socket.setsockopt", json!([sender, 0, "IP_TTL", ttl]));
            client.send("socket.sendto", json!([sender, base64([ttl]), 0, address]));
        }
        for ttl in 1..=100_u8 {
            let message = client.call("socket.recvmsg", json!([receiver, 10, 100]));
            let seen = message.bytes_of(&message.result()["ancdata"][0][2]);
            assert_eq!((message.data(), seen), (vec![ttl], i32::from(ttl).to_ne_bytes().to_vec()));
        }
    });
}

#[test]
fn blocked_receive_delays_no_other_call() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let (other, _) = client.pair();
        for method in ["socket.recv", "socket.recvfrom", "socket.recvmsg"] {
            client.send(method, json!([left, 5]));
        }
        for (method, params) in [
            ("socket.send", json!([left, "aGk="])),
            ("socket.sendall", json!([left, "aGk="])),
            ("socket.setsockopt", json!([left, "SOL_SOCKET", "SO_SNDBUF", 9000])),
            ("socket.getsockname", json!([left])),
            ("socket.settimeout", json!([left, 5])),
            ("socket.gettimeout", json!([left])),
            ("socket.dup", json!([left])),
            ("socket.send", json!([other, "aGk="])),
            ("socket.recv", json!([right, 2])),
            ("socket.shutdown", json!([left, "SHUT_WR"])),
            ("socket.close", json!([other])),
            ("socket.close", json!([left])),
        ] {
            client.call(method, params).result();
        }
        assert_eq!(client.call("socket.gettimeout", json!([left])).fault().code, 4000);
        client.expect_silence_for(50);
        // They finish in order, although the handle is closed.
        for data in ["1", "2", "3"] {
            client.call("socket.send", json!([right, base64(data)])).result();
            let received = client.next_answer().unwrap();
            assert_eq!(received.data(), data.as_bytes());
        }
    });
}

#[test]
fn receives_of_one_connection_are_ordered_and_other_connections_do_not_wait() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let token = client.call("session.open", Value::Null).result()["token"].clone();
        let (left, right) = client.pair_of("SOCK_DGRAM");
        let ids: Vec<u64> =
            (0..10).map(|_| client.send("socket.recv", json!([right, 9]))).collect();
        for number in 0..10_u8 {
            client.call("socket.send", json!([left, base64([number])])).result();
        }
        for (number, id) in (0..10_u8).zip(ids) {
            assert_eq!(client.answer(id).data(), [number]);
        }
        let blocked = client.send("socket.recv", json!([right, 9]));
        // It has begun: calls of one connection begin in their order.
        client.expect_service();
        let mut second = broker.lsp();
        second.call("session.attach", json!([token])).result();
        second.call("socket.settimeout", json!([right, 0])).result();
        assert_eq!(second.call("socket.recv", json!([right, 9])).fault().errno(), "EAGAIN");
        client.cancel(blocked);
        assert_eq!(client.answer(blocked).fault().code, -32800);
    });
}

#[test]
fn lookup_keeps_the_order_of_calls_on_the_handle() {
    let test = "ordering::lookup_keeps_the_order_of_calls_on_the_handle";
    namespace::inside(test, || {
        let broker = broker();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = peer.local_addr().unwrap().port();
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        for round in 0..20_u8 {
            let name = if round % 2 == 0 { "localhost" } else { "127.0.0.1" };
            let params = json!([handle, base64([round]), 0, [name, port]]);
            client.send("socket.sendto", params);
        }
        let mut byte = [0];
        for round in 0..20_u8 {
            peer.recv(&mut byte).unwrap();
            assert_eq!(byte, [round]);
        }
    });
}

#[test]
fn calls_after_a_bind_with_lookup_find_the_socket_bound() {
    let test = "ordering::calls_after_a_bind_with_lookup_find_the_socket_bound";
    namespace::inside(test, || {
        let broker = broker();
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", Value::Null).handle();
        let calls = [
            request(11, "socket.bind", json!([handle, ["localhost", 0]])),
            request(12, "socket.listen", json!([handle])),
        ];
        // In one write, so that the broker reads the second call before the lookup ends.
        let frames = calls.map(|call| LspClient::frame(&call.to_string(), None, 0)).concat();
        client.wire.send(&frames, &[]).unwrap();
        assert_eq!(*client.answer(11).result(), Value::Null);
        assert_eq!(*client.answer(12).result(), Value::Null);
        let name = client.call("socket.getsockname", json!([handle]));
        assert_eq!(name.result()[0], "127.0.0.1");
    });
}
