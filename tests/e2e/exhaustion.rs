//! Without free descriptors the broker answers EMFILE, and recovers.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::message::request;
use sockbroker_test_support::{Daemon, Fault, LspClient, bounded, pause, until};

use crate::broker::prepare;

const OPEN_FILES: u32 = 64;

/// Opens sockets until the broker has no descriptor left; their handles.
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

/// What a call fails with whose descriptors the broker cannot receive.
const LOST: ((i64, &str), Option<&str>) = ((4003, "descriptor"), Some("EMFILE"));

fn lost(fault: &Fault) -> ((i64, &str), Option<&str>) {
    (fault.kind(), fault.data.name.as_deref())
}

/// A broker that runs out of files although its limits allow more.
fn starved() -> Daemon {
    let broker = prepare().start();
    broker.lower_open_file_limit(OPEN_FILES);
    broker
}

#[test]
fn every_call_that_needs_a_descriptor_says_emfile_and_the_others_work() {
    bounded(20, || {
        let broker = starved();
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
            ("socket.fileno", json!([left])),
            ("socket.detach", json!([left])),
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
        close(&mut client, handles);
        client.call("socket.accept", json!([listener])).handle();
        client.call("socket.detach", json!([left])).result();
    });
}

#[test]
fn accepting_recovers_when_handles_are_closed() {
    bounded(20, || {
        let broker = starved();
        let mut client = broker.lsp();
        let mut handles = exhaust(&mut client);
        // They wait in the queue, without the broker spinning or filling its log.
        let mut waiting: Vec<LspClient> = (0..3).map(|_| broker.lsp()).collect();
        for late in &mut waiting {
            late.send("socket.htons", json!([1]));
        }
        pause(500);
        for late in &mut waiting {
            late.expect_silence_for(0);
        }
        let log = broker.log();
        // Records of the audit tell what was made before.
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
fn descriptors_that_find_no_room_fail_their_call_and_nothing_else() {
    bounded(20, || {
        let broker = starved();
        let (mut client, mut other) = (broker.lsp(), broker.lsp());
        let (left, right) = other.pair();
        let mut handles = exhaust(&mut client);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let adopt = |client: &mut LspClient| {
            let beside = [ours.as_fd()];
            client.call_with_parts("socket.fromfd", Value::Null, RequestParts::descriptors(&beside))
        };
        let fault = adopt(&mut other).fault();
        assert_eq!(lost(&fault), LOST);
        // With room for some of them, none is used.
        close(&mut client, handles.drain(..3));
        let many = [ours.as_fd(); 10];
        let params = json!([left, ["aGk="], [[1, 1, { "descriptors": 10 }]]]);
        let fault = other
            .call_with_parts("socket.sendmsg", params, RequestParts::descriptors(&many))
            .fault();
        assert_eq!(lost(&fault), LOST);
        other.call("socket.setblocking", json!([right, false])).result();
        let nothing = other.call("socket.recvmsg", json!([right, 9, 1000])).fault();
        assert_eq!(nothing.errno(), "EAGAIN");
        // Calls that want no descriptor do not mind, and what comes later is matched as before.
        other
            .call_with_parts("socket.htons", json!([1]), RequestParts::descriptors(&many))
            .result();
        adopt(&mut other).handle();
        client.expect_service();
        close(&mut client, handles);
        other.call("socket.send", json!([left, "aGk="])).result();
    });
}

#[test]
fn requests_that_arrive_together_get_their_own_descriptors_after_a_loss() {
    bounded(20, || {
        let broker = starved();
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
        // Four of forty have room: the first call takes one of them, the second finds none of its own.
        other.wire.send(&frames(101), &many).unwrap();
        other.answer(101).handle();
        assert_eq!(lost(&other.answer(102).fault()), LOST);
        close(&mut client, handles);
        other.wire.send(&frames(103), &many).unwrap();
        other.answer(103).handle();
        other.answer(104).handle();
    });
}

#[test]
fn a_connection_stays_in_the_queue_while_there_is_no_room_for_its_descriptor() {
    bounded(20, || {
        let broker = starved();
        let mut client = broker.lsp();
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let name = client.call("socket.getsockname", json!([listener])).result().clone();
        let port = u16::try_from(name[1].as_u64().unwrap()).unwrap();
        let mut handles = exhaust(&mut client);
        let mut peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        // One place is enough for the socket, and not for the client's descriptor of it.
        close(&mut client, handles.drain(..1));
        let accept = json!({ "handle": listener, "want_fd": true });
        assert_eq!(client.call("socket.accept", accept.clone()).fault().errno(), "EMFILE");
        close(&mut client, handles.drain(..2));
        let accepted = client.call("socket.accept", accept);
        assert_eq!(accepted.descriptors.len(), 1);
        client.call("socket.send", json!([accepted.handle(), "aGk="])).result();
        let mut data = [0; 2];
        peer.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"hi");
    });
}

#[test]
fn limits_fit_to_few_open_files_leave_room_for_root() {
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
        // Each connection of the user takes a file too.
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
fn a_broker_without_files_logs_it_a_few_times() {
    bounded(20, || {
        let broker = starved();
        let mut client = broker.lsp();
        exhaust(&mut client);
        let _waiting: Vec<_> = (0..3).map(|_| broker.connect()).collect();
        until("it is logged", || broker.log().contains("cannot accept"));
        // Several rests of the loop.
        pause(700);
        // `refusal_lines_per_minute`, and no more.
        assert!(broker.log().matches("cannot accept").count() <= 5, "{}", broker.log());
    });
}

#[test]
fn received_descriptors_that_find_no_room_are_told_as_cut() {
    bounded(20, || {
        let broker = starved();
        let mut client = broker.lsp();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handle = client.lend(&theirs);
        let peer = LspClient::over(ours);
        let handles = exhaust(&mut client);
        peer.wire.send(b"hi", &[theirs.as_fd()]).unwrap();
        let came = client.call("socket.recvmsg", json!([handle, 9, 100]));
        assert_eq!((came.data(), came.descriptors.len()), (b"hi".to_vec(), 0));
        assert_eq!(came.result()["flags"], libc::MSG_CTRUNC);
        close(&mut client, handles);
        peer.wire.send(b"hi", &[theirs.as_fd()]).unwrap();
        assert_eq!(client.call("socket.recvmsg", json!([handle, 9, 100])).descriptors.len(), 1);
    });
}

#[test]
fn a_session_that_ends_frees_what_it_held() {
    bounded(20, || {
        let broker = starved();
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
