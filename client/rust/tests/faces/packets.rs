//! Raw and packet sockets, in a namespace where the broker has privileges.

use std::io::Read as _;
use std::net::UdpSocket;
use std::time::Duration;

use sockbroker_client::blocking::{Broker, Socket};
use sockbroker_client::proto::api::capture::{CaptureOptions, ReplayOptions, Replayed};
use sockbroker_client::{
    Address, CaptureRequest, CapturedPacket, Domain, Endpoint, Error, Protocol, Type, asynchronous,
};
use sockbroker_pcapng::{LinkType, PcapWriter};
use sockbroker_test_support::{HANG, binary, namespace};

use crate::setup::{connect, daemon, endpoint};

#[test]
fn packet_socket_receives_a_datagram() {
    binary::broker();
    namespace::inside("packets::packet_socket_receives_a_datagram", || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let protocol = Protocol::ethernet(0x0800);
        let sniffer = Socket::new(&broker, Domain::PACKET, Type::DGRAM, protocol).unwrap();
        sniffer.bind(Address::packet("lo", 0x0800)).unwrap();
        sniffer.set_timeout(Some(HANG)).unwrap();
        let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::UDP).unwrap();
        udp.send_to(b"captured", ("127.0.0.1", 9)).unwrap();
        let mut buffer = [0; 100];
        let (n, from) = sniffer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[28..n], b"captured");
        let from = from.to_packet().unwrap();
        assert_eq!((from.interface.as_str(), from.protocol), ("lo", 0x0800));
        // `BPF_RET`: accepts no packet.
        let accept_nothing = [6, 0, 0, 0, 0, 0, 0, 0];
        sniffer.attach_filter(&accept_nothing).unwrap();
        sniffer.detach_filter().unwrap();
    });
}

#[test]
fn raw_socket_pings() {
    binary::broker();
    namespace::inside("packets::raw_socket_pings", || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let raw = Socket::new(&broker, Domain::IPV4, Type::RAW, Protocol::ICMPV4).unwrap();
        raw.set_timeout(Some(HANG)).unwrap();
        let mut request = [8, 0, 0, 0, 0, 1, 0, 1];
        let sum = !u16::from_be_bytes([8, 0]).wrapping_add(2);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
        raw.send_to(&request, ("127.0.0.1", 0)).unwrap();
        let mut buffer = [0; 100];
        // The request arrives before the reply on the loopback interface.
        loop {
            let n = raw.recv(&mut buffer).unwrap();
            assert!(n >= 28);
            if buffer[20] == 0 {
                break;
            }
        }
    });
}

/// What is behind the headers of Ethernet, IPv4 and UDP.
fn payload(packet: &CapturedPacket) -> Vec<u8> {
    assert_eq!((packet.interface.as_str(), packet.link_type, packet.dropped), ("lo", 1, 0));
    assert_eq!(packet.length as usize, packet.data.len());
    packet.data[42..].to_vec()
}

#[test]
fn capture_iterates_over_packets_until_it_ends() {
    binary::broker();
    namespace::inside("packets::capture_iterates_over_packets_until_it_ends", || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let mut capture = broker.capture(&CaptureRequest::on("lo")).unwrap();
        assert_eq!(capture.opened().interfaces[0].name, "lo");
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |data: &[u8]| own.send_to(data, own.local_addr().unwrap()).unwrap();
        send(b"one");
        assert_eq!(payload(&capture.next().unwrap().unwrap()), b"one");
        // `BPF_RET`: accepts no packet.
        capture.set_filter(&[6, 0, 0, 0, 0, 0, 0, 0], Some("less 0")).unwrap();
        send(b"two");
        capture.set_filter(&[], None).unwrap();
        send(b"three");
        let stopped = capture.stop(Duration::ZERO).unwrap();
        assert_eq!((stopped.seen, stopped.captured, stopped.complete), (2, 2, Some(true)));
        send(b"four");
        let rest: Vec<_> = capture.by_ref().map(|packet| payload(&packet.unwrap())).collect();
        assert_eq!(rest, [b"three"]);
        assert_eq!(capture.stats().unwrap().ended.as_deref(), Some("stopped"));
        let error = broker.capture(&CaptureRequest::on("none0")).unwrap_err();
        assert_eq!(error.errno(), Some(19), "{error:?}");
        // Dropping it closes the handle, before the next call of this thread.
        drop(capture);
        assert_eq!(broker.session().unwrap().handles, 0);
    });
}

#[test]
fn asynchronous_capture_is_a_stream_of_packets() {
    binary::broker();
    namespace::inside("packets::asynchronous_capture_is_a_stream_of_packets", || {
        let daemon = daemon();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = asynchronous::Broker::connect_to(&endpoint(&daemon)).await.unwrap();
            let mut capture = broker.capture(&CaptureRequest::on("lo")).await.unwrap();
            let own = UdpSocket::bind("127.0.0.1:0").unwrap();
            for data in [b"1", b"2", b"3"] {
                // A dropped future loses nothing.
                {
                    let mut next = std::pin::pin!(capture.next());
                    let pending = std::future::poll_fn(|context| {
                        std::task::Poll::Ready(next.as_mut().poll(context).is_pending())
                    });
                    assert!(pending.await);
                }
                own.send_to(data, own.local_addr().unwrap()).unwrap();
                assert_eq!(payload(&capture.next().await.unwrap().unwrap()), data);
            }
            assert_eq!(capture.stop(Duration::ZERO).await.unwrap().captured, 3);
            assert!(capture.next().await.is_none() && capture.next().await.is_none());
        });
    });
}

/// Endpoints of a broker: one that carries descriptors, and one that does not.
fn endpoints(daemon: &sockbroker_test_support::Daemon) -> [Endpoint; 2] {
    let without = format!("ws+unix:{}", daemon.socket().display());
    [endpoint(daemon), without.parse().unwrap()]
}

