//! Without free descriptors the broker returns EMFILE, and recovers when descriptors are free again.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Daemon, Fault, LspClient, bounded, pause, until};

use crate::broker::prepare;

const OPEN_FILES: u32 = 64;

/// Opens sockets until the broker has no free descriptor. Returns their handles.
fn exhaust(client: &mut LspClient) -> Vec<u64> {
    let mut handles = Vec::new();
    loop {
        let answer = client.call("socket.socket", Value::Null);
        if answer.is_fault() {
            let fault = answer.fault();
            assert_eq!((fault.errno(), fault.data.call.as_deref()), ("EMFILE", Some("socket")));
            return handles;
        }
        handles.push(answer.handle());
        assert!(handles.len() < OPEN_FILES as usize);
    }
}

fn close(client: &mut LspClient, handles: impl IntoIterator<Item = u64>) {
    for handle in handles {
        client.call("socket.close", json!([handle])).result();
    }
}

/// The error of a call whose descriptors the broker cannot receive.
const LOST_DESCRIPTOR: ((i64, &str), Option<&str>) = ((4003, "descriptor"), Some("EMFILE"));

fn error_of(fault: &Fault) -> ((i64, &str), Option<&str>) {
    (fault.kind(), fault.data.name.as_deref())
}

/// Starts a broker whose process can open fewer files than its own limits allow.
fn broker_with_few_files() -> Daemon {
    let broker = prepare().start();
    broker.lower_open_file_limit(OPEN_FILES);
    broker
}

#[test]
fn calls_that_need_a_descriptor_return_emfile_and_others_succeed() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let name = client.call("socket.getsockname", json!([listener])).result().clone();
        let port = u16::try_from(name[1].as_u64().unwrap()).unwrap();
        let handles = exhaust(&mut client);
        assert!(handles.len() > 20);
        let _peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        for (method, params) in [
            ("socket.socket", Value::Null),
            ("socket.socketpair", Value::Null),
            ("socket.dup", json!([left])),
            ("socket.accept", json!([listener])),
            ("socket.create_server", json!([["127.0.0.1", 0]])),
            ("socket.create_connection", json!([name, 2])),
            ("socket.poll", json!([[[left, "POLLIN"]], 0.1])),
            ("session.clone", Value::Null),
        ] {
            assert_eq!(client.call(method, params).fault().errno(), "EMFILE", "{method}");
        }
        client.call("socket.send", json!([left, "aGk="])).result();
        assert_eq!(client.call("socket.recv", json!([right, 9])).data(), b"hi");
        // The client's copy needs no descriptor of the broker. The kernel counts also those that are in flight for other tests
        // of this user.
        until("the descriptor is passed", || {
            client.call("socket.fileno", json!([left])).descriptors.len() == 1
        });
        close(&mut client, handles);
        client.call("socket.accept", json!([listener])).handle();
    });
}

#[test]
fn accept_recovers_after_handles_are_closed() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let mut client = broker.lsp();
        let mut handles = exhaust(&mut client);
        // Connections wait in the queue; the broker neither spins nor fills its log.
        let mut waiting: Vec<LspClient> = (0..3).map(|_| broker.lsp()).collect();
        for late in &mut waiting {
            late.send("socket.htons", json!([1]));
        }
        pause(500);
        for late in &mut waiting {
            late.expect_silence_for(0);
        }
        let log = broker.log();
        // The audit has records of the sockets made before.
        let lines = log.lines().filter(|line| !line.starts_with('{'));
        assert!(lines.count() < 20, "{log}");
        let freed = handles.split_off(handles.len() - 5);
        close(&mut client, freed);
        for late in &mut waiting {
            assert_eq!(*late.answer(1).result(), 256);
        }
        drop(waiting);
        close(&mut client, handles);
        broker.lsp().expect_service();
    });
}

#[test]
fn undeliverable_descriptors_fail_only_their_call() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let (mut client, mut other) = (broker.lsp(), broker.lsp());
        let (left, right) = other.pair();
        let mut handles = exhaust(&mut client);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let adopt = |client: &mut LspClient| {
            let descriptors = [ours.as_fd()];
            client.call_with_parts(
                "socket.fromfd",
                Value::Null,
                RequestParts::descriptors(&descriptors),
            )
        };
        let fault = adopt(&mut other).fault();
        assert_eq!(error_of(&fault), LOST_DESCRIPTOR);
        // If only some descriptors can be received, none is used.
        close(&mut client, handles.drain(..3));
        let many = [ours.as_fd(); 10];
        let params = json!([left, ["aGk="], [[1, 1, { "descriptors": 10 }]]]);
        let fault = other
            .call_with_parts("socket.sendmsg", params, RequestParts::descriptors(&many))
            .fault();
        assert_eq!(error_of(&fault), LOST_DESCRIPTOR);
        other.call("socket.setblocking", json!([right, false])).result();
        let nothing = other.call("socket.recvmsg", json!([right, 9, 1000])).fault();
        assert_eq!(nothing.errno(), "EAGAIN");
        // Calls without descriptors are not affected, and later descriptors belong to the right call.
        other
            .call_with_parts("socket.htons", json!([1]), RequestParts::descriptors(&many))
            .result();
        // Those that came with the last call are closed in the background.
        until("a descriptor is free", || !adopt(&mut other).is_fault());
        client.expect_service();
        close(&mut client, handles);
        other.call("socket.send", json!([left, "aGk="])).result();
    });
}

