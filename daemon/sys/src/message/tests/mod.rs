//! Tests of sending and receiving on real sockets.

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{ReceivedMessage, send_message};
use crate::control::{ControlMessage, OutgoingControl};

mod transfer;
mod ancillary;
mod batches;

/// Room for one descriptor.
pub(super) const RIGHTS_ROOM: usize = 24;

/// The descriptors of a message that has no other ancillary data.
pub(super) fn descriptors_in(message: &ReceivedMessage) -> &[OwnedFd] {
    match message.control.as_slice() {
        [ControlMessage::Descriptors { descriptors, rest }] => {
            assert!(rest.is_empty());
            descriptors
        }
        other => panic!("received {other:?}"),
    }
}

/// Sends descriptors with one byte.
pub(super) fn send_descriptors(fd: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) {
    let rights = OutgoingControl::Descriptors { descriptors, rest: &[] };
    assert_eq!(send_message(fd, &[IoSlice::new(b"x")], &[rights], 0, None).unwrap(), 1);
}
