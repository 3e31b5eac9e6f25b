//! Several messages in one call: `recvmmsg(2)` and `sendmmsg(2)`.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::receive::{ReceivedMessage, Slot};
use super::send::{outgoing_header, refuse_descriptor, sending};
use crate::address::RawAddress;
use crate::call::{check, invalid, retry};
use crate::control::{OutgoingControl, encode_control, refuse_numbers};

/// The maximum number of messages of one call: the kernel's `UIO_MAXIOV`.
pub const BATCH_MAX: usize = 1024;

/// A message for [`send_batch`].
#[derive(Debug, Clone, Copy)]
pub struct OutgoingMessage<'a> {
    /// The data, gathered from these buffers.
    pub buffers: &'a [IoSlice<'a>],
    pub control: &'a [OutgoingControl<'a>],
    /// The destination; `None` for a connected socket.
    pub address: Option<&'a RawAddress>,
}

/// Receives up to `count` messages (`InvalidInput` above [`BATCH_MAX`]), each as
/// [`receive_message`](super::receive_message) does. The kernel returns an error after the first message
/// from the next call. Without `MSG_DONTWAIT` or `MSG_WAITFORONE` the call waits for all messages.
pub fn receive_batch(
    fd: BorrowedFd<'_>,
    count: usize,
    length: usize,
    control_length: usize,
    flags: i32,
) -> io::Result<Vec<ReceivedMessage>> {
    let vector = vector_length(count)?;
    let slots = (0..count).map(|_| Slot::new(length, control_length, flags));
    let mut slots = slots.collect::<io::Result<Vec<_>>>()?;
    let mut buffers: Vec<_> = slots.iter_mut().map(Slot::buffer).collect();
    let pairs = slots.iter_mut().zip(&mut buffers);
    let mut headers: Vec<_> = pairs.map(|(slot, buffer)| counted(slot.header(buffer))).collect();
    let start = headers.as_mut_ptr();
    let taken = retry(|| {
        // SAFETY: `start` points to `vector` initialised headers, whose pointers point into `slots`
        // and `buffers`; all live until after the call and are not moved. The kernel writes within
        // the lengths in the headers. No timeout is given.
        check(unsafe { libc::recvmmsg(fd.as_raw_fd(), start, vector, flags, ptr::null_mut()) })
    })?;
    let taken = usize::try_from(taken).unwrap_or(0);
    slots
        .into_iter()
        .zip(&headers)
        .take(taken)
        .map(|(slot, header)| {
            let n = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
            // SAFETY: `recvmmsg` has just filled the first `taken` slots through their headers.
            unsafe { slot.finish(n, &header.msg_hdr) }
        })
        .collect()
}

/// Sends messages (`InvalidInput` for more than [`BATCH_MAX`]), each as
/// [`send_message`](super::send_message) does, until one fails. Returns the number of bytes of each message
/// that the kernel accepted; an error only if the first message failed.
pub fn send_batch(
    fd: BorrowedFd<'_>,
    messages: &[OutgoingMessage<'_>],
    flags: i32,
) -> io::Result<Vec<usize>> {
    let vector = vector_length(messages.len())?;
    let flags = sending(flags)?;
    for message in messages {
        refuse_descriptor(message.address)?;
        refuse_numbers(message.control)?;
    }
    let encoded = messages.iter().map(|message| encode_control(message.control));
    let mut controls: Vec<_> = encoded.collect();
    let pairs = messages.iter().zip(&mut controls);
    let outgoing = pairs.map(|(message, control)| {
        counted(outgoing_header(message.buffers, control, message.address))
    });
    let mut headers: Vec<_> = outgoing.collect();
    let start = headers.as_mut_ptr();
    let accepted = retry(|| {
        // SAFETY: `start` points to `vector` initialised headers, whose pointers point into
        // `messages` and `controls`; all outlive the call. The kernel reads them and writes only
        // `msg_len`.
        check(unsafe { libc::sendmmsg(fd.as_raw_fd(), start, vector, flags) })
    })?;
    let accepted = usize::try_from(accepted).unwrap_or(0);
    let lengths = headers.iter().take(accepted);
    Ok(lengths.map(|header| usize::try_from(header.msg_len).unwrap_or(usize::MAX)).collect())
}

fn counted(msg_hdr: libc::msghdr) -> libc::mmsghdr {
    libc::mmsghdr { msg_hdr, msg_len: 0 }
}

fn vector_length(count: usize) -> io::Result<libc::c_uint> {
    if count > BATCH_MAX {
        return Err(invalid("more than 1024 messages in one call"));
    }
    libc::c_uint::try_from(count).map_err(io::Error::other)
}
