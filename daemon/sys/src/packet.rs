//! Options of packet sockets that capture needs (`packet(7)`).

use std::io;
use std::os::fd::BorrowedFd;

use crate::option;

/// Requests promiscuous mode on an interface for this socket, or withdraws the request
/// (`PACKET_ADD_MEMBERSHIP` with `PACKET_MR_PROMISC`). The kernel counts the requests, and withdraws those
/// of a closed socket.
///
/// `ENODEV` for an unknown interface. Withdrawing without a request does nothing.
pub fn set_promiscuous(fd: BorrowedFd<'_>, ifindex: u32, on: bool) -> io::Result<()> {
    let name = if on { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
    // struct packet_mreq: index, type, address length, address.
    let mut request = Vec::with_capacity(16);
    request.extend(ifindex.to_ne_bytes());
    request.extend(PACKET_MR_PROMISC.to_ne_bytes());
    request.extend([0; 2 + 8]);
    option::set_bytes(fd, libc::SOL_PACKET, name, &request)
}

/// Whether the kernel keeps packets that this machine sends out of the socket's queue (`PACKET_IGNORE_OUTGOING`).
pub fn ignore_outgoing(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    option::set_int(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, i32::from(on))
}

const PACKET_MR_PROMISC: u16 = 1;
/// Since Linux 4.20.
const PACKET_IGNORE_OUTGOING: i32 = 23;

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::interface::index_of;
    use crate::socket::create;
    use crate::testing::{errno, unless_lacking};

    fn packet_socket() -> Option<OwnedFd> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        unless_lacking("packet sockets (CAP_NET_RAW)", create(libc::AF_PACKET, kind, 0))
    }

    #[test]
    fn promiscuous_mode_is_requested_and_withdrawn() {
        let Some(socket) = packet_socket() else {
            return;
        };
        let lo = index_of("lo").unwrap();
        set_promiscuous(socket.as_fd(), lo, true).unwrap();
        set_promiscuous(socket.as_fd(), lo, false).unwrap();
        set_promiscuous(socket.as_fd(), lo, false).unwrap();
        assert_eq!(errno(set_promiscuous(socket.as_fd(), u32::MAX, true)), libc::ENODEV);
    }

    #[test]
    fn outgoing_packets_can_be_ignored() {
        let Some(socket) = packet_socket() else {
            return;
        };
        let get = || option::get_int(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING);
        ignore_outgoing(socket.as_fd(), true).unwrap();
        assert_eq!(get().unwrap(), 1);
        ignore_outgoing(socket.as_fd(), false).unwrap();
        assert_eq!(get().unwrap(), 0);
    }

    #[test]
    fn options_fail_on_other_sockets() {
        let (udp, _) = crate::testing::udp_socket();
        assert_eq!(errno(set_promiscuous(udp.as_fd(), 1, true)), libc::ENOPROTOOPT);
        assert_eq!(errno(ignore_outgoing(udp.as_fd(), true)), libc::ENOPROTOOPT);
    }
}
