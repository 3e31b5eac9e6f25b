//! Data, addresses and errors.

use std::io::IoSlice;
use std::os::fd::AsFd;

use super::super::*;
use crate::address::RawAddress;
use crate::option::set_int;
use crate::socket::connect;
use crate::testing::{assert_refused, errno, tcp_pair, udp_socket, unix_pair, wait};

#[test]
fn bytes_arrive_in_a_buffer_of_the_requested_length() {
    let (a, b) = unix_pair(libc::SOCK_STREAM);
    assert_eq!(send(a.as_fd(), b"hello", 0).unwrap(), 5);
    let first = receive(b.as_fd(), 3, 0).unwrap();
    assert_eq!((first.data.as_slice(), first.n), (b"hel".as_slice(), 3));
    let mut data = b"hel".to_vec();
    assert_eq!(receive_append(b.as_fd(), &mut data, 100, 0).unwrap(), 2);
    assert_eq!(data, b"hello");
    assert_eq!(errno(receive(b.as_fd(), 1, 0)), libc::EAGAIN);
    drop(a);
    assert_eq!(receive(b.as_fd(), 1, 0).unwrap().n, 0);
}

#[test]
fn empty_datagram_differs_from_no_datagram() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    assert_eq!(errno(receive(b.as_fd(), 10, 0)), libc::EAGAIN);
    assert_eq!(send(a.as_fd(), b"", 0).unwrap(), 0);
    assert_eq!(receive(b.as_fd(), 10, 0).unwrap().n, 0);
    assert_eq!(errno(receive(b.as_fd(), 10, 0)), libc::EAGAIN);
}

#[test]
fn msg_trunc_returns_the_length_of_a_truncated_datagram() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    send(a.as_fd(), b"0123456789", 0).unwrap();
    let message = receive(b.as_fd(), 4, libc::MSG_TRUNC).unwrap();
    assert_eq!((message.data.as_slice(), message.n), (b"0123".as_slice(), 10));
    send(a.as_fd(), b"0123456789", 0).unwrap();
    let message = receive_message(b.as_fd(), 4, 0, 0).unwrap();
    assert_eq!((message.data.as_slice(), message.n), (b"0123".as_slice(), 4));
    assert_eq!(message.flags, libc::MSG_TRUNC);
    send(a.as_fd(), b"0123456789", 0).unwrap();
    let message = receive_message(b.as_fd(), 0, 0, libc::MSG_TRUNC).unwrap();
    assert_eq!((message.data.as_slice(), message.n), (b"".as_slice(), 10));
}

#[test]
fn tcp_with_msg_trunc_returns_zeros_and_never_old_memory() {
    let (a, b) = tcp_pair();
    for _ in 0..3 {
        drop(vec![0xa5u8; 4096]);
        send(a.as_fd(), &[7; 4096], 0).unwrap();
        wait(b.as_fd(), libc::POLLIN);
        let message = receive(b.as_fd(), 4096, libc::MSG_TRUNC).unwrap();
        assert_eq!(message.data.len(), message.n);
        assert!(message.data.iter().all(|byte| *byte == 0), "tcp discards and writes nothing");
    }
}

#[test]
fn datagrams_have_a_sender() {
    let (a, from) = udp_socket();
    let (b, to) = udp_socket();
    assert_eq!(send_to(a.as_fd(), b"ping", 0, &to).unwrap(), 4);
    wait(b.as_fd(), libc::POLLIN);
    let message = receive_from(b.as_fd(), 100, 0).unwrap();
    assert_eq!(
        (message.data.as_slice(), message.n, message.address),
        (b"ping".as_slice(), 4, from)
    );
    let count =
        send_message(b.as_fd(), &[IoSlice::new(b"po"), IoSlice::new(b"ng")], &[], 0, Some(&from));
    assert_eq!(count.unwrap(), 4);
    wait(a.as_fd(), libc::POLLIN);
    let message = receive_message(a.as_fd(), 100, 0, 0).unwrap();
    assert_eq!((message.data.as_slice(), message.address), (b"pong".as_slice(), to));
    assert!(message.control.is_empty());
}

#[test]
fn a_stream_has_no_sender() {
    let (a, b) = tcp_pair();
    send(a.as_fd(), b"x", 0).unwrap();
    wait(b.as_fd(), libc::POLLIN);
    let message = receive_from(b.as_fd(), 1, 0).unwrap();
    assert_eq!(message.address.decode(0), None);
}

