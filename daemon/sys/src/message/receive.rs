//! Receives one message into buffers of the sizes that the caller gives.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

use crate::address::RawAddress;
use crate::call::{check_size, message_header, retry, socklen, spare, zeroed};
use crate::control::{self, ControlMessage};

/// The result of [`receive`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The bytes that fitted. The capacity is the requested length.
    pub data: Vec<u8>,
    /// The kernel's result: with `MSG_TRUNC` it can exceed the length of `data`; 0 at the end of a stream.
    pub n: usize,
}

/// The result of [`receive_from`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedFrom {
    /// The bytes that fitted.
    pub data: Vec<u8>,
    /// The kernel's result, as in [`Received::n`].
    pub n: usize,
    /// The sender; empty if the kernel reported none.
    pub address: RawAddress,
}

/// The result of [`receive_message`].
#[derive(Debug)]
pub struct ReceivedMessage {
    /// The bytes that fitted.
    pub data: Vec<u8>,
    /// The kernel's result, as in [`Received::n`].
    pub n: usize,
    /// Ancillary data; received descriptors are close-on-exec.
    pub control: Vec<ControlMessage>,
    /// `msg_flags`: `MSG_TRUNC`, `MSG_CTRUNC`, `MSG_EOR`, `MSG_OOB`, `MSG_ERRQUEUE`. The kernel's
    /// echo of `MSG_CMSG_CLOEXEC` is cleared.
    pub flags: i32,
    /// The sender; empty if the kernel reported none.
    pub address: RawAddress,
}

/// `recv(2)` of at most `length` bytes.
pub fn receive(fd: BorrowedFd<'_>, length: usize, flags: i32) -> io::Result<Received> {
    let mut data = Vec::new();
    let n = receive_append(fd, &mut data, length, flags)?;
    Ok(Received { data, n })
}

/// `recv(2)` of at most `length` bytes, appended to `data`. Returns the kernel's
/// result, which with `MSG_TRUNC` can exceed the number of appended bytes.
pub fn receive_append(
    fd: BorrowedFd<'_>,
    data: &mut Vec<u8>,
    length: usize,
    flags: i32,
) -> io::Result<usize> {
    let buffer = spare(data, length, flags)?;
    let n = retry(|| SockRef::from(&fd).recv_with_flags(buffer, flags))?;
    // SAFETY: the kernel has written `n` bytes after those of `data`, or all `length` of them if
    // it returned more; with MSG_TRUNC all `length` bytes were initialised before.
    unsafe { extend_initialised(data, n.min(length)) };
    Ok(n)
}

/// Takes at most `length` bytes of a TCP stream out of its queue without copying them (`MSG_TRUNC` of tcp(7)). Does not
/// wait. `EFAULT` for a socket whose data the kernel copies even so.
pub fn discard(fd: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    retry(|| {
        // SAFETY: the call takes no pointer. The kernel never writes to the null pointer: it fails with EFAULT.
        check_size(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), length, flags) })
    })
}

/// `recvfrom(2)` of at most `length` bytes.
pub fn receive_from(fd: BorrowedFd<'_>, length: usize, flags: i32) -> io::Result<ReceivedFrom> {
    let mut data = Vec::new();
    let buffer = spare(&mut data, length, flags)?.as_mut_ptr().cast();
    let (n, address) = RawAddress::filled_by(|name, size| {
        retry(|| {
            // SAFETY: `buffer` points to `length` writable bytes of the capacity of `data`; `name`
            // to `*size` writable bytes and `size` to an initialised integer of `filled_by`. All
            // live for the call, and the kernel writes no more than these lengths.
            check_size(unsafe { libc::recvfrom(fd.as_raw_fd(), buffer, length, flags, name, size) })
        })
    })?;
    // SAFETY: the kernel has written `n` bytes to `buffer`, or all `length` of them if it returned
    // more; with MSG_TRUNC all `length` bytes were initialised before.
    unsafe { extend_initialised(&mut data, n.min(length)) };
    Ok(ReceivedFrom { data, n, address })
}

