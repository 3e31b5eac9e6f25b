//! `agent.connect`: descriptors of streams whose connection is being made.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::poll;
use sockbroker_test_support::channel::is_closed;
use sockbroker_test_support::{HANG, LspClient, bounded, until};
use socket2::Socket;

use crate::agent::Agent;
use crate::program::{broker, endpoint};

/// A listener whose queue has one connection and no room. The kernel drops further requests until it has room.
fn full() -> (TcpListener, TcpStream) {
    let socket = bound().0;
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let queued = poll::poll_for(&[(listener.as_fd(), libc::POLLIN)], Some(HANG)).unwrap();
    assert_ne!(queued, [0]);
    (listener, first)
}

/// A port on which nothing listens, and which nobody else gets while its socket is open.
pub(crate) fn bound() -> (Socket, u16) {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

fn socket(client: &mut LspClient) -> u64 {
    let params = json!({ "family": "AF_INET", "type": "SOCK_STREAM", "timeout": 0 });
    client.call("socket.socket", params).result()["handle"].as_u64().unwrap()
}

/// Begins to connect a socket.
fn connect(client: &mut LspClient, handle: u64, port: u16) {
    let result = client.call("socket.connect_ex", json!([handle, ["127.0.0.1", port]]));
    assert_eq!(result.result(), &json!(libc::EINPROGRESS), "{}", result.short());
}

fn descriptor(client: &mut LspClient, handle: u64) -> UnixStream {
    let mut made = client.call("agent.connect", json!([handle]));
    assert_eq!(made.result(), &json!({ "fd": true }), "{}", made.short());
    let stream = UnixStream::from(made.descriptors.remove(0));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// Waits until a descriptor is writable.
fn decided(stream: &UnixStream) {
    let ready = poll::poll_for(&[(stream.as_fd(), libc::POLLOUT)], Some(HANG)).unwrap();
    assert_ne!(ready, [0]);
}

fn error_of(client: &mut LspClient, handle: u64) -> Value {
    client.call("socket.getsockopt", json!([handle, "SOL_SOCKET", "SO_ERROR"])).result().clone()
}

#[test]
fn descriptor_is_writable_once_the_connection_is_made_and_has_its_data() {
    bounded(30, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let (listener, first) = full();
        let handle = socket(&mut client);
        connect(&mut client, handle, listener.local_addr().unwrap().port());
        let mut stream = descriptor(&mut client, handle);
        assert_eq!(poll::poll_now(&[(stream.as_fd(), libc::POLLOUT)]).unwrap(), [0]);
        drop((listener.accept().unwrap(), first));
        decided(&stream);
        assert_eq!(error_of(&mut client, handle), json!(0));
        let (mut peer, _) = listener.accept().unwrap();
        stream.write_all(b"to the peer").unwrap();
        let mut received = [0; 11];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"to the peer");
        peer.write_all(b"back").unwrap();
        stream.read_exact(received.get_mut(..4).unwrap()).unwrap();
        assert_eq!(received.get(..4), Some(b"back".as_slice()));
        drop(stream);
        until("the handle is closed", || is_closed(&mut client, handle));
        assert_eq!(peer.read(&mut received).unwrap(), 0);
    });
}

#[test]
fn descriptor_ends_with_a_failed_attempt_and_a_new_one_begins_another() {
    bounded(30, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handle = socket(&mut client);
        let (_bound, closed) = bound();
        connect(&mut client, handle, closed);
        let mut failed = descriptor(&mut client, handle);
        decided(&failed);
        assert_eq!(failed.read(&mut [0]).unwrap(), 0);
        assert_eq!(error_of(&mut client, handle), json!(libc::ECONNREFUSED));
        // As natively, one call more ends the attempt (`__inet_stream_connect()` in `net/ipv4/af_inet.c`).
        let ended = client.call("socket.connect_ex", json!([handle, ["127.0.0.1", closed]]));
        assert_eq!(ended.result(), &json!(libc::ECONNABORTED));
        connect(&mut client, handle, listener.local_addr().unwrap().port());
        let mut stream = descriptor(&mut client, handle);
        // The end of the old descriptor is not that of the socket.
        drop(failed);
        decided(&stream);
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"here").unwrap();
        let mut received = [0; 4];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"here");
        assert!(!is_closed(&mut client, handle));
    });
}

#[test]
fn socket_is_closed_with_its_descriptor_before_and_after_the_end_of_the_attempt() {
    bounded(30, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let (listener, _first) = full();
        let (_bound, closed) = bound();
        for port in [listener.local_addr().unwrap().port(), closed] {
            let handle = socket(&mut client);
            connect(&mut client, handle, port);
            drop(descriptor(&mut client, handle));
            until("the handle is closed", || is_closed(&mut client, handle));
        }
        // A handle that does not exist has failed.
        let mut unknown = descriptor(&mut client, 1 << 40);
        assert_eq!(unknown.read(&mut [0]).unwrap(), 0);
        client.expect_service();
    });
}

#[test]
fn number_of_connections_that_are_being_made_is_limited() {
    bounded(60, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let (listener, _first) = full();
        let handle = socket(&mut client);
        connect(&mut client, handle, listener.local_addr().unwrap().port());
        let mut open: Vec<_> = (0..256).map(|_| descriptor(&mut client, handle)).collect();
        let fault = client.call("agent.connect", json!([handle])).fault();
        let expected = ((4002, "limit"), "agent_connecting".to_owned());
        assert_eq!((fault.kind(), fault.limit().to_owned()), expected);
        open.remove(0);
        until("there is room again", || !client.call("agent.connect", json!([handle])).is_fault());
    });
}
