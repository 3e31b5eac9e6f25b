//! Socket options by level and name (`getsockopt(2)`), except those that would break memory safety.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use socket2::SockRef;

use crate::call::{check, invalid, socklen, zeroed};

/// The value of an integer option, in host order. An option shorter than an int fills the low bytes
/// on little-endian machines, as in CPython. Refuses [`carries_pointer_or_descriptor`].
pub fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = [0; size_of::<i32>()];
    get(fd, level, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// The value of an option as raw bytes: as many as the kernel returned, at most `length`.
/// Refuses [`carries_pointer_or_descriptor`].
pub fn get_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, length: u32) -> io::Result<Vec<u8>> {
    let mut value = zeroed(usize::try_from(length).unwrap_or(usize::MAX))?;
    let given = get(fd, level, name, &mut value)?;
    value.truncate(given);
    Ok(value)
}

/// Sets an integer option. Refuses [`carries_pointer_or_descriptor`].
pub fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

/// Sets an option to raw bytes. Refuses [`carries_pointer_or_descriptor`].
pub fn set_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    refuse(level, name)?;
    // A copy, because IPV6_FLOWLABEL_MGR writes the label it chose into the caller's value.
    let mut value = value.to_vec();
    let length = socklen(value.len());
    let start = value.as_mut_ptr().cast();
    // SAFETY: `start` points to `length` initialised, writable bytes of `value`, which lives to the
    // end of this function; by `refuse` the kernel follows no pointer within them.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, start, length) };
    check(result).map(|_zero| ())
}

/// Sets an option with a null value and this length: Python's `setsockopt(level, name, None,
/// length)`, used for `ALG_SET_AEAD_AUTHSIZE`. Refuses [`carries_pointer_or_descriptor`].
pub fn set_null(fd: BorrowedFd<'_>, level: i32, name: i32, length: u32) -> io::Result<()> {
    refuse(level, name)?;
    // SAFETY: the pointer is null for any `length`: the kernel reads nothing or fails with
    // EFAULT, as for any unmapped address.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::null(), length) };
    check(result).map(|_zero| ())
}

/// `SO_RCVTIMEO` or `SO_SNDTIMEO` (`socket(7)`); `None` for zero, which means no timeout.
/// `InvalidInput` for another name.
pub fn get_timeout(fd: BorrowedFd<'_>, name: i32) -> io::Result<Option<Duration>> {
    match name {
        libc::SO_RCVTIMEO => SockRef::from(&fd).read_timeout(),
        libc::SO_SNDTIMEO => SockRef::from(&fd).write_timeout(),
        _ => Err(invalid("the option is not a timeout")),
    }
}

fn get(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
    refuse(level, name)?;
    let mut length = socklen(value.len());
    let start = value.as_mut_ptr().cast();
    // SAFETY: `start` points to `length` initialised, writable bytes of `value`, and `length` is an
    // initialised integer; both live for the call. By `refuse` the kernel follows no pointer within
    // them and counts `length` in bytes.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, start, &raw mut length) };
    check(result)?;
    Ok(usize::try_from(length).unwrap_or(usize::MAX).min(value.len()))
}

fn refuse(level: i32, name: i32) -> io::Result<()> {
    if carries_pointer_or_descriptor(level, name) {
        return Err(invalid("the option's value contains a pointer or a descriptor number"));
    }
    Ok(())
}

/// Whether the value of an option, set or got, contains a pointer into the calling process, the number
/// of a descriptor or of a key of this process, or is measured in other units than bytes.
///
/// All functions of this module refuse these options with `InvalidInput`; callers should refuse
/// them first, with their own message. The list was compiled from the kernel's `include/uapi`, up to
/// Linux 6.18, and must be reviewed for each new kernel; options that are not listed pass everything by
/// value.
pub fn carries_pointer_or_descriptor(level: i32, name: i32) -> bool {
    REFUSED.iter().any(|row| row.level == level && (row.first..=row.last).contains(&name))
}

struct Refused {
    level: i32,
    first: i32,
    last: i32,
}

const fn one(level: i32, name: i32) -> Refused {
    Refused { level, first: name, last: name }
}

const fn range(level: i32, first: i32, last: i32) -> Refused {
    Refused { level, first, last }
}

const SOL_SCTP: i32 = 132;
const SOL_RDS: i32 = 276;
const SOL_MPTCP: i32 = 284;

const REFUSED: &[Refused] = &[
    // Set: struct sock_fprog with a pointer. Get (SO_GET_FILTER): the length counts instructions of
    // eight bytes, so the kernel writes beyond a buffer measured in bytes.
    one(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    one(libc::SOL_SOCKET, libc::SO_ATTACH_BPF), // descriptor of a program
    one(libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF), // struct sock_fprog
    one(libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF), // descriptor of a program
    one(libc::SOL_SOCKET, libc::SO_PASSPIDFD),  // every message then brings a descriptor
    one(libc::SOL_SOCKET, libc::SO_PEERPIDFD),  // returns a new descriptor
    // Tokens of device memory that is bound to a netlink socket and mapped by the process.
    range(libc::SOL_SOCKET, libc::SO_DEVMEM_LINEAR, libc::SO_DEVMEM_DONTNEED),
    // linux/tcp.h: struct tcp_zerocopy_receive contains addresses of a mapping and of a copy buffer.
    one(libc::IPPROTO_TCP, libc::TCP_ZEROCOPY_RECEIVE),
    // Tables of netfilter, struct *_replace with pointers to counters and entries; the getters are
    // as dangerous (EBT_SO_GET_ENTRIES writes through pointers in the value). Whole ranges of the
    // base numbers in linux/netfilter_{ipv4/ip,arp/arp,bridge/eb}tables.h, all at level IPPROTO_IP.
    range(libc::IPPROTO_IP, 64, 67),
    range(libc::IPPROTO_IP, 96, 99),
    range(libc::IPPROTO_IP, 128, 131),
    // linux/netfilter_ipv6/ip6_tables.h; 66 and 67 are IPV6_RECVTCLASS and IPV6_TCLASS.
    range(libc::IPPROTO_IPV6, 64, 65),
    range(libc::IPPROTO_IPV6, 68, 69),
    one(libc::SOL_PACKET, libc::PACKET_FANOUT_DATA), // struct sock_fprog, or a descriptor
    // linux/if_xdp.h: XDP_UMEM_REG has the address of the shared area; its rings need mappings too.
    range(libc::SOL_XDP, libc::XDP_RX_RING, libc::XDP_UMEM_COMPLETION_RING),
    // linux/if_alg.h: the serial number of a key in the keyrings of the calling process.
    one(libc::SOL_ALG, libc::ALG_SET_KEY_BY_KEY_SERIAL),
    // linux/sctp.h: PEELOFF and PEELOFF_FLAGS return a descriptor, CONNECTX3 has a pointer.
    one(SOL_SCTP, 102),
    one(SOL_SCTP, 111),
    one(SOL_SCTP, 122),
    // linux/rds.h: RDS_GET_MR and RDS_GET_MR_FOR_DEST register memory of the process.
    one(SOL_RDS, 2),
    one(SOL_RDS, 7),
    one(SOL_MPTCP, 4), // linux/mptcp.h: MPTCP_FULL_INFO has pointers to arrays
];

#[cfg(test)]
mod tests;
