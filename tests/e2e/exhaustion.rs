//! Without free descriptors the broker answers EMFILE, and recovers.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::Beside;
use sockbroker_test_support::{Daemon, LspClient, bounded, pause};

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

fn starved() -> Daemon {
    prepare().open_files(OPEN_FILES).start()
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
            late.stays_silent_for(0);
        }
        let log = broker.log();
        // Records of the audit tell what was made before.
        let lines = log.lines().filter(|line| !line.starts_with('{'));
        assert!(lines.count() < 50, "{log}");
        let freed = handles.split_off(handles.len() - 5);
        close(&mut client, freed);
        for late in &mut waiting {
            assert_eq!(*late.answer(1).result(), 256);
        }
        drop(waiting);
        close(&mut client, handles);
        broker.lsp().is_served();
    });
}

#[test]
fn descriptors_that_find_no_room_end_their_connection_and_nothing_else() {
    bounded(20, || {
        let broker = starved();
        let (mut client, mut victim) = (broker.lsp(), broker.lsp());
        victim.is_served();
        let handles = exhaust(&mut client);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let beside = [ours.as_fd()];
        victim.send_beside("socket.fromfd", Value::Null, Beside::descriptors(&beside));
        victim.is_ended();
        client.is_served();
        close(&mut client, handles);
        broker
            .lsp()
            .call_beside("socket.fromfd", Value::Null, Beside::descriptors(&beside))
            .handle();
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
            broker.settles_at(before);
        }
        let mut client = broker.lsp();
        client.is_served();
    });
}
