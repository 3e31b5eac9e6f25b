//! Who is at the other end of an accepted connection (`unix(7)`).

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::socket::{getsockopt, sockopt};

use crate::{option, peer};

/// Who is at the other end of an accepted connection, as the kernel stored it at `connect(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// The network namespace of the connecting socket (`SO_NETNS_COOKIE`); `None` before Linux 5.14.
    pub network: Option<u64>,
}

/// The credentials of the peer (`SO_PEERCRED`, `SO_PEERGROUPS`), and its network namespace: an accepted
/// connection belongs to the namespace of the connecting socket.
pub fn of_peer(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    let found = getsockopt(&fd, sockopt::PeerCredentials)?;
    let mut groups = peer::groups(fd)?;
    groups.sort_unstable();
    let network = option::get_bytes(fd, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, 8).ok();
    let network = network.and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
    Ok(Credentials { uid: found.uid(), gid: found.gid(), groups, network })
}

/// The number of the process that connected, in the PID namespace of this process (`SO_PEERCRED`); 0 in another one.
pub fn process_of_peer(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let found = getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok(Some(found.pid()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::testing::unix_pair;

    #[test]
    fn credentials_of_a_pair_are_those_of_this_process() {
        let (a, _b) = unix_pair(libc::SOCK_STREAM);
        let found = of_peer(a.as_fd()).unwrap();
        let mut groups = peer::own_groups().unwrap();
        groups.sort_unstable();
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw(), groups);
        assert_eq!((found.uid, found.gid, found.groups), own);
        assert!(found.network.is_none_or(|cookie| cookie > 0));
    }
}
