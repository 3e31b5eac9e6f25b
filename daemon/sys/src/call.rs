//! Helpers for all system calls of this crate: results, `EINTR` and buffers.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Turns the -1 of a system call into its errno.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Like [`check`], for calls that return a length.
pub(crate) fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_negative| io::Error::last_os_error())
}

/// Repeats a call while a signal interrupts it. Only for calls that have no effect when interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// An error that this crate detects before any system call: kind `InvalidInput`, no errno.
pub(crate) fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Reserves `length` bytes after the contents of `data` and returns exactly these.
///
/// Fails with `ENOMEM` instead of aborting the process: the length comes from a peer. The bytes are
/// uninitialised, except with `MSG_TRUNC`, where TCP reports bytes that it never wrote (`tcp(7)`),
/// and `MSG_SOCK_DEVMEM`, where the bytes stay in device memory.
pub(crate) fn spare(
    data: &mut Vec<u8>,
    length: usize,
    flags: i32,
) -> io::Result<&mut [MaybeUninit<u8>]> {
    reserve(data, length)?;
    let spare = data.spare_capacity_mut().get_mut(..length).unwrap_or_default();
    if flags & (libc::MSG_TRUNC | MSG_SOCK_DEVMEM) != 0 {
        spare.fill(MaybeUninit::new(0));
    }
    Ok(spare)
}

/// A buffer of zeros, for calls that fill it only in part.
pub(crate) fn zeroed(length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    reserve(&mut buffer, length)?;
    buffer.resize(length, 0);
    Ok(buffer)
}

fn reserve(data: &mut Vec<u8>, length: usize) -> io::Result<()> {
    data.try_reserve(length).map_err(|_too_much| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// A message header (`recvmsg(2)`) over buffers that the caller keeps alive and in place.
pub(crate) fn message_header(
    name: (*mut libc::c_void, libc::socklen_t),
    buffers: (*mut libc::iovec, usize),
    control: (*mut libc::c_void, usize),
) -> libc::msghdr {
    libc::msghdr {
        msg_name: name.0,
        msg_namelen: name.1,
        msg_iov: buffers.0,
        msg_iovlen: buffers.1,
        msg_control: if control.1 == 0 { ptr::null_mut() } else { control.0 },
        msg_controllen: control.1,
        msg_flags: 0,
    }
}

/// A length as `socklen_t`, saturated: a length that does not fit is too long for any call.
pub(crate) fn socklen(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).unwrap_or(libc::socklen_t::MAX)
}

/// `linux/socket.h` of the kernel, since Linux 6.12; not in the libc crate.
const MSG_SOCK_DEVMEM: i32 = 0x200_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_length_is_enomem_and_does_not_abort() {
        let mut data = b"kept".to_vec();
        let error = spare(&mut data, usize::MAX, 0).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(zeroed(usize::MAX - 1).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(data, b"kept");
    }

    #[test]
    fn spare_capacity_has_exactly_the_requested_length() {
        let mut data = Vec::with_capacity(1000);
        assert_eq!(spare(&mut data, 10, 0).unwrap().len(), 10);
        assert_eq!(spare(&mut data, 5000, 0).unwrap().len(), 5000);
        assert_eq!(spare(&mut data, 0, 0).unwrap().len(), 0);
    }

    #[test]
    fn only_an_interrupted_call_is_repeated() {
        let mut errors = vec![libc::EAGAIN, libc::EINTR, libc::EINTR];
        let result = retry(|| match errors.pop() {
            Some(errno) => Err::<(), _>(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        });
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        assert!(errors.is_empty());
    }
}
