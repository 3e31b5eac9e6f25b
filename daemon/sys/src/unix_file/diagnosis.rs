//! The file that a socket is bound to, as `sock_diag(7)` reports it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::stat::{fstat, major, minor};

use crate::address::RawAddress;
use crate::{message, socket};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
/// `UDIAG_SHOW_VFS` and `UNIX_DIAG_VFS` of `linux/unix_diag.h`.
const SHOW_FILE: u32 = 2;
const FILE: u16 = 1;
/// `struct nlmsghdr` and `struct unix_diag_msg`.
const HEADER: usize = 16;
const MESSAGE: usize = 16;
/// The size of the buffer; longer than the answer about one socket.
const ANSWER: usize = 4096;

/// Device and inode number: the identity of a file, independent of its name.
pub type FileId = (u64, u64);

/// A file in the form of `sock_diag(7)`: the low half of the inode number, and the kernel's device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundFile {
    inode: u32,
    device: u32,
}

impl BoundFile {
    /// Converts the device and inode of `stat(2)`.
    pub fn of((device, inode): FileId) -> Self {
        // MKDEV of the kernel: twelve bits for the major number, twenty for the minor.
        let device = major(device) << 20 | minor(device);
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
        Self { inode: low(inode), device: low(device) }
    }
}

/// The file that a socket is bound to; `None` for an unbound socket. Fails if the kernel does
/// not have the module `unix_diag`.
pub fn bound_file(of: BorrowedFd<'_>) -> io::Result<Option<BoundFile>> {
    let kernel = socket::create(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)?;
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    let inode = low(fstat(of)?.st_ino);
    let family = u8::try_from(libc::AF_UNIX).unwrap_or_default();
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie (any).
    let request = [
        &[family, 0, 0, 0][..],
        &u32::MAX.to_ne_bytes(),
        &inode.to_ne_bytes(),
        &SHOW_FILE.to_ne_bytes(),
        &[0xff; 8],
    ]
    .concat();
    let length = u32::try_from(HEADER + request.len()).unwrap_or_default();
    let head =
        [&length.to_ne_bytes()[..], &BY_FAMILY.to_ne_bytes(), &REQUEST.to_ne_bytes(), &[0; 8]]
            .concat();
    let to_kernel =
        RawAddress::encode(&sockbroker_proto::address::Address::Netlink { pid: 0, groups: 0 });
    message::send_to(kernel.as_fd(), &[head, request].concat(), 0, &to_kernel)?;
    let answer = message::receive(kernel.as_fd(), ANSWER, 0)?.data;
    read(&answer)
}

/// The file in an answer.
fn read(answer: &[u8]) -> io::Result<Option<BoundFile>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = answer.get(4..6).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
    if u16::from_ne_bytes(*kind) != BY_FAMILY {
        // NLMSG_ERROR: a negative errno.
        let errno = word(answer, HEADER).ok_or_else(short)?.cast_signed();
        return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
    }
    let mut rest = answer.get(HEADER + MESSAGE..).ok_or_else(short)?;
    // struct nlattr: length with this header, type; then padding to four bytes.
    while let (Some(length), Some(kind)) =
        (rest.get(..2).and_then(<[u8]>::first_chunk), rest.get(2..4).and_then(<[u8]>::first_chunk))
    {
        let (length, kind) = (usize::from(u16::from_ne_bytes(*length)), u16::from_ne_bytes(*kind));
        if kind == FILE {
            let (inode, device) = (word(rest, 4), word(rest, 8));
            return Ok(inode.zip(device).map(|(inode, device)| BoundFile { inode, device }));
        }
        rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}
