//! Ancillary data.

use std::io::{IoSlice, Read as _};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::super::*;
use super::{RIGHTS_ROOM, descriptors_in, send_descriptors};
use crate::control::{ControlMessage, OutgoingControl, cmsg_len, cmsg_space};
use crate::option::set_int;
use crate::testing::{assert_refused, errno, udp_socket, unix_pair, wait};

#[test]
fn descriptors_arrive_close_on_exec_with_any_flags() {
    for flags in [0, libc::MSG_CMSG_CLOEXEC] {
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        let (mut read, write) = std::io::pipe().unwrap();
        send_descriptors(a.as_fd(), &[write.as_fd()]);
        drop(write);
        let message = receive_message(b.as_fd(), 10, RIGHTS_ROOM, flags).unwrap();
        assert_eq!(message.flags, 0, "the kernel's echo must be cleared");
        let [descriptor] = descriptors_in(&message) else { panic!("not one descriptor") };
        let bits = FdFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFD).unwrap());
        assert!(bits.contains(FdFlag::FD_CLOEXEC));
        drop(message);
        // All write ends are closed now, so the pipe is at its end.
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn kernel_truncates_ancillary_data_to_the_requested_room() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    let null = std::fs::File::open("/dev/null").unwrap();
    let room = |n: usize| cmsg_len(n).unwrap();
    let cases = [(0, 0), (15, 0), (room(0), 0), (room(1), 0), (room(4), 1), (room(7), 1)];
    for (control_length, count) in cases {
        send_descriptors(a.as_fd(), &[null.as_fd(), null.as_fd()]);
        let message = receive_message(b.as_fd(), 10, control_length, 0).unwrap();
        assert_eq!(message.flags, libc::MSG_CTRUNC, "room for {control_length} bytes");
        let received: usize = match message.control.as_slice() {
            [] => 0,
            _ => descriptors_in(&message).len(),
        };
        assert_eq!(received, count, "room for {control_length} bytes");
    }
    send_descriptors(a.as_fd(), &[null.as_fd(), null.as_fd()]);
    let message = receive_message(b.as_fd(), 10, cmsg_space(8).unwrap(), 0).unwrap();
    assert_eq!((message.flags, descriptors_in(&message).len()), (0, 2));
}

#[test]
fn odd_bytes_after_descriptors_do_not_arrive() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    let rights = OutgoingControl::Descriptors { descriptors: &[a.as_fd()], rest: b"xy" };
    send_message(a.as_fd(), &[], &[rights], 0, None).unwrap();
    let message = receive_message(b.as_fd(), 10, 64, 0).unwrap();
    assert_eq!(descriptors_in(&message).len(), 1);
}

#[test]
fn other_ancillary_data_arrives_as_bytes() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    set_int(b.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
    send(a.as_fd(), b"x", 0).unwrap();
    let message = receive_message(b.as_fd(), 10, 100, 0).unwrap();
    let [ControlMessage::Data { level, kind, data }] = message.control.as_slice() else {
        panic!("received {:?}", message.control);
    };
    assert_eq!((*level, *kind, data.len()), (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, 12));
    assert_eq!(data[..4], std::process::id().to_ne_bytes());
    // Half the credentials: the kernel truncates the data and sets MSG_CTRUNC.
    send(a.as_fd(), b"x", 0).unwrap();
    let message = receive_message(b.as_fd(), 10, cmsg_len(6).unwrap(), 0).unwrap();
    assert_eq!(message.flags, libc::MSG_CTRUNC);
    assert!(matches!(
        message.control.as_slice(),
        [ControlMessage::Data { data, .. }] if data.len() == 6
    ));
}

#[test]
fn raw_descriptor_numbers_are_never_sent() {
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    let forged = OutgoingControl::Data {
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        data: &0i32.to_ne_bytes(),
    };
    assert_refused(send_message(a.as_fd(), &[IoSlice::new(b"x")], &[forged], 0, None));
    let message = OutgoingMessage { buffers: &[], control: &[forged], address: None };
    assert_refused(send_batch(a.as_fd(), &[message], 0));
    assert_eq!(errno(receive(b.as_fd(), 1, 0)), libc::EAGAIN);
}

#[test]
fn packet_information_arrives_as_ancillary_data() {
    let (a, _) = udp_socket();
    let (b, to) = udp_socket();
    set_int(b.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1).unwrap();
    send_to(a.as_fd(), b"x", 0, &to).unwrap();
    wait(b.as_fd(), libc::POLLIN);
    let message = receive_message(b.as_fd(), 10, 64, 0).unwrap();
    assert!(matches!(
        message.control.as_slice(),
        [ControlMessage::Data { level: libc::IPPROTO_IP, kind: libc::IP_PKTINFO, data }]
            if data.len() == 12
    ));
}
