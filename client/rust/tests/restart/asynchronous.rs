//! The asynchronous face.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::thread;

use sockbroker_client::asynchronous::{Broker, Socket};
use sockbroker_client::{Domain, Error, Protocol, Type};
use sockbroker_test_support::bounded;
use sockbroker_test_support::daemon::stop_process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt};

use crate::fixture::{End, SHORT, Service, bounded_stream, listener, pattern, persistent};

fn run<F: Future<Output = ()>>(body: impl FnOnce(Service) -> F + Send + 'static) {
    bounded(180, move || {
        let service = Service::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body(service));
    });
}

async fn connect(service: &Service) -> Broker {
    Broker::connect_with(&service.endpoint(), persistent()).await.unwrap()
}

async fn worker(broker: &Broker) -> u32 {
    broker.info().await.unwrap().process.pid
}

async fn connected(broker: &Broker) -> (Socket, TcpStream) {
    let listener = listener();
    let socket = broker.create_connection(listener.local_addr().unwrap()).await.unwrap();
    (socket, bounded_stream(listener.accept().unwrap().0))
}

async fn datagrams(broker: &Broker) -> Socket {
    let udp = Socket::new(broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).await.unwrap();
    udp.bind(("127.0.0.1", 0)).await.unwrap();
    udp
}

/// Starts `call` so that its request is sent, then `act`.
async fn while_waiting<T>(call: impl Future<Output = T>, act: impl FnOnce()) -> T {
    let act = async {
        tokio::task::yield_now().await;
        act();
    };
    tokio::join!(call, act).0
}

#[test]
fn asynchronous_waits_continue_through_every_end() {
    run(async |mut service| {
        for end in End::ALL {
            let broker = connect(&service).await;
            let server = broker.create_server(("127.0.0.1", 0)).await.unwrap();
            let (stream, mut peer) = connected(&broker).await;
            let udp = datagrams(&broker).await;
            let to_server = server.local_addr().await.unwrap().to_inet().unwrap();
            let to_udp = udp.local_addr().await.unwrap().to_inet().unwrap();
            let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            let process = worker(&broker).await;
            let (mut data, mut datagram) = ([0; 10], [0; 10]);
            // Three calls wait on the one connection.
            let waits = async {
                tokio::join!(server.accept(), stream.recv(&mut data), udp.recv(&mut datagram))
            };
            let mut native = None;
            let (accepted, received, length) = while_waiting(waits, || {
                service.end(end, process);
                native = Some(bounded_stream(TcpStream::connect(to_server).unwrap()));
                peer.write_all(b"stream").unwrap();
                sender.send_to(b"datagram", to_udp).unwrap();
            })
            .await;
            assert_eq!((received.unwrap(), length.unwrap()), (6, 8), "{end:?}");
            let (mut accepted, _) = accepted.unwrap();
            native.unwrap().write_all(b"accepted").unwrap();
            let mut data = [0; 8];
            accepted.read_exact(&mut data).await.unwrap();
            assert_eq!(&data, b"accepted");
        }
    });
}

#[test]
fn asynchronous_stream_loses_and_repeats_no_byte() {
    const LENGTH: usize = 6 << 20;
    run(async |mut service| {
        let data = pattern(LENGTH);
        for end in End::ALL {
            let broker = connect(&service).await;
            let (mut socket, mut peer) = connected(&broker).await;
            let process = worker(&broker).await;
            // Several writes are in progress at the same time.
            let reader = thread::spawn(move || {
                let mut received = vec![0; LENGTH / 3];
                peer.read_exact(&mut received).unwrap();
                service.end(end, process);
                peer.read_to_end(&mut received).unwrap();
                (received, service)
            });
            for part in data.chunks(100 << 10) {
                socket.write_all(part).await.unwrap();
            }
            AsyncWriteExt::shutdown(&mut socket).await.unwrap();
            let (received, returned) = reader.join().unwrap();
            assert!(received == data, "{end:?}: {} bytes", received.len());
            service = returned;
        }
        for end in End::ALL {
            let broker = connect(&service).await;
            let (mut socket, mut peer) = connected(&broker).await;
            // A receive that is dropped without data changes nothing.
            let dropped = tokio::time::timeout(SHORT, socket.recv(&mut [0])).await;
            assert!(dropped.is_err(), "{dropped:?}");
            let process = worker(&broker).await;
            let sent = data.clone();
            let writer = thread::spawn(move || {
                peer.write_all(&sent[..LENGTH / 2]).unwrap();
                service.end(end, process);
                peer.write_all(&sent[LENGTH / 2..]).unwrap();
                service
            });
            let mut received = Vec::new();
            socket.read_to_end(&mut received).await.unwrap();
            assert!(received == data, "{end:?}: {} bytes", received.len());
            service = writer.join().unwrap();
        }
    });
}

#[test]
fn asynchronous_calls_in_flight_are_repeated_found_or_reported() {
    run(async |mut service| {
        let broker = connect(&service).await;
        let udp = datagrams(&broker).await;
        udp.connect(("127.0.0.1", 9)).await.unwrap();
        let doomed = datagrams(&broker).await;
        let (stream, mut peer) = connected(&broker).await;
        let process = worker(&broker).await;
        stop_process(process);
        let calls = async {
            tokio::join!(
                udp.send(b"once"),
                stream.send_all(b"whole"),
                Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT),
                doomed.close(),
                broker.call("session.handles", ()),
            )
        };
        let (sent, whole, made, closed, listed) =
            while_waiting(calls, || service.end(End::Worker, process)).await;
        let Err(Error::Interrupted { call, handle, .. }) = sent else { panic!("{sent:?}") };
        assert_eq!((call.as_str(), handle), ("send", Some(udp.handle())));
        whole.unwrap();
        made.unwrap();
        closed.unwrap();
        assert!(listed.unwrap().as_array().unwrap().len() >= 2);
        let mut data = [0; 5];
        peer.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"whole");
        assert_eq!(broker.session().await.unwrap().handles, 2);
    });
}

#[test]
fn asynchronous_drops_close_in_the_next_process() {
    run(async |mut service| {
        let broker = connect(&service).await;
        let (socket, mut peer) = connected(&broker).await;
        let process = worker(&broker).await;
        stop_process(process);
        drop(socket);
        service.end(End::Worker, process);
        assert_eq!(broker.session().await.unwrap().handles, 0);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn asynchronous_timeouts_end_the_wait_for_the_broker() {
    run(async |mut service| {
        let broker = connect(&service).await;
        let udp = datagrams(&broker).await;
        udp.set_timeout(Some(SHORT)).await.unwrap();
        service.command("down");
        let result = udp.recv(&mut [0; 9]).await;
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
        service.command("up");
        let process = worker(&broker).await;
        let mut data = [0; 9];
        let result = while_waiting(udp.recv(&mut data), || service.end(End::Worker, process)).await;
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
        drop(broker);
        let config = persistent().reconnect_seconds(1);
        let broker = Broker::connect_with(&service.endpoint(), config).await.unwrap();
        let udp = datagrams(&broker).await;
        service.command("down");
        let error = udp.local_addr().await.unwrap_err();
        assert!(error.to_string().contains("(reconnect_seconds)"), "{error}");
    });
}
