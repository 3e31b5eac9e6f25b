//! The event loop of processes without an asynchronous runtime: an epoll instance (`epoll(7)`) and signals
//! (`signalfd(2)`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Descriptors to wait for, each with a number of the caller's choice. Readiness is level-triggered.
#[derive(Debug)]
pub struct Events {
    epoll: Epoll,
    ready: Vec<EpollEvent>,
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The number given to [`Events::add`].
    pub token: u64,
    /// Whether there is something to read, or the end of the stream.
    pub readable: bool,
    /// Whether the other end is gone, or the descriptor has an error.
    pub hung_up: bool,
}

/// The number of events that one wait returns.
const AT_ONCE: usize = 64;

impl Events {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, ready: vec![EpollEvent::empty(); AT_ONCE] })
    }

    /// Adds a descriptor: the set reports when it is readable.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Removes a descriptor. One that is closed leaves the set by itself only if no copy of it exists.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits until something is ready, for at most `longest`. An interrupted wait returns nothing.
    pub fn wait(&mut self, longest: Option<Duration>) -> io::Result<Vec<Ready>> {
        // Rounded up: a wait that ends before the time would be repeated at once.
        let timeout = longest.map_or(EpollTimeout::NONE, |longest| {
            let millis = longest.as_micros().div_ceil(1000);
            EpollTimeout::try_from(u32::try_from(millis).unwrap_or(u32::MAX))
                .unwrap_or(EpollTimeout::MAX)
        });
        let count = match self.epoll.wait(&mut self.ready, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let ready = self.ready.iter().take(count).map(|event| Ready {
            token: event.data(),
            readable: event.events().contains(EpollFlags::EPOLLIN),
            hung_up: event.events().intersects(gone),
        });
        Ok(ready.collect())
    }
}

/// Wakes a thread that waits for descriptors (`eventfd(2)`).
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // It fails only if it is readable already.
        self.0.write(1).ok();
    }

    /// Makes it unreadable until the next wake.
    pub fn clear(&self) {
        // It fails only if it is unreadable already.
        self.0.read().ok();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal that a process of the broker handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// `SIGTERM` or `SIGINT`.
    Terminate,
    /// `SIGHUP`.
    Reload,
    /// `SIGCHLD`.
    Child,
}

/// Blocks `SIGTERM`, `SIGINT` and `SIGHUP` in this thread, and in threads that it starts later: for a process that
/// another one ends.
pub fn ignore_termination() -> io::Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    Ok(set.thread_block()?)
}

/// The signals of [`Handled`], which no longer interrupt the process: they are read. Programs that the process
/// runs begin without this mask.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals in this thread, and in threads that it starts later.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal; `None` if there is none.
    pub fn next(&self) -> io::Result<Option<Handled>> {
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        Ok(Some(match number {
            libc::SIGHUP => Handled::Reload,
            libc::SIGCHLD => Handled::Child,
            _ => Handled::Terminate,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;
    use crate::record;

    #[test]
    fn ready_descriptors_are_reported_by_their_numbers() {
        let mut events = Events::new().unwrap();
        let (a, b) = record::pair().unwrap();
        events.add(b.as_fd(), 7).unwrap();
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
        record::send(a.as_fd(), b"x", &[]).unwrap();
        let ready = Ready { token: 7, readable: true, hung_up: false };
        assert_eq!(events.wait(None).unwrap(), [ready]);
        drop(a);
        assert!(events.wait(None).unwrap()[0].hung_up);
        events.remove(b.as_fd()).unwrap();
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
    }

    #[test]
    fn a_wake_is_readable_until_it_is_cleared() {
        let wake = Wake::new().unwrap();
        let mut events = Events::new().unwrap();
        events.add(wake.as_fd(), 1).unwrap();
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
        wake.wake();
        wake.wake();
        assert_eq!(events.wait(None).unwrap().len(), 1);
        wake.clear();
        wake.clear();
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
    }

    #[test]
    fn blocked_signals_are_read() {
        let read = || {
            let signals = Signals::block().unwrap();
            assert_eq!(signals.next().unwrap(), None);
            raise(Signal::SIGHUP).unwrap();
            signals.next().unwrap()
        };
        assert_eq!(std::thread::spawn(read).join().unwrap(), Some(Handled::Reload));
    }
}
