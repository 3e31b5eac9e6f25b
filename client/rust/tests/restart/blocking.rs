//! The blocking face.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use sockbroker_client::blocking::{Broker, CancellationToken, Socket};
use sockbroker_client::{Config, Domain, Error, Protocol, Type};
use sockbroker_test_support::daemon::stop_process;
use sockbroker_test_support::{Daemon, binary, bounded, until};

use crate::fixture::{End, SHORT, Service, bounded_stream, listener, pattern, persistent};

fn connect(service: &Service) -> Broker {
    Broker::connect_with(&service.endpoint(), persistent()).unwrap()
}

fn worker(broker: &Broker) -> u32 {
    broker.info().unwrap().process.pid
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().to_inet().unwrap()
}

/// A stream of the broker, and its native peer.
fn connected(broker: &Broker) -> (Socket, TcpStream) {
    let listener = listener();
    let socket = broker.create_connection(listener.local_addr().unwrap()).unwrap();
    (socket, bounded_stream(listener.accept().unwrap().0))
}

/// Runs `call` on a thread, and `act` when it waits for the response.
fn while_waiting<T: Send>(call: impl FnOnce() -> T + Send, act: impl FnOnce()) -> T {
    /// Numbers of `poll`, `recvmsg` and `ppoll` (`asm/unistd_64.h`).
    const WAITS: [&str; 3] = ["7 ", "47 ", "271 "];
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let called = scope.spawn(move || {
            sender.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            call()
        });
        let syscall = Path::new("/proc").join(receiver.recv().unwrap()).join("syscall");
        until("the call waits for the response", || {
            let present = std::fs::read_to_string(&syscall).unwrap_or_default();
            called.is_finished() || WAITS.iter().any(|number| present.starts_with(number))
        });
        act();
        called.join().unwrap()
    })
}

#[test]
fn blocking_waits_continue_through_every_end() {
    bounded(120, || {
        let mut service = Service::start();
        for end in End::ALL {
            let broker = connect(&service);
            let server = broker.create_server(("127.0.0.1", 0)).unwrap();
            let (stream, mut peer) = connected(&broker);
            let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
            udp.bind(("127.0.0.1", 0)).unwrap();
            let (to_server, to_udp) = (address(&server), address(&udp));

            let process = worker(&broker);
            let mut native = None;
            let (mut accepted, from) = while_waiting(
                || server.accept().unwrap(),
                || {
                    service.end(end, process);
                    native = Some(bounded_stream(TcpStream::connect(to_server).unwrap()));
                },
            );
            let mut native = native.unwrap();
            assert_eq!(from.to_inet(), Some(native.local_addr().unwrap()), "{end:?}");
            native.write_all(b"accepted").unwrap();
            let mut data = [0; 8];
            accepted.read_exact(&mut data).unwrap();
            assert_eq!(&data, b"accepted");

            let process = worker(&broker);
            let received = while_waiting(
                || {
                    let mut data = [0; 10];
                    let length = stream.recv(&mut data).unwrap();
                    data[..length].to_vec()
                },
                || {
                    service.end(end, process);
                    peer.write_all(b"stream").unwrap();
                },
            );
            assert_eq!(received, b"stream", "{end:?}");

            let process = worker(&broker);
            let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            let length = while_waiting(
                || udp.recv(&mut [0; 10]).unwrap(),
                || {
                    service.end(end, process);
                    sender.send_to(b"datagram", to_udp).unwrap();
                },
            );
            assert_eq!(length, 8, "{end:?}");
        }
    });
}

#[test]
fn without_the_option_a_waiting_call_fails() {
    bounded(60, || {
        let mut service = Service::start();
        let broker = Broker::connect_to(&service.endpoint()).unwrap();
        let server = broker.create_server(("127.0.0.1", 0)).unwrap();
        let process = worker(&broker);
        let result =
            while_waiting(|| server.accept().map(drop), || service.end(End::Worker, process));
        assert!(matches!(result, Err(Error::Disconnected { .. })), "{result:?}");
    });
}

