//! Raw and packet sockets, in a namespace where the broker has privileges.

use std::time::Duration;

use sockbroker_client::blocking::Socket;
use sockbroker_client::{
    Address, CaptureRequest, CapturedPacket, Domain, Protocol, Type, asynchronous,
};
use sockbroker_test_support::{binary, namespace};

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
        sniffer.set_timeout(Some(Duration::from_secs(5))).unwrap();
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
        raw.set_timeout(Some(Duration::from_secs(5))).unwrap();
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
        let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |data: &[u8]| own.send_to(data, own.local_addr().unwrap()).unwrap();
        send(b"one");
        assert_eq!(payload(&capture.next().unwrap().unwrap()), b"one");
        // `BPF_RET`: accepts no packet.
        capture.set_filter(&[6, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        send(b"two");
        capture.set_filter(&[]).unwrap();
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
            let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
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
