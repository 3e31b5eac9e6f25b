//! Readiness: `poll(2)` without waiting, and a set of descriptors that a task can wait on.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::call::{check, invalid, retry};

/// `poll(2)` with timeout 0: returns the `revents` of each entry of descriptor and `events`.
pub fn poll_now(entries: &[(BorrowedFd<'_>, i16)]) -> io::Result<Vec<i16>> {
    poll_for(entries, Some(Duration::ZERO))
}

/// `poll(2)`: waits until an entry is ready, for at most `longest`, rounded up to milliseconds. Returns the `revents` of
/// each entry.
pub fn poll_for(
    entries: &[(BorrowedFd<'_>, i16)],
    longest: Option<Duration>,
) -> io::Result<Vec<i16>> {
    let timeout = longest.map_or(-1, |longest| {
        i32::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    let requests = entries.iter().map(|(fd, events)| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: *events,
        revents: 0,
    });
    let mut requests: Vec<_> = requests.collect();
    let count = libc::nfds_t::try_from(requests.len()).map_err(io::Error::other)?;
    let start = requests.as_mut_ptr();
    // SAFETY: `start` points to `count` initialised entries of `requests`, alive for the call; the
    // kernel writes only their `revents`.
    retry(|| check(unsafe { libc::poll(start, count, timeout) }))?;
    Ok(requests.iter().map(|request| request.revents).collect())
}

/// A set of descriptors to wait for: a level-triggered epoll instance (`epoll(7)`).
///
/// Its own descriptor is readable while any member is ready; [`poll_now`] reports which one. A descriptor
/// that is closed leaves the set, unless a duplicate keeps its open file.
#[derive(Debug)]
pub struct ReadinessSet {
    epoll: Epoll,
    /// The bits that each number is waited for, to merge a second [`Self::add`]. Can contain closed ones.
    events: HashMap<RawFd, EpollFlags>,
}

/// Waits until no process can read what is written to a pipe or a stream socket any more (`POLLERR`, `POLLHUP`).
/// `EPERM` for files that are always ready (`epoll_ctl(2)`).
pub fn wait_for_hang_up(fd: BorrowedFd<'_>) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(fd, EpollEvent::new(EpollFlags::empty(), 0))?;
    let mut found = [EpollEvent::empty()];
    retry(|| Ok(epoll.wait(&mut found, EpollTimeout::NONE)?)).map(drop)
}

impl ReadinessSet {
    /// An empty set, which is never ready.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: HashMap::new() })
    }

    /// Adds a descriptor and the `poll(2)` bits to wait for; `POLLERR` and `POLLHUP` always count.
    /// A further call merges the bits. `EPERM` for files that are always ready (`epoll_ctl(2)`).
    pub fn add(&mut self, fd: BorrowedFd<'_>, events: i16) -> io::Result<()> {
        let bits = libc::c_int::from(events.cast_unsigned());
        // Linux gives POLL* and EPOLL* the same numbers; other bits would be flags of epoll.
        let mut events = EpollFlags::from_bits_retain(bits) & EVENTS;
        match self.epoll.add(fd, EpollEvent::new(events, 0)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                events |= self.events.get(&fd.as_raw_fd()).copied().unwrap_or(EpollFlags::empty());
                self.epoll.modify(fd, &mut EpollEvent::new(events, 0))?;
            }
            Err(error) => return Err(error.into()),
        }
        self.events.insert(fd.as_raw_fd(), events);
        Ok(())
    }

    /// Removes a descriptor; `InvalidInput` if it is not in the set.
    pub fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.events.remove(&fd.as_raw_fd());
        match self.epoll.delete(fd) {
            Err(Errno::ENOENT) => Err(invalid("the descriptor is not in the set")),
            result => result.map_err(io::Error::from),
        }
    }
}

/// All events of `poll(2)`.
const EVENTS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLERR)
    .union(EpollFlags::EPOLLHUP)
    .union(EpollFlags::EPOLLRDNORM)
    .union(EpollFlags::EPOLLRDBAND)
    .union(EpollFlags::EPOLLWRNORM)
    .union(EpollFlags::EPOLLWRBAND)
    .union(EpollFlags::EPOLLMSG)
    .union(EpollFlags::EPOLLRDHUP);

impl AsFd for ReadinessSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl AsRawFd for ReadinessSet {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::send;
    use crate::testing::{assert_refused, errno, unix_pair};

    fn is_ready(set: &ReadinessSet) -> bool {
        poll_now(&[(set.as_fd(), libc::POLLIN)]).unwrap() == [libc::POLLIN]
    }

    #[test]
    fn poll_now_returns_the_events_of_each_entry() {
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        send(a.as_fd(), b"x", 0).unwrap();
        let entries =
            [(a.as_fd(), libc::POLLIN), (b.as_fd(), libc::POLLIN | libc::POLLOUT), (a.as_fd(), 0)];
        assert_eq!(poll_now(&entries).unwrap(), [0, libc::POLLIN | libc::POLLOUT, 0]);
        assert!(poll_now(&[]).unwrap().is_empty());
    }

    #[test]
    fn end_of_connection_is_reported_without_request() {
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        drop(b);
        assert_eq!(poll_now(&[(a.as_fd(), 0)]).unwrap(), [libc::POLLHUP]);
        let asked = libc::POLLIN | libc::POLLRDHUP;
        assert_eq!(poll_now(&[(a.as_fd(), asked)]).unwrap(), [asked | libc::POLLHUP]);
    }

    #[test]
    fn set_is_ready_while_a_member_is_ready() {
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        let mut set = ReadinessSet::new().unwrap();
        assert!(!is_ready(&set));
        set.add(b.as_fd(), libc::POLLIN).unwrap();
        assert!(!is_ready(&set));
        send(a.as_fd(), b"x", 0).unwrap();
        assert!(is_ready(&set));
        assert!(is_ready(&set), "the set must be level-triggered");
        crate::message::receive(b.as_fd(), 1, 0).unwrap();
        assert!(!is_ready(&set));
        drop(a);
        assert!(is_ready(&set));
        drop(b);
        assert!(!is_ready(&set), "a closed descriptor leaves the set");
    }

    #[test]
    fn adding_a_descriptor_twice_merges_its_bits() {
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        let mut set = ReadinessSet::new().unwrap();
        set.add(b.as_fd(), libc::POLLOUT).unwrap();
        assert!(is_ready(&set));
        set.add(b.as_fd(), libc::POLLIN).unwrap();
        assert!(is_ready(&set), "the bits of the first call must stay");
        let mut set = ReadinessSet::new().unwrap();
        set.add(b.as_fd(), libc::POLLIN).unwrap();
        set.add(b.as_fd(), libc::POLLPRI).unwrap();
        assert!(!is_ready(&set));
        send(a.as_fd(), b"x", 0).unwrap();
        assert!(is_ready(&set), "the bits of the first call must stay");
    }

    #[test]
    fn only_poll_bits_reach_epoll() {
        let (_a, b) = unix_pair(libc::SOCK_STREAM);
        let mut set = ReadinessSet::new().unwrap();
        // All bits: neither edge-triggered nor one-shot nor exclusive.
        set.add(b.as_fd(), -1).unwrap();
        assert!(is_ready(&set) && is_ready(&set));
    }

    #[test]
    fn members_can_be_removed() {
        let (a, _b) = unix_pair(libc::SOCK_STREAM);
        let mut set = ReadinessSet::new().unwrap();
        set.add(a.as_fd(), libc::POLLOUT).unwrap();
        set.remove(a.as_fd()).unwrap();
        assert!(!is_ready(&set));
        assert_refused(set.remove(a.as_fd()));
    }

    #[test]
    fn regular_files_cannot_be_members() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut set = ReadinessSet::new().unwrap();
        assert_eq!(errno(set.add(file.as_fd(), libc::POLLIN)), libc::EPERM);
        assert_eq!(poll_now(&[(file.as_fd(), libc::POLLIN)]).unwrap(), [libc::POLLIN]);
    }
}
