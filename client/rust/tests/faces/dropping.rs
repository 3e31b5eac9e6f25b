//! Dropping sockets and futures.

use std::time::{Duration, Instant};

use sockbroker_client::blocking::Socket;
use sockbroker_client::{Domain, Protocol, Type, asynchronous};
use sockbroker_test_support::HANG;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::setup::{bounded, connect, daemon, run};

const MOMENT: Duration = Duration::from_millis(30);

async fn pair(broker: &asynchronous::Broker) -> (asynchronous::Socket, asynchronous::Socket) {
    broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).await.unwrap()
}

#[test]
fn dropped_socket_is_closed_before_the_next_call() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        for _ in 0..2000 {
            drop(Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::UDP).unwrap());
        }
        assert_eq!(broker.session().unwrap().handles, 0);
        // Many of them, without a call in between.
        let many: Vec<_> = (0..2000)
            .map(|_| Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::UDP).unwrap())
            .collect();
        drop(many);
        assert_eq!(broker.session().unwrap().handles, 0);
        let listener = broker.create_server(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(broker.create_server(address).is_ok());
    });
}

#[test]
fn dropped_receive_is_cancelled_without_loss() {
    run(async |broker| {
        let (left, right) = pair(&broker).await;
        for round in 0..50_u8 {
            let (mut buffer, data) = ([0; 4], [round; 3]);
            // Sometimes the cancellation arrives first, sometimes the data.
            let receive = timeout(MOMENT / 30, right.recv(&mut buffer));
            let (timed_out, sent) = tokio::join!(receive, left.send(&data));
            sent.unwrap();
            let n = match timed_out {
                Ok(received) => received.unwrap(),
                Err(_elapsed) => right.recv(&mut buffer).await.unwrap(),
            };
            assert_eq!((n, &buffer[..3]), (3, &data[..]));
        }
    });
}

#[test]
fn dropped_read_leaves_the_rest_for_smaller_buffers() {
    run(async |broker| {
        let (left, mut right) = pair(&broker).await;
        assert!(timeout(MOMENT, right.read(&mut [0; 100])).await.is_err());
        left.send_all(b"abcdef").await.unwrap();
        let mut buffer = [0; 4];
        right.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"abcd");
        let mut buffer = [0; 9];
        assert_eq!(right.recv(&mut buffer).await.unwrap(), 2);
        assert_eq!(&buffer[..2], b"ef");
    });
}

#[test]
fn dropped_accept_keeps_its_connection_for_the_next_one() {
    run(async |broker| {
        let listener = broker.create_server(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().await.unwrap();
        for _ in 0..20 {
            let (timed_out, connected) = tokio::join!(
                timeout(MOMENT / 30, listener.accept()),
                broker.create_connection(&address)
            );
            let client = connected.unwrap();
            let (_server, peer) = match timed_out {
                Ok(accepted) => accepted.unwrap(),
                Err(_elapsed) => listener.accept().await.unwrap(),
            };
            assert_eq!(peer, client.local_addr().await.unwrap());
        }
    });
}

#[test]
fn socket_of_a_dropped_call_is_closed() {
    run(async |broker| {
        for _ in 0..20 {
            let creating =
                asynchronous::Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::UDP);
            drop(timeout(Duration::from_nanos(1), creating).await);
            let pair = broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT);
            drop(timeout(Duration::from_nanos(1), pair).await);
        }
        let deadline = Instant::now() + HANG;
        while broker.session().await.unwrap().handles > 0 {
            assert!(Instant::now() < deadline, "a handle stays");
            tokio::time::sleep(MOMENT / 10).await;
        }
    });
}

#[test]
fn into_owned_fd_is_refused_while_a_dropped_receive_has_data() {
    run(async |broker| {
        let (left, mut right) = pair(&broker).await;
        assert!(timeout(MOMENT, right.read(&mut [0; 9])).await.is_err());
        left.send_all(b"data").await.unwrap();
        let mut buffer = [0; 1];
        right.read_exact(&mut buffer).await.unwrap();
        let error = right.into_owned_fd().await.unwrap_err();
        assert_eq!(error.errno(), Some(16), "{error}");
    });
}
