//! Namespaces of one's own (`namespaces(7)`): where an ordinary user may hold network privileges.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::{CloneFlags, unshare};

use crate::process::{effective_gid, effective_uid};
use crate::{option, socket};

/// Moves the process into a new user namespace, where it has every capability, and into a new
/// network namespace that belongs to it; user and group keep their numbers (`user_namespaces(7)`).
///
/// Only while the process has a single thread: `EINVAL` else. `EPERM`, `ENOSPC` or `EUSERS` where
/// the system forbids it to this user.
pub fn enter_user_and_network() -> io::Result<()> {
    let (uid, gid) = (effective_uid(), effective_gid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // A group may be mapped by an ordinary user only once setgroups(2) is given up.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Moves this thread into a new network namespace; needs `CAP_SYS_ADMIN`, `EPERM` else.
pub fn enter_network() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

/// Whether a socket belongs to the network namespace of the calling thread (`SO_NETNS_COOKIE`).
/// `ENOPROTOOPT` before Linux 5.14.
pub fn is_own_network(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // This family is never restricted, loaded on demand, or switched off.
    let own = socket::create(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    Ok(cookie(fd)? == cookie(own.as_fd())?)
}

fn cookie(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    option::get_bytes(fd, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface;

    #[test]
    fn a_process_with_several_threads_is_refused_and_stays_where_it_is() {
        let before = fs::read_link("/proc/self/ns/net").unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let beside = std::thread::spawn(move || ended.recv());
        let error = enter_user_and_network().unwrap_err();
        drop(end);
        assert!(beside.join().unwrap().is_err());
        assert!([libc::EINVAL, libc::EPERM, libc::ENOSPC].contains(&error.raw_os_error().unwrap()));
        assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), before);
    }

    #[test]
    fn a_new_network_has_a_loopback_that_can_be_brought_up() {
        let thread = std::thread::spawn(|| match enter_network() {
            Ok(()) => {
                interface::bring_up("lo").unwrap();
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                assert_eq!(interface::list().unwrap().len(), 1);
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        });
        thread.join().unwrap();
    }
}