#[test]
fn sending_to_a_closed_peer_is_an_error_without_signal() {
    let (a, b) = unix_pair(libc::SOCK_STREAM);
    drop(b);
    assert_eq!(errno(send(a.as_fd(), b"x", 0)), libc::EPIPE);
    assert_eq!(errno(send_message(a.as_fd(), &[IoSlice::new(b"x")], &[], 0, None)), libc::EPIPE);
    let (udp, _) = udp_socket();
    assert_eq!(errno(send(udp.as_fd(), b"x", 0)), libc::EDESTADDRREQ);
    let none = RawAddress::default();
    assert_eq!(errno(send_to(udp.as_fd(), b"x", 0, &none)), libc::EDESTADDRREQ);
}

#[test]
fn kernel_refuses_a_too_long_datagram() {
    let (a, _b) = unix_pair(libc::SOCK_STREAM);
    let buffers = vec![IoSlice::new(b"x"); 1025];
    assert_eq!(errno(send_message(a.as_fd(), &buffers, &[], 0, None)), libc::EMSGSIZE);
    assert_eq!(send_message(a.as_fd(), &buffers[..1024], &[], 0, None).unwrap(), 1024);
    let (udp, to) = udp_socket();
    assert_eq!(errno(send_to(udp.as_fd(), &vec![0; 70_000], 0, &to)), libc::EMSGSIZE);
}

#[test]
fn an_impossible_length_is_an_error() {
    let (a, _b) = unix_pair(libc::SOCK_STREAM);
    assert_eq!(errno(receive(a.as_fd(), usize::MAX, 0)), libc::ENOMEM);
    assert_eq!(errno(receive_from(a.as_fd(), usize::MAX, 0)), libc::ENOMEM);
    assert_eq!(errno(receive_message(a.as_fd(), 1, usize::MAX, 0)), libc::ENOMEM);
    assert_eq!(errno(receive_batch(a.as_fd(), 1, usize::MAX, 0, 0)), libc::ENOMEM);
}

#[test]
fn buffers_that_outlive_the_call_are_refused() {
    let (udp, to) = udp_socket();
    let flags = libc::MSG_ZEROCOPY;
    let message = OutgoingMessage { buffers: &[], control: &[], address: Some(&to) };
    assert_eq!(errno(send(udp.as_fd(), b"x", flags)), libc::EOPNOTSUPP);
    assert_eq!(errno(send_to(udp.as_fd(), b"x", flags, &to)), libc::EOPNOTSUPP);
    assert_eq!(errno(send_message(udp.as_fd(), &[], &[], flags, Some(&to))), libc::EOPNOTSUPP);
    assert_eq!(errno(send_batch(udp.as_fd(), &[message], flags)), libc::EOPNOTSUPP);
}

#[test]
fn addresses_that_name_descriptors_are_refused() {
    let (udp, _) = udp_socket();
    let shared = RawAddress::from_bytes(&[44, 0, 1, 0]).unwrap();
    assert_refused(send_to(udp.as_fd(), b"x", 0, &shared));
    assert_refused(send_message(udp.as_fd(), &[], &[], 0, Some(&shared)));
    let message = OutgoingMessage { buffers: &[], control: &[], address: Some(&shared) };
    assert_refused(send_batch(udp.as_fd(), &[message], 0));
}

#[test]
fn network_error_is_returned_by_the_next_call() {
    let (a, _) = udp_socket();
    let (closed, gone) = udp_socket();
    drop(closed);
    connect(a.as_fd(), &gone).unwrap();
    set_int(a.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1).unwrap();
    send(a.as_fd(), b"x", 0).unwrap();
    wait(a.as_fd(), libc::POLLERR);
    assert_eq!(errno(receive(a.as_fd(), 1, 0)), libc::ECONNREFUSED);
    let message = receive_message(a.as_fd(), 10, 512, libc::MSG_ERRQUEUE).unwrap();
    assert_eq!(message.flags & libc::MSG_ERRQUEUE, libc::MSG_ERRQUEUE);
    assert_eq!((message.data.as_slice(), message.address), (b"x".as_slice(), gone));
}

#[test]
fn other_files_are_enotsock() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let fd = file.as_fd();
    assert_eq!(errno(receive(fd, 1, 0)), libc::ENOTSOCK);
    assert_eq!(errno(receive_from(fd, 1, 0)), libc::ENOTSOCK);
    assert_eq!(errno(receive_message(fd, 1, 0, 0)), libc::ENOTSOCK);
    assert_eq!(errno(receive_batch(fd, 1, 1, 0, 0)), libc::ENOTSOCK);
    assert_eq!(errno(send(fd, b"", 0)), libc::ENOTSOCK);
    assert_eq!(errno(send_message(fd, &[], &[], 0, None)), libc::ENOTSOCK);
}