#[test]
fn pipelined_requests_keep_their_descriptors_after_a_loss() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let (mut client, mut other) = (broker.lsp(), broker.lsp());
        other.expect_service();
        let mut handles = exhaust(&mut client);
        close(&mut client, handles.drain(..4));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let many = [ours.as_fd(); 40];
        let call = |id: u64| request(id, "socket.fromfd", Value::Null).to_string();
        let frames = |first: u64| {
            [LspClient::frame(&call(first), None, 30), LspClient::frame(&call(first + 1), None, 10)]
                .concat()
        };
        // Four of forty can be received: the first call uses one of them, the second has lost its own.
        other.wire.send(&frames(101), &many).unwrap();
        other.answer(101).handle();
        assert_eq!(error_of(&other.answer(102).fault()), LOST_DESCRIPTOR);
        close(&mut client, handles);
        other.wire.send(&frames(103), &many).unwrap();
        other.answer(103).handle();
        other.answer(104).handle();
    });
}

#[test]
fn accept_without_a_free_descriptor_leaves_the_connection_queued() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let mut client = broker.lsp();
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let name = client.call("socket.getsockname", json!([listener])).result().clone();
        let port = u16::try_from(name[1].as_u64().unwrap()).unwrap();
        let mut handles = exhaust(&mut client);
        let mut peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accept = json!({ "handle": listener, "want_fd": true });
        assert_eq!(client.call("socket.accept", accept.clone()).fault().errno(), "EMFILE");
        // One free descriptor is enough: the client gets a copy of it.
        close(&mut client, handles.drain(..1));
        let accepted = client.call("socket.accept", accept);
        assert_eq!(accepted.descriptors.len(), 1);
        client.call("socket.send", json!([accepted.handle(), "aGk="])).result();
        let mut data = [0; 2];
        peer.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"hi");
    });
}

#[test]
fn limits_reduced_to_few_open_files_reserve_some_for_root() {
    bounded(20, || {
        let broker = prepare().open_files(256).start();
        let limits = broker.lsp().call("session.limits", Value::Null).result().clone();
        let most = limits["handles_per_user"]["value"].as_u64().unwrap();
        assert!(most < 256 * 4 / 5, "{most}");
        let mut client = broker.lsp();
        let made = (0..).find_map(|made| {
            let answer = client.call("socket.socket", Value::Null);
            answer.is_fault().then(|| (made, answer.fault().limit().to_owned()))
        });
        assert_eq!(made, Some((most, "handles_per_user".to_owned())));
        // Each connection of the user needs a file too.
        let files = broker.idle_open_files();
        let connections: Vec<_> = (8..limits["connections_per_user"]["value"].as_u64().unwrap())
            .map(|_| broker.connect())
            .collect();
        client.expect_service();
        drop(connections);
        broker.wait_for_open_files(files);
        broker.lsp().expect_service();
        assert!(!broker.log().contains("cannot accept"), "{}", broker.log());
    });
}

#[test]
fn descriptor_exhaustion_is_logged_at_a_limited_rate() {
    bounded(20, || {
        let begun = Instant::now();
        let broker = broker_with_few_files();
        let mut client = broker.lsp();
        exhaust(&mut client);
        let mut waiting: Vec<_> = (0..3).map(|_| broker.lsp()).collect();
        for late in &mut waiting {
            late.send("socket.htons", json!([1]));
        }
        until("the refusal is logged", || broker.log().contains("cannot accept"));
        // Several pauses of the accept loop.
        pause(700);
        // At most `refusal_lines_per_minute`.
        let log = broker.log();
        let minutes = begun.elapsed().as_secs() / 60 + 1;
        assert!(log.matches("cannot accept").count() as u64 <= 5 * minutes, "{log}");
    });
}

#[test]
fn undeliverable_received_descriptors_are_reported_as_truncated() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        let peer = LspClient::over(ours);
        let handles = exhaust(&mut client);
        peer.wire.send(b"hi", &[theirs.as_fd()]).unwrap();
        let received = client.call("socket.recvmsg", json!([handle, 9, 100]));
        assert_eq!((received.data(), received.descriptors.len()), (b"hi".to_vec(), 0));
        assert_eq!(received.result()["flags"], libc::MSG_CTRUNC);
        close(&mut client, handles);
        // The kernel counts also the descriptors that are in flight for other tests of this user.
        until("the descriptor is passed", || {
            peer.wire.send(b"hi", &[theirs.as_fd()]).unwrap();
            client.call("socket.recvmsg", json!([handle, 9, 100])).descriptors.len() == 1
        });
    });
}

#[test]
fn session_end_frees_its_resources() {
    bounded(20, || {
        let broker = broker_with_few_files();
        let before = broker.idle_open_files();
        for _ in 0..3 {
            let mut client = broker.lsp();
            exhaust(&mut client);
            drop(client);
            broker.wait_for_open_files(before);
        }
        let mut client = broker.lsp();
        client.expect_service();
    });
}
