//! Ancillary data (`cmsg(3)`): lengths, an encoder, and a decoder that owns the received descriptors.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::call::invalid;

/// One received item of ancillary data.
#[derive(Debug)]
pub enum ControlMessage {
    /// Any item except descriptors.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
        /// The bytes that arrived; truncated at the end of the buffer.
        data: Vec<u8>,
    },
    /// `SCM_RIGHTS` (`unix(7)`): descriptors, close-on-exec, owned by the receiver.
    Descriptors {
        /// The descriptors in the sender's order.
        descriptors: Vec<OwnedFd>,
        /// Odd bytes at the end of a truncated item.
        rest: Vec<u8>,
    },
}

/// An item of ancillary data to send.
#[derive(Debug, Clone, Copy)]
pub enum OutgoingControl<'a> {
    /// Any item except descriptors.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
        data: &'a [u8],
    },
    /// `SCM_RIGHTS`: the kernel duplicates the descriptors for the receiver.
    Descriptors {
        /// At most 253; the kernel answers `EINVAL` for more.
        descriptors: &'a [BorrowedFd<'a>],
        /// Odd bytes after the last number; the kernel ignores them.
        rest: &'a [u8],
    },
}

/// `struct cmsghdr`: length including this header, level, type.
const HEADER: usize = size_of::<libc::cmsghdr>();
/// `SOCKLEN_T_LIMIT` of CPython's `Modules/socketmodule.c`.
const LIMIT: usize = 0x7fff_ffff;

/// `CMSG_LEN`: header and `n` bytes. `None` where CPython raises `OverflowError` (`get_CMSG_LEN`).
pub fn cmsg_len(n: usize) -> Option<usize> {
    (n <= LIMIT.saturating_sub(HEADER)).then(|| HEADER.saturating_add(n))
}

/// `CMSG_SPACE`: header, `n` bytes and padding. `None` where CPython raises `OverflowError`
/// (`get_CMSG_SPACE`).
pub fn cmsg_space(n: usize) -> Option<usize> {
    let space = |n: usize| HEADER.checked_add(n)?.checked_next_multiple_of(align_of::<usize>());
    let most = LIMIT.checked_sub(space(1)?)?;
    if n > most { None } else { space(n) }
}

/// Whether an item to send contains a pointer into the calling process or the number of a descriptor:
/// `SCM_RIGHTS` as raw bytes, device memory, and the memory operations of RDS (`linux/rds.h`).
/// Sends refuse such items; descriptors are sent as [`OutgoingControl::Descriptors`].
pub fn carries_pointer_or_descriptor(level: i32, kind: i32) -> bool {
    const SOL_RDS: i32 = 276;
    match level {
        libc::SOL_SOCKET => {
            matches!(kind, libc::SCM_RIGHTS | libc::SCM_DEVMEM_LINEAR | libc::SCM_DEVMEM_DMABUF)
        }
        // RDS_CMSG_RDMA_ARGS, RDMA_DEST, RDMA_MAP; ATOMIC_*, MASKED_ATOMIC_*; ZCOPY_COOKIE.
        SOL_RDS => matches!(kind, 1..=3 | 6..=9 | 12),
        _ => false,
    }
}