/// `recvmsg(2)` of at most `length` bytes and exactly `control_length` bytes for ancillary data, so
/// that only the kernel truncates them.
///
/// Callers pass `MSG_CMSG_CLOEXEC` if the family knows it (`AF_UNIX` does; `AF_PACKET` refuses it);
/// without it, the function sets close-on-exec on the descriptors after the call.
pub fn receive_message(
    fd: BorrowedFd<'_>,
    length: usize,
    control_length: usize,
    flags: i32,
) -> io::Result<ReceivedMessage> {
    let mut slot = Slot::new(length, control_length, flags)?;
    let mut buffer = slot.buffer();
    let mut header = slot.header(&mut buffer);
    let n = retry(|| {
        // SAFETY: `header` and all it points to (`slot` and `buffer`) live until after the call and
        // are initialised but for the data, which the kernel only writes, within the lengths given.
        check_size(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })
    })?;
    // SAFETY: `recvmsg` has just filled `slot` through `header` and returned `n`.
    unsafe { slot.finish(n, &header) }
}

/// The buffers of one message, which the kernel fills.
pub(super) struct Slot {
    data: Vec<u8>,
    length: usize,
    control: Vec<u8>,
    address: RawAddress,
}

impl Slot {
    /// Allocates buffers of these sizes; `ENOMEM` if there is not enough memory.
    pub(super) fn new(length: usize, control_length: usize, flags: i32) -> io::Result<Self> {
        let mut data = Vec::new();
        spare(&mut data, length, flags)?;
        let control = zeroed(control_length)?;
        Ok(Self { data, length, control, address: RawAddress::default() })
    }

    /// The data buffer, valid until the slot is finished or dropped; the slot may be moved.
    pub(super) fn buffer(&mut self) -> libc::iovec {
        libc::iovec {
            iov_base: self.data.spare_capacity_mut().as_mut_ptr().cast(),
            iov_len: self.length,
        }
    }

    /// A header for the slot and `buffer`; valid while neither is moved or accessed.
    pub(super) fn header(&mut self, buffer: &mut libc::iovec) -> libc::msghdr {
        let capacity = socklen(crate::address::CAPACITY);
        message_header(
            (self.address.storage(), capacity),
            (buffer, 1),
            (self.control.as_mut_ptr().cast(), self.control.len()),
        )
    }

    /// The message that the kernel has written into the slot.
    ///
    /// # Safety
    /// A receiving call must have returned `n` for this slot and `header`, with the
    /// flags that were passed to [`Slot::new`].
    pub(super) unsafe fn finish(
        mut self,
        n: usize,
        header: &libc::msghdr,
    ) -> io::Result<ReceivedMessage> {
        // SAFETY: by the contract the kernel has written `n` bytes to the data buffer, or all
        // `length` of them if it returned more; with MSG_TRUNC `new` has initialised all of them.
        unsafe { extend_initialised(&mut self.data, n.min(self.length)) };
        self.address.set_length(header.msg_namelen);
        let control = self.control.get(..header.msg_controllen).unwrap_or_default();
        let close_on_exec = header.msg_flags & libc::MSG_CMSG_CLOEXEC != 0;
        // SAFETY: by the contract the kernel has just filled these bytes; the slot is consumed, so
        // they are decoded once.
        let control = unsafe { control::decode(control, close_on_exec) }?;
        let flags = header.msg_flags & !libc::MSG_CMSG_CLOEXEC;
        Ok(ReceivedMessage { data: self.data, n, control, flags, address: self.address })
    }
}

/// Adds the `count` bytes after the end of `data` to its length.
///
/// # Safety
/// They must be within the capacity and initialised.
unsafe fn extend_initialised(data: &mut Vec<u8>, count: usize) {
    let length = data.len().saturating_add(count);
    // SAFETY: the caller guarantees capacity and initialisation.
    unsafe { data.set_len(length) };
}
