//! `agent.watch`: descriptors that are readable when a socket of the broker is.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use serde_json::json;
use sockbroker_test_support::{HANG, LspClient, bounded, until};

use crate::agent::Agent;
use crate::program::{broker, endpoint};

fn watch(client: &mut LspClient, handle: u64) -> UnixStream {
    let mut made = client.call("agent.watch", json!([handle]));
    assert_eq!(made.result(), &json!({ "fd": true }), "{}", made.short());
    let stream = UnixStream::from(made.descriptors.remove(0));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// Makes a socket of the broker with an address on the loopback interface. Returns its handle and its port.
fn bound(client: &mut LspClient, kind: &str) -> (u64, u16) {
    let made = client.call("socket.socket", json!({ "family": "AF_INET", "type": kind }));
    let handle = made.result()["handle"].as_u64().unwrap();
    client.call("socket.bind", json!([handle, ["127.0.0.1", 0]])).result();
    let name = client.call("socket.getsockname", json!([handle]));
    (handle, u16::try_from(name.result()[1].as_u64().unwrap()).unwrap())
}

/// Whether the descriptor has nothing to read.
fn is_quiet(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let found = (&*stream).read(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn descriptor_is_readable_when_the_socket_is() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let (listener, port) = bound(&mut client, "SOCK_STREAM");
        client.call("socket.listen", json!([listener])).result();
        let mut watched = watch(&mut client, listener);
        assert!(is_quiet(&watched));
        let first = TcpStream::connect(("127.0.0.1", port)).unwrap();
        watched.read_exact(&mut [0]).unwrap();
        // One byte, until the client has answered it.
        assert!(is_quiet(&watched));
        client.call("socket.accept", json!([listener])).result();
        watched.write_all(&[0]).unwrap();
        // Bytes while the broker waits change nothing.
        watched.write_all(&[0, 0]).unwrap();
        let second = TcpStream::connect(("127.0.0.1", port)).unwrap();
        watched.read_exact(&mut [0]).unwrap();
        drop((first, second));
        // Datagrams, at the same time.
        let (datagrams, port) = bound(&mut client, "SOCK_DGRAM");
        let mut others = watch(&mut client, datagrams);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", ("127.0.0.1", port)).unwrap();
        others.read_exact(&mut [0]).unwrap();
        // The answers to the agent do not reach the client, and its calls work.
        drop((watched, others));
        client.expect_service();
        let received = client.call("socket.recv", json!([datagrams, 9]));
        assert_eq!(received.bytes_of(&received.result()["data"]), b"x");
    });
}

#[test]
fn descriptor_of_an_unknown_socket_ends_and_all_end_with_the_agent() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let (handle, _port) = bound(&mut client, "SOCK_DGRAM");
        client.call("socket.close", json!([handle])).result();
        let mut unknown = watch(&mut client, handle);
        assert_eq!(unknown.read(&mut [0]).unwrap(), 0);
        let (handle, _port) = bound(&mut client, "SOCK_DGRAM");
        let mut watched = watch(&mut client, handle);
        drop(agent);
        assert_eq!(watched.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn number_of_watched_sockets_is_limited() {
    bounded(20, || {
        let broker = broker();
        let agent = Agent::start(&endpoint(&broker), &[], |_| {});
        let mut client = agent.client();
        let (handle, _port) = bound(&mut client, "SOCK_DGRAM");
        let mut open: Vec<_> = (0..64).map(|_| watch(&mut client, handle)).collect();
        let fault = client.call("agent.watch", json!([handle])).fault();
        assert_eq!(
            (fault.kind(), fault.limit().to_owned()),
            ((4002, "limit"), "agent_watches".to_owned())
        );
        open.pop();
        until("there is room again", || !client.call("agent.watch", json!([handle])).is_fault());
        // The broker gets a request without a handle. It has no such method.
        assert!(client.call("agent.watch", json!({})).is_fault());
    });
}
