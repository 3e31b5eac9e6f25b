//! Datagrams, messages with ancillary data, and `poll`.

use std::net::SocketAddr;
use std::time::Duration;

use sockbroker_client::blocking::Socket;
use sockbroker_client::{
    Address, AddressHints, Ancillary, Domain, Events, Flags, OutgoingAncillary, Protocol, Type,
    asynchronous, option,
};

use crate::setup::{bounded, connect, daemon, run};

#[test]
fn recv_from_returns_the_sender_and_truncates_to_the_buffer() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let udp = || Socket::new(&broker, Domain::IPV6, Type::DGRAM, Protocol::UDP).unwrap();
        let (left, right) = (udp(), udp());
        let loopback: SocketAddr = "[::1]:0".parse().unwrap();
        left.bind(loopback).unwrap();
        right.bind(loopback).unwrap();
        let to = right.local_addr().unwrap();
        assert_eq!(left.send_to(b"hello", &to).unwrap(), 5);
        assert_eq!(left.send_to(b"", &to).unwrap(), 0);
        let mut buffer = [0; 3];
        let (n, from) = right.recv_from_with_flags(&mut buffer, Flags::TRUNC).unwrap();
        assert_eq!((n, &buffer), (5, b"hel"));
        assert_eq!(from, left.local_addr().unwrap());
        assert_eq!(right.recv_from(&mut buffer).unwrap(), (0, from));
    });
}

#[test]
fn messages_carry_ancillary_data() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (left, right) =
            broker.socketpair(Domain::UNIX, Type::DGRAM, Protocol::DEFAULT).unwrap();
        right.set_option(option::SO_PASSCRED, true).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let rights = [std::os::fd::AsFd::as_fd(&writer)];
        let ancillary = [OutgoingAncillary::Descriptors(&rights)];
        let sent = left.send_msg(&[b"ab", b"c"], &ancillary, Flags::NONE, None).unwrap();
        assert_eq!(sent, 3);
        let message = right.recv_msg(10, 200, Flags::NONE).unwrap();
        assert_eq!((message.data.as_slice(), message.length, message.end), (&b"abc"[..], 3, false));
        let mut lengths = Vec::new();
        for item in message.ancillary {
            match item {
                Ancillary::Descriptors(descriptors) => lengths.push(descriptors.len()),
                Ancillary::Data { level: 1, ty: 2, data } => lengths.push(data.len()),
                other @ Ancillary::Data { .. } => panic!("{other:?}"),
            }
        }
        lengths.sort_unstable();
        assert_eq!(lengths, [1, 12]);
        drop(reader);
    });
}

#[test]
fn many_buffers_are_sent_in_one_message() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (left, right) =
            broker.socketpair(Domain::UNIX, Type::DGRAM, Protocol::DEFAULT).unwrap();
        let parts = vec![&b"x"[..]; 100];
        assert_eq!(left.send_msg(&parts, &[], Flags::NONE, None).unwrap(), 100);
        assert_eq!(right.recv(&mut [0; 200]).unwrap(), 100);
    });
}

#[test]
fn poll_reports_the_ready_socket() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        let (a, b) = broker.socketpair(Domain::UNIX, Type::DGRAM, Protocol::DEFAULT).unwrap();
        let (c, _d) = broker.socketpair(Domain::UNIX, Type::DGRAM, Protocol::DEFAULT).unwrap();
        let wanted = [(&c, Events::IN), (&b, Events::IN)];
        assert_eq!(broker.poll(&wanted, Some(Duration::ZERO)).unwrap(), []);
        a.send(b"x").unwrap();
        let ready = broker.poll(&wanted, None).unwrap();
        assert_eq!(ready.len(), 1);
        assert_eq!(ready[0].index, 1);
        assert!(ready[0].events.contains(Events::IN));
    });
}

#[test]
fn asynchronous_recv_from_returns_the_sender() {
    run(async |broker| {
        let left = asynchronous::Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::UDP)
            .await
            .unwrap();
        left.bind(("127.0.0.1", 0)).await.unwrap();
        let own = left.local_addr().await.unwrap();
        assert_eq!(left.send_to(b"me", &own).await.unwrap(), 2);
        let mut buffer = [0; 9];
        assert_eq!(left.recv_from(&mut buffer).await.unwrap(), (2, own));
        let infos = broker
            .getaddrinfo(
                Some("127.0.0.1"),
                Some(80),
                AddressHints { ty: Some(Type::STREAM), ..AddressHints::default() },
            )
            .await
            .unwrap();
        assert_eq!(infos.len(), 1);
        assert_eq!(infos[0].spec.protocol, Protocol::TCP);
        assert_eq!(infos[0].address, Address::host("127.0.0.1", 80));
    });
}
