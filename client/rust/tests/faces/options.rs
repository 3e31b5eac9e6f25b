//! Options: typed constants, raw numbers, and the methods for common ones.

use std::net::Ipv4Addr;
use std::time::Duration;

use sockbroker_client::blocking::Socket;
use sockbroker_client::option::{self, Membership4, RawValue, SocketOption};
use sockbroker_client::{Domain, Error, Protocol, Type};

use crate::setup::{bounded, connect, daemon};

#[test]
fn typed_options_round_trip() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let tcp = Socket::new(&broker, Domain::IPV4, Type::STREAM, Protocol::TCP).unwrap();
        tcp.set_nodelay(true).unwrap();
        assert!(tcp.nodelay().unwrap());
        tcp.set_reuse_address(true).unwrap();
        assert!(tcp.reuse_address().unwrap());
        tcp.set_ttl(9).unwrap();
        assert_eq!(tcp.ttl().unwrap(), 9);
        tcp.set_linger(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(tcp.linger().unwrap(), Some(Duration::from_secs(2)));
        tcp.set_keepalive(true).unwrap();
        assert!(tcp.keepalive().unwrap());
        let congestion = tcp.option(option::TCP_CONGESTION).unwrap();
        assert!(!congestion.is_empty());
        tcp.set_option(option::TCP_CONGESTION, congestion).unwrap();
        assert!(tcp.option(option::TCP_INFO).unwrap().len() > 100);
        assert!(tcp.take_error().unwrap().is_none());
        let udp = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::UDP).unwrap();
        udp.set_broadcast(true).unwrap();
        assert!(udp.broadcast().unwrap());
        udp.set_option(option::IP_MULTICAST_IF, Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(udp.option(option::IP_MULTICAST_IF).unwrap(), Ipv4Addr::LOCALHOST);
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let member = Membership4 { group, interface: Ipv4Addr::LOCALHOST };
        udp.set_option(option::IP_ADD_MEMBERSHIP, member).unwrap();
    });
}

#[test]
fn raw_options_are_integers_or_bytes_and_unknown_ones_fail() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let udp = Socket::new(&broker, Domain::IPV6, Type::DGRAM, Protocol::UDP).unwrap();
        udp.set_option_raw(41, 26, RawValue::Int(1)).unwrap();
        assert!(udp.only_v6().unwrap());
        assert_eq!(udp.option_raw(41, 26, None).unwrap(), RawValue::Int(1));
        let bytes = udp.option_raw(41, 26, Some(4)).unwrap();
        assert_eq!(bytes, RawValue::Bytes(1_i32.to_ne_bytes().to_vec()));
        let unknown: SocketOption<i32> = SocketOption::new(1, 9999);
        assert_eq!(udp.option(unknown).unwrap_err().errno(), Some(92));
        let text: SocketOption<bool> = SocketOption::new(41, 26);
        assert!(udp.option(text).unwrap());
        let error = udp.option(SocketOption::<Ipv4Addr>::new(41, 9999)).unwrap_err();
        assert!(matches!(error, Error::Os { errno: Some(92), .. }), "{error:?}");
    });
}
