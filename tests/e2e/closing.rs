//! Closes that wait: they delay the call that waits for them, and nothing else.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::option;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::wire::Wire;
use sockbroker_test_support::{Daemon, HANG, LspClient, base64, bounded};

use crate::broker::{broker, limited};

/// An hour: a close with this linger time ends only when its peer reads.
const LONG: i32 = 3600;

/// A peer that reads nothing until [`Peer::read`].
struct Peer {
    listener: TcpListener,
}

impl Peer {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Reads one connection to its end.
    fn read(&self) {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }
}

/// `struct linger`.
fn linger() -> Vec<u8> {
    [1, LONG].map(i32::to_ne_bytes).concat()
}

/// A handle whose close lingers: `SO_LINGER` is set, and the peer does not read.
fn lingering(client: &mut LspClient, peer: &Peer) -> u64 {
    let handle = client.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
    let option = json!([handle, "SOL_SOCKET", "SO_LINGER", base64(linger())]);
    client.call("socket.setsockopt", option).result();
    client.call("socket.connect", json!([handle, ["127.0.0.1", peer.port()]])).result();
    client.call("socket.settimeout", json!([handle, 0])).result();
    let data = base64(vec![0; 100_000]);
    while !client.call("socket.send", json!([handle, data])).is_fault() {}
    handle
}

/// The same without the broker.
fn lingering_native(peer: &Peer) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", peer.port())).unwrap();
    stream.set_nonblocking(true).unwrap();
    let data = vec![0; 100_000];
    while (&stream).write(&data).is_ok() {}
    option::set_bytes(stream.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger()).unwrap();
    stream
}

/// Runs a test in a process of its own. A thread of the test process that starts a program has copies of all
/// descriptors for a moment, and waits if it closes the last one of a socket that lingers.
fn alone(test: &str, body: impl FnOnce() + Send + 'static) {
    inside(test, body);
}

/// Fails unless new connections are served, by each thread of the event loop.
fn expect_service(broker: &Daemon) {
    for _ in 0..8 {
        broker.lsp().expect_service();
    }
}

#[test]
fn close_of_a_lingering_socket_delays_no_other_call() {
    bounded(20, || {
        let broker = broker();
        let (mut client, peer) = (broker.lsp(), Peer::new());
        let handles: Vec<_> = (0..3).map(|_| lingering(&mut client, &peer)).collect();
        let closes: Vec<_> =
            handles.iter().map(|handle| client.send("socket.close", json!([handle]))).collect();
        client.expect_service();
        expect_service(&broker);
        assert_eq!(client.call("socket.gettimeout", json!([handles[0]])).fault().code, 4000);
        client.expect_silence_for(50);
        for _ in &closes {
            peer.read();
        }
        for close in closes {
            client.answer(close).result();
        }
    });
}

#[test]
fn a_close_that_lingers_can_be_cancelled_and_delays_no_shutdown() {
    bounded(20, || {
        let mut broker = limited(&[("drain_seconds", 0)]);
        let (mut client, peer) = (broker.lsp(), Peer::new());
        let handles = [(); 2].map(|()| lingering(&mut client, &peer));
        let cancelled = client.send("socket.close", json!([handles[0]]));
        client.send("socket.close", json!([handles[1]]));
        client.cancel(cancelled);
        assert_eq!(client.answer(cancelled).fault().kind().1, "cancelled");
        lingering(&mut client, &peer);
        broker.process().terminate();
        assert!(broker.process().ends().success());
    });
}

#[test]
fn sessions_with_lingering_sockets_end_without_delay() {
    bounded(20, || {
        let broker = broker();
        let files = broker.idle_open_files();
        let peer = Peer::new();
        for _ in 0..8 {
            let mut client = broker.lsp();
            lingering(&mut client, &peer);
            drop(client);
            expect_service(&broker);
        }
        broker.wait_for_open_files(files);
    });
}