/// Fails with `InvalidInput` if an item must not be sent ([`carries_pointer_or_descriptor`]).
pub(crate) fn refuse_numbers(items: &[OutgoingControl<'_>]) -> io::Result<()> {
    let refused = items.iter().any(|item| match item {
        OutgoingControl::Data { level, kind, .. } => carries_pointer_or_descriptor(*level, *kind),
        OutgoingControl::Descriptors { .. } => false,
    });
    if refused {
        return Err(invalid("the ancillary data contains a pointer or a descriptor number"));
    }
    Ok(())
}

/// Encodes items for `msg_control`, each padded to its `CMSG_SPACE`.
pub fn encode_control(items: &[OutgoingControl<'_>]) -> Vec<u8> {
    let mut control = Vec::new();
    for item in items {
        match item {
            OutgoingControl::Data { level, kind, data } => {
                put_item(&mut control, *level, *kind, data);
            }
            OutgoingControl::Descriptors { descriptors, rest } => {
                let numbers = descriptors.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
                let data: Vec<u8> = numbers.chain(rest.iter().copied()).collect();
                put_item(&mut control, libc::SOL_SOCKET, libc::SCM_RIGHTS, &data);
            }
        }
    }
    control
}

fn put_item(control: &mut Vec<u8>, level: i32, kind: i32, data: &[u8]) {
    control.extend(HEADER.saturating_add(data.len()).to_ne_bytes());
    control.extend(level.to_ne_bytes());
    control.extend(kind.to_ne_bytes());
    control.extend(data);
    control.resize(control.len().next_multiple_of(align_of::<usize>()), 0);
}

/// The position of one item in a control buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `cmsg_level`.
    pub level: i32,
    /// `cmsg_type`.
    pub kind: i32,
    /// The range of the data in the buffer.
    pub data: Range<usize>,
}

/// The items of a control buffer, in order.
///
/// Stops as CPython's `sock_recvmsg_guts` does: before an item whose header does not fit or whose
/// length is impossible, and after an item whose data is truncated. Accepts any bytes.
pub fn items(control: &[u8]) -> Items<'_> {
    Items { control, next: 0 }
}

/// The iterator that [`items`] returns.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    control: &'a [u8],
    next: usize,
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let rest = self.control.get(self.next..)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        let (level, kind) = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind));
        let start = self.next.checked_add(HEADER)?;
        let end = start.saturating_add(length.checked_sub(HEADER)?).min(self.control.len());
        let step = length.checked_next_multiple_of(align_of::<usize>());
        self.next = step.and_then(|step| self.next.checked_add(step)).unwrap_or(usize::MAX);
        Some(Item { level, kind, data: start..end })
    }
}

/// Decodes a control buffer into messages, which own the descriptors in it. Sets close-on-exec on the
/// descriptors unless `close_on_exec` states that the kernel has done so (`MSG_CMSG_CLOEXEC`).
///
/// Closes a process descriptor (`SCM_PIDFD`), which a socket sends along if a client received it with
/// `SO_PASSPIDFD` set, and replaces its number by -1, as the kernel does where it cannot create one.
///
/// # Safety
/// `control` must be what `recvmsg(2)` has just written to `msg_control`, in the length that it returned, and
/// must be decoded only once: the function takes ownership of every descriptor number in it.
pub(crate) unsafe fn decode(
    control: &[u8],
    close_on_exec: bool,
) -> io::Result<Vec<ControlMessage>> {
    let mut messages = Vec::new();
    for Item { level, kind, data } in items(control) {
        let mut data = control.get(data).unwrap_or_default().to_vec();
        let carries = level == libc::SOL_SOCKET && matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD);
        let descriptors = if carries {
            // SAFETY: the caller guarantees `control`, and each item of it is visited once.
            unsafe { own(&data) }
        } else {
            Vec::new()
        };
        if !close_on_exec {
            for descriptor in &descriptors {
                fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            }
        }
        messages.push(match kind {
            libc::SCM_RIGHTS if carries => {
                let rest = data.split_off(data.len() - data.len() % size_of::<i32>());
                ControlMessage::Descriptors { descriptors, rest }
            }
            SCM_PIDFD if !descriptors.is_empty() => {
                ControlMessage::Data { level, kind, data: (-1i32).to_ne_bytes().to_vec() }
            }
            _ => ControlMessage::Data { level, kind, data },
        });
    }
    Ok(messages)
}

/// Not in the libc crate: `linux/socket.h` of the kernel, since Linux 6.5.
const SCM_PIDFD: i32 = 4;

/// Takes ownership of the descriptors whose numbers are in `data`; ignores numbers below 0.
///
/// # Safety
/// The numbers must name open descriptors that have no owner.
unsafe fn own(data: &[u8]) -> Vec<OwnedFd> {
    let (numbers, _odd) = data.as_chunks::<4>();
    let numbers = numbers.iter().map(|number| i32::from_ne_bytes(*number));
    // SAFETY: the caller guarantees that the descriptor is open and has no other owner.
    numbers
        .filter(|number| *number >= 0)
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect()
}

#[cfg(test)]
mod tests;
