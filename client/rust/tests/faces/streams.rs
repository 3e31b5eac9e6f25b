//! Streams, timeouts and cancellation, in both faces.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use sockbroker_client::blocking::{Broker, CancellationToken, Socket};
use sockbroker_client::{Domain, Error, Events, Protocol, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::setup::{bounded, connect, daemon, run};

fn pair(broker: &Broker) -> (Socket, Socket) {
    broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).unwrap()
}

#[test]
fn large_transfer_through_std_io() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut left, mut right) = pair(&broker);
        let sent = data.clone();
        let writer = thread::spawn(move || {
            left.write_all(&sent).unwrap();
            left.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        right.read_to_end(&mut received).unwrap();
        assert!(received == data, "received {} bytes", received.len());
        writer.join().unwrap();
    });
}

#[test]
fn peek_keeps_the_data() {
    bounded(20, || {
        let daemon = daemon();
        let (left, right) = pair(&connect(&daemon));
        left.send_all(b"abc").unwrap();
        let mut buffer = [0; 2];
        assert_eq!(right.peek(&mut buffer).unwrap(), 2);
        assert_eq!(right.recv(&mut buffer).unwrap(), 2);
        assert_eq!(&buffer, b"ab");
        assert_eq!(right.recv(&mut buffer).unwrap(), 1);
        drop(left);
        assert_eq!(right.recv(&mut buffer).unwrap(), 0);
    });
}

#[test]
fn timeout_and_would_block_are_different_errors() {
    bounded(20, || {
        let daemon = daemon();
        let (_left, right) = pair(&connect(&daemon));
        right.set_timeout(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(right.timeout().unwrap(), Some(Duration::from_millis(20)));
        let error = right.recv(&mut [0]).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        right.set_nonblocking(true).unwrap();
        let error = io::Error::from(right.recv(&mut [0]).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(error.raw_os_error(), Some(11));
    });
}

#[test]
fn refused_and_slow_connections_have_native_errors() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        // A port on which nothing listens, and which nobody else gets.
        let bound = Socket::new(&broker, Domain::IPV4, Type::STREAM, Protocol::TCP).unwrap();
        bound.bind(("127.0.0.1", 0)).unwrap();
        let socket = Socket::new(&broker, Domain::IPV4, Type::STREAM, Protocol::TCP).unwrap();
        let error = io::Error::from(socket.connect(bound.local_addr().unwrap()).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // With a backlog of 0 and one pending connection, the next one waits.
        let full = Socket::new(&broker, Domain::IPV4, Type::STREAM, Protocol::TCP).unwrap();
        full.bind(("127.0.0.1", 0)).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap();
        let _first = broker.create_connection(&address).unwrap();
        broker.poll(&[(&full, Events::IN)], None).unwrap();
        let slow = Socket::new(&broker, Domain::IPV4, Type::STREAM, Protocol::TCP).unwrap();
        let error = slow.connect_timeout(&address, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert_eq!(slow.timeout().unwrap(), None);
    });
}

#[test]
fn waiting_call_is_cancelled_from_another_thread_without_loss() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (left, right) = pair(&broker);
        let token = CancellationToken::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| token.run(|| right.recv(&mut [0; 9])));
            thread::park_timeout(Duration::from_millis(50));
            token.cancel();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        });
        assert!(matches!(token.run(|| right.peer_addr()), Err(Error::Cancelled { .. })));
        left.send_all(b"after").unwrap();
        let mut buffer = [0; 9];
        assert_eq!(right.recv(&mut buffer).unwrap(), 5);
    });
}

#[test]
fn call_timeout_ends_a_waiting_call() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        // Before the timeout: the broker can start a process for it.
        let (_left, right) = pair(&broker);
        broker.set_call_timeout(Some(Duration::from_millis(50)));
        assert_eq!(broker.call_timeout(), Some(Duration::from_millis(50)));
        let error = right.recv(&mut [0]).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        broker.set_call_timeout(None);
        assert!(right.local_addr().is_ok());
    });
}

#[test]
fn asynchronous_stream_transfers_in_both_directions_at_once() {
    run(async |broker| {
        let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
        let (mut left, right) =
            broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).await.unwrap();
        let (mut input, mut output) = tokio::io::split(right);
        let echo = async {
            tokio::io::copy(&mut input, &mut output).await.unwrap();
            output.shutdown().await.unwrap();
        };
        let talk = async {
            let mut received = vec![0; data.len()];
            for (out, back) in data.chunks(70_000).zip(received.chunks_mut(70_000)) {
                left.write_all(out).await.unwrap();
                left.read_exact(back).await.unwrap();
            }
            left.shutdown(Shutdown::Write).await.unwrap();
            assert_eq!(left.read(&mut [0; 10]).await.unwrap(), 0);
            assert!(received == data);
        };
        tokio::join!(echo, talk);
    });
}

#[test]
fn flush_returns_the_error_of_an_earlier_write() {
    run(async |broker| {
        let (mut left, right) =
            broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).await.unwrap();
        right.close().await.unwrap();
        left.write_all(b"to a closed peer").await.unwrap();
        let error = left.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn data_written_before_a_drop_arrive() {
    run(async |broker| {
        let (mut left, mut right) =
            broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).await.unwrap();
        left.write_all(&vec![7; 100_000]).await.unwrap();
        drop(left);
        let mut received = Vec::new();
        right.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, vec![7; 100_000]);
    });
}
