//! Several messages in one call.

use std::io::{IoSlice, Read as _};
use std::os::fd::AsFd;

use sockbroker_proto::address::Address;

use super::super::*;
use super::{RIGHTS_ROOM, descriptors_in};
use crate::address::RawAddress;
use crate::control::OutgoingControl;
use crate::testing::{assert_refused, errno, udp_socket, unix_pair, wait};

#[test]
fn batches_keep_message_boundaries() {
    let (a, from) = udp_socket();
    let (b, to) = udp_socket();
    let first = [IoSlice::new(b"first")];
    let second = [IoSlice::new(b"sec"), IoSlice::new(b"ond")];
    let messages = [
        OutgoingMessage { buffers: &first, control: &[], address: Some(&to) },
        OutgoingMessage { buffers: &second, control: &[], address: Some(&to) },
        OutgoingMessage { buffers: &[], control: &[], address: Some(&to) },
    ];
    assert_eq!(send_batch(a.as_fd(), &messages, 0).unwrap(), [5, 6, 0]);
    wait(b.as_fd(), libc::POLLIN);
    let received = receive_batch(b.as_fd(), 10, 4, 0, libc::MSG_TRUNC).unwrap();
    let seen: Vec<_> = received.iter().map(|m| (m.data.as_slice(), m.n, m.address)).collect();
    assert_eq!(seen, [(&b"firs"[..], 5, from), (&b"seco"[..], 6, from), (&b""[..], 0, from)]);
    assert_eq!(errno(receive_batch(b.as_fd(), 10, 4, 0, 0)), libc::EAGAIN);
}

#[test]
fn batches_carry_descriptors() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    let (mut read, write) = std::io::pipe().unwrap();
    let descriptors = [write.as_fd()];
    let rights = [OutgoingControl::Descriptors { descriptors: &descriptors, rest: &[] }];
    let message =
        OutgoingMessage { buffers: &[IoSlice::new(b"x")], control: &rights, address: None };
    assert_eq!(send_batch(a.as_fd(), &[message, message], 0).unwrap(), [1, 1]);
    drop(write);
    let received = receive_batch(b.as_fd(), 5, 10, RIGHTS_ROOM, 0).unwrap();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|message| descriptors_in(message).len() == 1));
    drop(received);
    assert_eq!(read.read(&mut [0]).unwrap(), 0);
}

#[test]
fn batch_above_the_limit_is_refused() {
    let (udp, to) = udp_socket();
    assert_refused(receive_batch(udp.as_fd(), BATCH_MAX + 1, 1, 0, 0));
    let message = OutgoingMessage { buffers: &[], control: &[], address: Some(&to) };
    assert_refused(send_batch(udp.as_fd(), &vec![message; BATCH_MAX + 1], 0));
    assert!(send_batch(udp.as_fd(), &[], 0).unwrap().is_empty());
    assert!(receive_batch(udp.as_fd(), 0, 1, 0, 0).unwrap().is_empty());
}

#[test]
fn batch_ends_at_the_first_failure() {
    let (a, _b) = unix_pair(libc::SOCK_DGRAM);
    let nowhere = RawAddress::encode(&Address::UnixPath(b"/nonexistent/socket".to_vec()));
    let good = OutgoingMessage { buffers: &[IoSlice::new(b"x")], control: &[], address: None };
    let bad = OutgoingMessage { address: Some(&nowhere), ..good };
    assert_eq!(send_batch(a.as_fd(), &[good, bad, good], 0).unwrap(), [1]);
    assert_eq!(errno(send_batch(a.as_fd(), &[bad, good], 0)), libc::ENOENT);
}
