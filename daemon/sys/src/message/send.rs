//! Sends one message.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

use crate::address::RawAddress;
use crate::call::{check_size, invalid, message_header, retry};
use crate::control::{OutgoingControl, encode_control, refuse_numbers};

/// `send(2)`. Every send of this module refuses `MSG_ZEROCOPY` with `EOPNOTSUPP`: the kernel would
/// read the bytes after the call, when the buffer can belong to another message.
pub fn send(fd: BorrowedFd<'_>, data: &[u8], flags: i32) -> io::Result<usize> {
    let flags = sending(flags)?;
    retry(|| SockRef::from(&fd).send_with_flags(data, flags))
}

/// `sendto(2)`. An empty address means no address.
pub fn send_to(
    fd: BorrowedFd<'_>,
    data: &[u8],
    flags: i32,
    address: &RawAddress,
) -> io::Result<usize> {
    let flags = sending(flags)?;
    refuse_descriptor(Some(address))?;
    let (name, length) = address.argument();
    let start = data.as_ptr().cast();
    retry(|| {
        // SAFETY: `start` points to `data.len()` and `name` to `length` initialised bytes, both
        // borrowed for the call; the kernel only reads them, and not after it (no MSG_ZEROCOPY).
        check_size(unsafe { libc::sendto(fd.as_raw_fd(), start, data.len(), flags, name, length) })
    })
}

/// `sendmsg(2)`. `InvalidInput` for ancillary data that contains pointers or descriptor numbers
/// ([`carries_pointer_or_descriptor`](crate::control::carries_pointer_or_descriptor)); `EMSGSIZE` for
/// more than 1024 buffers.
pub fn send_message(
    fd: BorrowedFd<'_>,
    buffers: &[IoSlice<'_>],
    control: &[OutgoingControl<'_>],
    flags: i32,
    address: Option<&RawAddress>,
) -> io::Result<usize> {
    let flags = sending(flags)?;
    refuse_descriptor(address)?;
    refuse_numbers(control)?;
    let mut control = encode_control(control);
    let header = outgoing_header(buffers, &mut control, address);
    retry(|| {
        // SAFETY: `header` points to `buffers`, `control` and `address`, which are initialised,
        // outlive the call and are only read; `control` names descriptors borrowed by the caller.
        check_size(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) })
    })
}

/// A header for a message to send; valid while its three parts are. The kernel only reads them.
pub(super) fn outgoing_header(
    buffers: &[IoSlice<'_>],
    control: &mut [u8],
    address: Option<&RawAddress>,
) -> libc::msghdr {
    let (name, length) = address.map_or((std::ptr::null(), 0), RawAddress::argument);
    // IoSlice is documented to have the layout of iovec.
    let start = buffers.as_ptr().cast::<libc::iovec>().cast_mut();
    message_header(
        (name.cast_mut().cast(), length),
        (start, buffers.len()),
        (control.as_mut_ptr().cast(), control.len()),
    )
}

/// The flags of every send: the caller's, without `MSG_ZEROCOPY`. `MSG_NOSIGNAL` is
/// not added: some families refuse flags that they do not know (`qrtr_sendmsg`, `rds_sendmsg`).
pub(super) fn sending(flags: i32) -> io::Result<i32> {
    if flags & libc::MSG_ZEROCOPY != 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(flags)
}

/// Fails if the address names a descriptor ([`RawAddress::names_descriptor`]).
pub(super) fn refuse_descriptor(address: Option<&RawAddress>) -> io::Result<()> {
    if address.is_some_and(RawAddress::names_descriptor) {
        return Err(invalid("the address names a descriptor by its number"));
    }
    Ok(())
}
