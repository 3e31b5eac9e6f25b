//! User and network namespaces (`namespaces(7)`), in which an ordinary user can have network privileges.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::{CloneFlags, unshare};

use crate::process::{effective_gid, effective_uid};
use crate::{option, socket};

/// Moves the process into a new user namespace, in which it has every capability, and into a new
/// network namespace that belongs to it; user and group keep their numbers (`user_namespaces(7)`).
///
/// `EINVAL` if the process has more than one thread. `EPERM`, `ENOSPC` or `EUSERS` if the system does not
/// allow it to this user.
pub fn enter_user_and_network() -> io::Result<()> {
    let (uid, gid) = (effective_uid(), effective_gid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // An ordinary user can map a group only after it has disabled setgroups(2).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Moves this thread into a new network namespace; `EPERM` without `CAP_SYS_ADMIN`.
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
    fn process_with_several_threads_is_refused_and_stays_in_its_namespaces() {
        let before = fs::read_link("/proc/self/ns/net").unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other_thread = std::thread::spawn(move || ended.recv());
        let error = enter_user_and_network().unwrap_err();
        drop(end);
        assert!(other_thread.join().unwrap().is_err());
        assert!([libc::EINVAL, libc::EPERM, libc::ENOSPC].contains(&error.raw_os_error().unwrap()));
        assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), before);
    }

    #[test]
    fn loopback_of_a_new_network_namespace_can_be_brought_up() {
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
