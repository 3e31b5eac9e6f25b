//! Classic BPF filters (`SO_ATTACH_FILTER`, `socket(7)`), passed as bytes instead of a pointer.

use std::io;
use std::os::fd::BorrowedFd;

use socket2::{SockFilter, SockRef};

use crate::call::invalid;
use crate::option;

/// The maximum number of instructions of a filter: `BPF_MAXINSNS` (`linux/bpf_common.h`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Attaches a program: an array of `struct sock_filter` (`linux/filter.h`), 8 bytes each in host
/// order: code 16 bits, jumps if true and if false 8 bits each, operand 32 bits.
///
/// `InvalidInput` unless there are 1 to [`INSTRUCTIONS_MAX`] complete instructions; `EINVAL` if the
/// kernel's checker rejects them, `EPERM` if the filter is locked.
pub fn attach(fd: BorrowedFd<'_>, program: &[u8]) -> io::Result<()> {
    let (instructions, odd) = program.as_chunks::<8>();
    if !odd.is_empty() || instructions.is_empty() || instructions.len() > INSTRUCTIONS_MAX {
        return Err(invalid("a filter has 1 to 4096 instructions of 8 bytes"));
    }
    let instructions = instructions.iter().map(|&[c0, c1, yes, no, k0, k1, k2, k3]| {
        let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
        SockFilter::new(code, yes, no, k)
    });
    let instructions: Vec<_> = instructions.collect();
    SockRef::from(&fd).attach_filter(&instructions)
}

/// Removes the filter (`SO_DETACH_FILTER`); `ENOENT` if there is none, `EPERM` if it is locked.
pub fn detach(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).detach_filter()
}

/// Locks the filter permanently (`SO_LOCK_FILTER`), for every holder of the socket.
pub fn lock(fd: BorrowedFd<'_>) -> io::Result<()> {
    option::set_int(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::message::{receive, send_to};
    use crate::testing::{assert_refused, errno, udp_socket, wait};

    /// `BPF_RET | BPF_K`: keeps the first `bytes` bytes of each packet.
    fn keep(bytes: u32) -> Vec<u8> {
        [6u16.to_ne_bytes().as_slice(), &[0, 0], &bytes.to_ne_bytes()].concat()
    }

    #[test]
    fn filter_decides_which_packets_arrive() {
        let (udp, to) = udp_socket();
        attach(udp.as_fd(), &keep(0)).unwrap();
        send_to(udp.as_fd(), b"dropped", 0, &to).unwrap();
        detach(udp.as_fd()).unwrap();
        send_to(udp.as_fd(), b"kept", 0, &to).unwrap();
        wait(udp.as_fd(), libc::POLLIN);
        assert_eq!(receive(udp.as_fd(), 100, 0).unwrap().data, b"kept");
        // The filter also counts the UDP header of eight bytes.
        attach(udp.as_fd(), &keep(8 + 3)).unwrap();
        send_to(udp.as_fd(), b"shortened", 0, &to).unwrap();
        wait(udp.as_fd(), libc::POLLIN);
        assert_eq!(receive(udp.as_fd(), 100, 0).unwrap().data, b"sho");
    }

    #[test]
    fn incomplete_instructions_and_wrong_counts_are_refused() {
        let (udp, _) = udp_socket();
        assert_refused(attach(udp.as_fd(), &[]));
        assert_refused(attach(udp.as_fd(), &[0; 7]));
        assert_refused(attach(udp.as_fd(), &[0; 9]));
        assert_refused(attach(udp.as_fd(), &keep(1).repeat(INSTRUCTIONS_MAX + 1)));
        attach(udp.as_fd(), &keep(1).repeat(INSTRUCTIONS_MAX)).unwrap();
    }

    #[test]
    fn kernel_rejects_an_invalid_program() {
        let (udp, _) = udp_socket();
        assert_eq!(errno(attach(udp.as_fd(), &[0xff; 8])), libc::EINVAL);
        assert_eq!(errno(detach(udp.as_fd())), libc::ENOENT);
    }

    #[test]
    fn locked_filter_cannot_be_removed() {
        let (udp, _) = udp_socket();
        attach(udp.as_fd(), &keep(100)).unwrap();
        lock(udp.as_fd()).unwrap();
        assert_eq!(errno(detach(udp.as_fd())), libc::EPERM);
        assert_eq!(errno(attach(udp.as_fd(), &keep(1))), libc::EPERM);
    }
}