/// Sends a datagram to its own socket, over the loopback.
fn send(data: &[u8]) {
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    own.send_to(data, own.local_addr().unwrap()).unwrap();
}

#[test]
fn capture_is_the_same_with_and_without_descriptors() {
    binary::broker();
    namespace::inside("packets::capture_is_the_same_with_and_without_descriptors", || {
        let daemon = daemon();
        for (endpoint, fd) in endpoints(&daemon).into_iter().zip([true, false]) {
            let broker = Broker::connect_to(&endpoint).unwrap();
            let mut capture = broker.capture(&CaptureRequest::on("lo")).unwrap();
            assert_eq!(capture.opened().fd, fd);
            for data in [&b"one"[..], b"two"] {
                send(data);
                assert_eq!(payload(&capture.next().unwrap().unwrap()), data);
            }
            // A thread that waits for a packet does not delay another call.
            let other = broker.clone();
            let handle = capture.opened().handle;
            let rest = std::thread::spawn(move || capture.by_ref().count());
            let stopped = other.call("capture.stop", (handle,)).unwrap();
            assert_eq!((&stopped["captured"], &stopped["complete"]), (&2.into(), &true.into()));
            assert_eq!(rest.join().unwrap(), 0);
        }
    });
}

#[test]
fn capture_without_descriptors_is_a_stream_of_packets() {
    binary::broker();
    namespace::inside("packets::capture_without_descriptors_is_a_stream_of_packets", || {
        let daemon = daemon();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [_, without] = endpoints(&daemon);
        runtime.block_on(async {
            let broker = asynchronous::Broker::connect_to(&without).await.unwrap();
            let mut capture = broker.capture(&CaptureRequest::on("lo")).await.unwrap();
            assert!(!capture.opened().fd);
            for data in [b"1", b"2", b"3"] {
                // A dropped future loses nothing.
                {
                    let mut next = std::pin::pin!(capture.next());
                    let pending = std::future::poll_fn(|context| {
                        std::task::Poll::Ready(next.as_mut().poll(context).is_pending())
                    });
                    assert!(pending.await);
                }
                send(data);
                assert_eq!(payload(&capture.next().await.unwrap().unwrap()), data);
            }
            assert_eq!(capture.stop(Duration::ZERO).await.unwrap().captured, 3);
            assert!(capture.next().await.is_none());
        });
    });
}

#[test]
fn stream_of_a_capture_is_its_file() {
    binary::broker();
    namespace::inside("packets::stream_of_a_capture_is_its_file", || {
        let daemon = daemon();
        for endpoint in endpoints(&daemon) {
            let broker = Broker::connect_to(&endpoint).unwrap();
            let options = CaptureOptions { packets: Some(2), ..CaptureOptions::default() };
            let request = CaptureRequest { options, ..CaptureRequest::on("lo") };
            let mut stream = broker.capture(&request).unwrap().into_stream();
            send(b"one");
            send(b"two");
            let mut file = Vec::new();
            stream.read_to_end(&mut file).unwrap();
            assert_eq!(file[..4], [0x0A, 0x0D, 0x0D, 0x0A]);
            for data in [b"one", b"two"] {
                assert_eq!(file.windows(3).filter(|part| part == data).count(), 1);
            }
            assert_eq!(stream.stats().unwrap().ended.as_deref(), Some("limit"));
            drop(stream);
            assert_eq!(broker.session().unwrap().handles, 0);
        }
    });
}

#[test]
fn both_faces_replay_the_packets_of_a_file() {
    binary::broker();
    namespace::inside("packets::both_faces_replay_the_packets_of_a_file", || {
        let daemon = daemon();
        let frame = |number: u8| {
            let header = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, number];
            [&header[..], &[7; 60]].concat()
        };
        let mut file = Vec::new();
        let writer = PcapWriter::begin(LinkType::ETHERNET, 65_535, &mut file);
        for number in [1, 2, 3] {
            let (time, data) = (u64::from(number) * 1_000_000, frame(number));
            writer.packet(time, &[&data], 75, &mut file).unwrap();
        }
        let options = ReplayOptions { speed: Some(2.0), ..ReplayOptions::default() };
        let broker = connect(&daemon);
        let mut capture = broker.capture(&CaptureRequest::on("lo")).unwrap();
        let mut check = |replayed: &Replayed| {
            assert_eq!((replayed.packets, replayed.bytes, replayed.failed), (3, 225, 0));
            assert_eq!(replayed.stopped, None);
            let found: Vec<_> = capture.by_ref().take(3).map(|one| one.unwrap().data).collect();
            assert_eq!(found, [frame(1), frame(2), frame(3)]);
        };
        for endpoint in endpoints(&daemon) {
            let broker = Broker::connect_to(&endpoint).unwrap();
            let socket =
                Socket::new(&broker, Domain::PACKET, Type::RAW, Protocol::DEFAULT).unwrap();
            let error = socket.replay(&file, &options).unwrap_err();
            assert!(error.to_string().contains("bound to an interface"), "{error}");
            socket.bind(Address::packet("lo", 0)).unwrap();
            check(&socket.replay(&file, &options).unwrap());
            let error = socket.replay(b"no capture", &options).unwrap_err();
            assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = asynchronous::Broker::connect_to(&endpoint(&daemon)).await.unwrap();
            let (domain, ty) = (Domain::PACKET, Type::RAW);
            let socket = asynchronous::Socket::new(&broker, domain, ty, Protocol::DEFAULT).await;
            let socket = socket.unwrap();
            socket.bind(Address::packet("lo", 0)).await.unwrap();
            check(&socket.replay(&file, &options).await.unwrap());
        });
    });
}
