//! The peer of a Unix socket: groups, process, control group (`unix(7)`).
//!
//! The kernel stores the process that called `connect(2)`. Its number alone proves nothing, since the kernel
//! reuses numbers; a pidfd (`SO_PEERPIDFD`, Linux 6.5) refers to this process and no other.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::getgroups;

use crate::call::check;
use crate::poll::poll_now;

/// The supplementary groups of the peer when it connected (`SO_PEERGROUPS`, Linux 4.13).
pub fn groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .map_err(|_too_long| io::Error::from_raw_os_error(libc::ERANGE))?;
        let (number, start) = (fd.as_raw_fd(), groups.as_mut_ptr().cast());
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
        // SAFETY: `start` points to `length` initialised, writable bytes of `groups`, and `length`
        // is an initialised integer; both live for the call. The kernel writes whole numbers, none
        // beyond `length`, and then how many bytes they are, or would be (ERANGE).
        let result = check(unsafe {
            libc::getsockopt(number, level, name, start, ptr::from_mut(&mut length))
        });
        let count = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        match result {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The process that connected, as a pidfd. `ENOPROTOOPT` before Linux 6.5, `ENODATA` without a peer.
pub fn process(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(getsockopt(&fd, sockopt::PeerPidfd)?)
}

/// Whether the kernel can return a pidfd of the peer (Linux 6.5).
pub fn has_peer_pidfd() -> bool {
    UnixStream::pair().is_ok_and(|(end, _other)| process(end.as_fd()).is_ok())
}

/// The control group of the process behind a pidfd, from `/proc/PID/cgroup`.
///
/// Reads the number from the pidfd, and checks after reading the file that the process is alive: the
/// number then belonged to it all the time. `ESRCH` if it has ended, or has no number here.
pub fn control_group(process: BorrowedFd<'_>) -> io::Result<String> {
    let number = process_number(process)?;
    let text = fs::read_to_string(format!("/proc/{number}/cgroup"))?;
    let ended = poll_now(&[(process, libc::POLLIN)])?.first() != Some(&0);
    if ended {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    own_line(&text).map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The control group of this process.
pub fn own_control_group() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    own_line(&text).map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The supplementary groups of this process (`getgroups(2)`).
pub fn own_groups() -> io::Result<Vec<u32>> {
    Ok(getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect())
}

/// The number of a pidfd's process, in the PID namespace of this mount of `/proc` (`pidfd_open(2)`).
fn process_number(process: BorrowedFd<'_>) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    // -1 if it has ended, 0 if it is in another namespace.
    let number = number.and_then(|number| number.trim().parse::<u32>().ok());
    number.filter(|number| *number > 0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// The path of this process in the hierarchy that the service manager manages.
fn own_line(text: &str) -> Option<&str> {
    static UNIFIED: OnceLock<bool> = OnceLock::new();
    // The criterion of systemd (`cg_unified_cached`): only the root of the unified hierarchy has this file.
    let unified = UNIFIED.get_or_init(|| Path::new("/sys/fs/cgroup/cgroup.controllers").exists());
    line_of(text, *unified)
}

/// The path in the unified hierarchy (`cgroups(7)`) if it is the only one; otherwise in systemd's named
/// hierarchy, if any. A container can have a line of both, and a service manager that uses the first.
fn line_of(text: &str, unified: bool) -> Option<&str> {
    let path =
        |prefix: &str| text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
    let named = if unified { None } else { path("name=systemd:") };
    named.or_else(|| path(":"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::testing::{errno, unix_pair};

    #[test]
    fn peer_of_a_pair_is_this_process() {
        let (a, _b) = unix_pair(libc::SOCK_STREAM);
        assert_eq!(groups(a.as_fd()).unwrap(), own_groups().unwrap());
        match process(a.as_fd()) {
            Ok(process) => {
                assert_eq!(process_number(process.as_fd()).unwrap(), std::process::id());
                let group = control_group(process.as_fd()).unwrap();
                assert_eq!(group, own_control_group().unwrap());
                assert!(group.starts_with('/'), "{group}");
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
        assert_eq!(has_peer_pidfd(), process(a.as_fd()).is_ok());
    }

    #[test]
    fn ended_process_has_no_control_group() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let number = libc::pid_t::try_from(child.id()).unwrap();
        // SAFETY: no pointers.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
        let process = check(i32::try_from(result).unwrap()).unwrap();
        // SAFETY: the descriptor is new, and has no other owner.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        assert!(control_group(process.as_fd()).is_ok());
        drop(child.stdin.take());
        // First it is a zombie: its number is still in use, but no longer trusted.
        crate::testing::wait(process.as_fd(), libc::POLLIN);
        assert_eq!(errno(control_group(process.as_fd())), libc::ESRCH);
        child.wait().unwrap();
        assert_eq!(errno(control_group(process.as_fd())), libc::ESRCH);
    }

    #[test]
    fn socket_without_a_peer_has_no_groups_and_no_process() {
        let alone = crate::testing::socket(libc::AF_UNIX, libc::SOCK_STREAM);
        assert_eq!(errno(groups(alone.as_fd())), libc::ENODATA);
        let refused = errno(process(alone.as_fd()));
        assert!([libc::ENODATA, libc::ENOPROTOOPT].contains(&refused), "{refused}");
    }

    #[test]
    fn line_of_systemd_precedes_the_unified_line_in_a_mixed_hierarchy() {
        assert_eq!(line_of("0::/user.slice\n", true), Some("/user.slice"));
        let both = "9:name=systemd:/a.slice\n4:memory:/x\n0::/b\n";
        assert_eq!(line_of(both, false), Some("/a.slice"));
        assert_eq!(line_of(both, true), Some("/b"));
        assert_eq!(line_of("4:memory:/x\n0::/b:c\n", false), Some("/b:c"));
        assert_eq!(line_of("4:memory:/x\n", false), None);
        assert_eq!(line_of("", true), None);
    }
}