#[test]
fn descriptors_that_linger_are_closed_apart_from_other_calls() {
    alone("closing::descriptors_that_linger_are_closed_apart_from_other_calls", || {
        let broker = broker();
        let (mut client, peer) = (broker.lsp(), Peer::new());
        client.expect_service();
        let mut send = |method: &str, params: Value| {
            let stream = lingering_native(&peer);
            let id = broker.worker_stopped_during(|| {
                let descriptors = [stream.as_fd()];
                let parts = RequestParts::descriptors(&descriptors);
                let id = client.send_with_parts(method, params, parts);
                // The broker has the last copy.
                drop(stream);
                id
            });
            client.answer(id);
            client.expect_service();
            expect_service(&broker);
        };
        // Unused, refused, and adopted and then closed with the session.
        send("socket.htons", json!([1]));
        send("socket.fromfd", json!([9]));
        send("socket.recv", json!([1, 1]));
        send("socket.fromfd", json!([0]));
        drop(client);
        expect_service(&broker);
    });
}

#[test]
fn descriptors_in_connections_that_end_are_closed_apart_from_other_calls() {
    alone("closing::descriptors_in_connections_that_end_are_closed_apart_from_other_calls", || {
        let mut broker = broker();
        let peer = Peer::new();
        let incomplete = b"Content-Length: 99\r\nFds: 1\r\n\r\n{".as_slice();
        let http = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".as_slice();
        for bytes in [incomplete, b"{\"jsonrpc\"", http, b"GET /metrics HTTP/1.1\r\n\r\n", b"\xff"]
        {
            for _ in 0..2 {
                let stream = lingering_native(&peer);
                let connection = broker.connect();
                let wire = Wire::socket(connection);
                broker.process().stopped_during(|| {
                    wire.send(bytes, &[stream.as_fd()]).unwrap();
                    drop(stream);
                });
                expect_service(&broker);
                drop(wire);
                expect_service(&broker);
            }
        }
    });
}

#[test]
fn descriptors_in_queues_of_sockets_are_closed_apart_from_other_calls() {
    alone("closing::descriptors_in_queues_of_sockets_are_closed_apart_from_other_calls", || {
        let broker = broker();
        let peer = Peer::new();
        for _ in 0..4 {
            let mut client = broker.lsp();
            let (ours, theirs) = UnixStream::pair().unwrap();
            let handle = client.lend(&theirs);
            drop(theirs);
            let stream = lingering_native(&peer);
            let wire = Wire::socket(ours);
            wire.send(b"x", &[stream.as_fd()]).unwrap();
            drop(stream);
            let close = client.send("socket.close", json!([handle]));
            client.expect_service();
            expect_service(&broker);
            drop((client, close));
            expect_service(&broker);
        }
    });
}

#[test]
fn an_address_is_free_when_close_returns() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let mut port = 0;
        for passed in [false, true].repeat(20) {
            let handle = client.call("socket.socket", json!({ "type": "SOCK_STREAM" })).handle();
            client.call("socket.bind", json!([handle, ["127.0.0.1", port]])).result();
            client.call("socket.listen", json!([handle])).result();
            let name = client.call("socket.getsockname", json!([handle]));
            port = name.result()[1].as_u64().unwrap();
            if passed {
                // The broker does not know any more which options are set.
                drop(client.call("socket.fileno", json!([handle])));
            }
            client.call("socket.close", json!([handle])).result();
        }
    });
}

#[test]
fn closes_beyond_closing_jobs_wait_in_order() {
    for limit in ["closing_jobs", "closing_jobs_per_user"] {
        bounded(20, move || {
            let broker = limited(&[(limit, 1)]);
            let mut client = broker.lsp();
            let (first, second) = (Peer::new(), Peer::new());
            let handles = [lingering(&mut client, &first), lingering(&mut client, &second)];
            let closes = handles.map(|handle| client.send("socket.close", json!([handle])));
            client.expect_service();
            std::thread::scope(|scope| {
                // Nothing ends the connection before the first close has ended.
                scope.spawn(|| second.read());
                client.expect_silence_for(50);
                first.read();
                for close in closes {
                    client.answer(close).result();
                }
            });
        });
    }
}