#[test]
fn blocking_stream_loses_and_repeats_no_byte() {
    const LENGTH: usize = 6 << 20;
    bounded(180, || {
        let mut service = Service::start();
        let data = pattern(LENGTH);
        for end in End::ALL {
            let broker = connect(&service);
            // From the broker's socket to its peer: in calls, and in one call.
            for part in [48 << 10, LENGTH] {
                let (socket, mut peer) = connected(&broker);
                let process = worker(&broker);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        data.chunks(part).for_each(|part| socket.send_all(part).unwrap());
                        socket.shutdown(std::net::Shutdown::Write).unwrap();
                    });
                    let mut received = vec![0; LENGTH / 3];
                    peer.read_exact(&mut received).unwrap();
                    service.end(end, process);
                    peer.read_to_end(&mut received).unwrap();
                    assert!(received == data, "{end:?} {part}: {} bytes", received.len());
                });
            }
            // To the broker's socket. A receive without data changes nothing.
            let (socket, mut peer) = connected(&broker);
            socket.set_timeout(Some(SHORT)).unwrap();
            assert!(matches!(socket.recv(&mut [0]), Err(Error::Timeout { .. })));
            socket.set_timeout(None).unwrap();
            let process = worker(&broker);
            thread::scope(|scope| {
                let received = scope.spawn(|| {
                    let (mut received, mut buffer) = (Vec::new(), vec![0; 48 << 10]);
                    while received.len() < LENGTH {
                        let length = socket.recv(&mut buffer).unwrap();
                        received.extend_from_slice(&buffer[..length]);
                    }
                    received
                });
                peer.write_all(&data[..LENGTH / 2]).unwrap();
                service.end(end, process);
                peer.write_all(&data[LENGTH / 2..]).unwrap();
                assert!(received.join().unwrap() == data, "{end:?}");
            });
        }
    });
}

#[test]
fn passed_descriptors_are_not_affected() {
    bounded(60, || {
        let mut service = Service::start();
        let data = pattern(2 << 20);
        let broker = connect(&service);
        let (socket, mut peer) = connected(&broker);
        let mut native = TcpStream::from(socket.try_clone_fd().unwrap());
        thread::scope(|scope| {
            scope.spawn(|| native.write_all(&data).unwrap());
            let mut received = vec![0; data.len() / 2];
            peer.read_exact(&mut received).unwrap();
            service.end(End::Crash, 0);
            received.resize(data.len(), 0);
            peer.read_exact(&mut received[data.len() / 2..]).unwrap();
            assert!(received == data);
        });
        // The handle remains, but others may use the stream: what a lost call sent is not known.
        socket.send_all(b"still").unwrap();
        socket.into_owned_fd().unwrap();
    });
}

#[test]
fn calls_in_flight_are_repeated_found_or_reported() {
    bounded(120, || {
        let mut service = Service::start();
        let broker = connect(&service);
        let mut killed = |call: &mut (dyn FnMut() -> Result<String, Error> + Send)| {
            // The process receives the request and does not answer any more.
            let process = worker(&broker);
            stop_process(process);
            while_waiting(call, || service.end(End::Worker, process))
        };
        let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        udp.connect(("127.0.0.1", 9)).unwrap();
        let sent = killed(&mut || udp.send(b"once").map(|n| n.to_string()));
        let Err(Error::Interrupted { call, handle, message }) = sent else { panic!("{sent:?}") };
        assert_eq!((call.as_str(), handle), ("send", Some(udp.handle())));
        assert!(message.contains("whether this call took effect is not known"), "{message}");
        udp.send(b"the socket remains").unwrap();

        let (stream, mut peer) = connected(&broker);
        killed(&mut || stream.send_all(b"whole").map(|()| String::new())).unwrap();
        let mut data = [0; 5];
        peer.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"whole");

        let before = broker.session().unwrap().handles;
        let made = killed(&mut || {
            let socket = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT)?;
            Ok(socket.spec().domain.to_string())
        });
        made.unwrap();
        until("the socket is closed", || broker.session().unwrap().handles == before);

        let mut doomed =
            Some(Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap());
        killed(&mut || doomed.take().unwrap().close().map(|()| String::new())).unwrap();
        assert_eq!(broker.session().unwrap().handles, before);

        let listed =
            killed(&mut || broker.call("session.handles", ()).map(|list| list.to_string()));
        assert!(listed.unwrap().contains(&format!("\"handle\":{}", udp.handle())));
        let name = killed(&mut || udp.peer_addr().map(|peer| format!("{peer:?}"))).unwrap();
        assert!(name.contains('9'), "{name}");
    });
}

