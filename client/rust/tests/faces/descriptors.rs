//! Passing real descriptors, in both directions.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};

use sockbroker_client::proto::api::delegation::Program;
use sockbroker_client::{Address, Domain, Flags, OutgoingAncillary, Protocol, Type, option};
use sockbroker_test_support::Folder;

use crate::setup::{bounded, connect, daemon, run};

#[test]
fn into_owned_fd_and_try_clone_fd_return_native_sockets() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let listener = broker.create_server(("127.0.0.1", 0)).unwrap();
        let client = broker.create_connection(listener.local_addr().unwrap()).unwrap();
        let (server, _peer) = listener.accept().unwrap();
        let kept = server.try_clone_fd().unwrap();
        let mut native = TcpStream::from(client.into_owned_fd().unwrap());
        native.write_all(b"natively").unwrap();
        let mut buffer = [0; 8];
        server.recv(&mut buffer).unwrap();
        assert_eq!(&buffer, b"natively");
        let mut other = TcpStream::from(kept);
        other.write_all(b"back").unwrap();
        let mut buffer = [0; 4];
        native.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"back");
        assert_eq!(broker.session().unwrap().handles, 2);
    });
}

#[test]
fn too_many_descriptors_fail_with_einval() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (left, right) =
            broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let many = vec![file.as_fd(); 254];
        let send = |descriptors| {
            let ancillary = [OutgoingAncillary::Descriptors(descriptors)];
            left.send_msg(&[b"x"], &ancillary, Flags::NONE, None)
        };
        assert_eq!(send(&many).unwrap_err().errno(), Some(22));
        assert_eq!(send(&many[1..]).unwrap(), 1);
        assert_eq!(right.recv(&mut [0; 9]).unwrap(), 1);
    });
}

#[test]
fn adopt_lends_a_socket_of_this_process() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let socket = broker.adopt(theirs).unwrap();
        assert_eq!(socket.spec().domain, Domain::UNIX);
        socket.send_all(b"lent").unwrap();
        let mut buffer = [0; 4];
        ours.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"lent");
        let (file, _) = std::io::pipe().unwrap();
        assert_eq!(broker.adopt(file).unwrap_err().errno(), Some(88));
    });
}

#[test]
fn try_clone_creates_a_second_handle_of_the_socket() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (left, right) =
            broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).unwrap();
        let clone = left.try_clone().unwrap();
        assert_ne!(clone.handle(), left.handle());
        left.close().unwrap();
        clone.send_all(b"x").unwrap();
        assert_eq!(right.recv(&mut [0; 9]).unwrap(), 1);
    });
}

#[test]
fn asynchronous_socket_becomes_a_tokio_socket() {
    run(async |broker| {
        let listener = broker.create_server(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().await.unwrap().to_inet().unwrap();
        let native = std::net::TcpListener::from(listener.into_owned_fd().await.unwrap());
        native.set_nonblocking(true).unwrap();
        let native = tokio::net::TcpListener::from_std(native).unwrap();
        let (accepted, connected) =
            tokio::join!(native.accept(), broker.create_connection(address));
        assert_eq!(accepted.unwrap().1, {
            connected.unwrap().local_addr().await.unwrap().to_inet().unwrap()
        });
        let (_ours, theirs) = UnixStream::pair().unwrap();
        assert!(broker.adopt(theirs).await.is_ok());
    });
}

#[test]
fn delegated_socket_has_no_handle_and_takes_a_bind_and_an_option() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let program = Program { name: "dig".to_owned(), pid: 1 };
        let made = broker.delegate(Domain::IPV4, Type::DGRAM, Protocol::DEFAULT, Some(program));
        let made = made.unwrap();
        broker.apply_bind(&made, ("127.0.0.1", 0), None).unwrap();
        broker.apply_option(&made, option::SO_BROADCAST, true, None).unwrap();
        assert_eq!(broker.session().unwrap().handles, 0);
        let native = UdpSocket::from(made);
        assert!(native.local_addr().unwrap().port() > 0 && native.broadcast().unwrap());
        let folder = Folder::new();
        let unix = UnixDatagram::unbound().unwrap();
        broker.apply_bind(&unix, Address::unix_path(folder.join("s")), None).unwrap();
        assert_eq!(unix.local_addr().unwrap().as_pathname(), Some(folder.join("s").as_path()));
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = broker.apply_option(&file, option::SO_BROADCAST, true, None);
        assert_eq!(refused.unwrap_err().errno(), Some(88));
    });
}

#[test]
fn asynchronous_broker_delegates_a_socket() {
    run(async |broker| {
        let made = broker.delegate(Domain::IPV6, Type::STREAM, Protocol::DEFAULT, None);
        let made = made.await.unwrap();
        broker.apply_bind(&made, ("::1", 0), None).await.unwrap();
        broker.apply_option(&made, option::TCP_NODELAY, true, None).await.unwrap();
        let native = std::net::TcpListener::from(made);
        assert!(native.local_addr().unwrap().port() > 0);
        assert_eq!(broker.session().await.unwrap().handles, 0);
    });
}
