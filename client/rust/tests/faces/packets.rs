//! Raw and packet sockets, in a namespace where the broker has privileges.

use std::time::Duration;

use sockbroker_client::blocking::Socket;
use sockbroker_client::{Address, Domain, Protocol, Type};
use sockbroker_test_support::{binary, namespace};

use crate::setup::{connect, daemon};

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