#[test]
fn dropped_sockets_are_closed_in_the_next_process() {
    bounded(180, || {
        let mut service = Service::start();
        // The next process can answer before the kernel has closed all connections of this one.
        for _ in 0..10 {
            let broker = connect(&service);
            let (socket, mut peer) = connected(&broker);
            let process = worker(&broker);
            stop_process(process);
            drop(socket);
            service.end(End::Worker, process);
            assert_eq!(broker.session().unwrap().handles, 0);
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn timeouts_and_cancellation_end_the_wait_for_the_broker() {
    bounded(60, || {
        let mut service = Service::start();
        let broker = connect(&service);
        let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        udp.set_timeout(Some(SHORT)).unwrap();
        let waiting = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        service.command("down");
        let result = udp.recv(&mut [0; 9]);
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
        let token = CancellationToken::new();
        thread::scope(|scope| {
            let call = scope.spawn(|| token.run(|| waiting.recv(&mut [0; 9])));
            token.cancel();
            let result = call.join().unwrap();
            assert!(matches!(result, Err(Error::Cancelled { .. })), "{result:?}");
        });
        service.command("up");
        assert_eq!(udp.timeout().unwrap(), Some(SHORT));
        // What is left of the timeout bounds the repeated call.
        let process = worker(&broker);
        let result = while_waiting(|| udp.recv(&mut [0; 9]), || service.end(End::Worker, process));
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    });
}

#[test]
fn a_broker_that_stays_away_is_an_error_that_says_what_to_do() {
    bounded(60, || {
        let mut service = Service::start();
        let config = persistent().reconnect_seconds(1);
        let broker = Broker::connect_with(&service.endpoint(), config).unwrap();
        let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        service.command("down");
        let error = udp.recv(&mut [0; 9]).unwrap_err();
        let Error::Disconnected { message } = &error else { panic!("{error:?}") };
        for part in ["not reachable for 1 seconds (reconnect_seconds)", "systemctl status"] {
            assert!(message.contains(part), "{message}");
        }
        service.command("up");
        until("the broker serves again", || udp.local_addr().is_ok());
    });
}

#[test]
fn a_session_that_is_gone_is_an_error() {
    bounded(60, || {
        let mut service = Service::start();
        let broker = connect(&service);
        let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        let other = Broker::attach_to(&service.endpoint(), &token(&broker)).unwrap();
        other.call("session.close", ()).unwrap();
        service.end(End::Worker, worker(&broker));
        let error = udp.local_addr().unwrap_err();
        assert!(matches!(error, Error::Session { .. }), "{error:?}");
        assert!(error.to_string().contains("did not outlive the broker"), "{error}");
    });
}

fn token(broker: &Broker) -> String {
    let opened = broker.call("session.open", ()).unwrap();
    opened["token"].as_str().unwrap().to_owned()
}

#[test]
fn persist_needs_a_grant_and_an_endpoint_to_return_to() {
    bounded(60, || {
        let policy = "version = 1\n[[rule]]\nname = \"few\"\nsubject = { everyone = true }\ndeny = [\"persist\"]\n";
        let daemon: Daemon =
            sockbroker_test_support::Start::new(binary::broker()).policy(policy).start();
        let endpoint = sockbroker_client::Endpoint::Unix(daemon.socket().to_owned());
        let error = Broker::connect_with(&endpoint, persistent()).unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        Broker::connect_with(&endpoint, Config::new()).unwrap();
        for text in ["stdio:sockbrokerd --stdio", "http+unix:/x", "ws+unix:/x"] {
            let error = Broker::connect_with(&text.parse().unwrap(), persistent()).unwrap_err();
            assert!(matches!(error, Error::Endpoint { .. }), "{error:?}");
        }
    });
}
