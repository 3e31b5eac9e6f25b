//! The reaper: performs closes that may wait.
//!
//! The last `close(2)` of a socket with `SO_LINGER` waits for its peer, also if the socket is queued on a
//! connection that is closed. The monitor must not wait, and cannot know which close is the last: so it passes
//! descriptors that came from outside to this process. Closing does not wait in a process that exits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_sys::events::Events;
use sockbroker_sys::ioctl::{self, IntRequest};
use sockbroker_sys::socket;

use crate::channel::{Channel, ChannelError};
use crate::message::{FromReaper, ToReaper};
use crate::role::{self, Role};

/// The closes that wait at a time. Beyond it the process asks to be replaced.
const WAITING: usize = 256;
/// How long a descriptor is kept that cannot be passed.
const RETRY: Duration = Duration::from_millis(100);
/// The stack of a thread that closes one descriptor.
const STACK: usize = 64 << 10;

/// Closes descriptors, each in a thread of its own, until the monitor closes the channel. The caller MUST then
/// exit: the exit of a process does not wait.
pub fn run(input: OwnedFd) -> io::Result<()> {
    let channel = Channel::<FromReaper, ToReaper>::over(input);
    let mut events = Events::new()?;
    events.add(channel.as_fd(), 0)?;
    let waiting = Arc::new(AtomicUsize::new(0));
    let (mut held, mut is_full) = (Vec::new(), false);
    loop {
        match channel.receive() {
            Ok((ToReaper::Hold, descriptors)) => held.extend(descriptors),
            Ok((ToReaper::Close, _)) => close(std::mem::take(&mut held), &waiting)?,
            Err(ChannelError::NotReady) => drop(events.wait(None)?),
            Err(_) => return Ok(()),
        }
        if !is_full && waiting.load(Ordering::Relaxed) >= WAITING {
            is_full = true;
            // If the channel is full, the monitor replaces this process anyway.
            drop(channel.send(&FromReaper::Full, &[]));
        }
    }
}

fn close(descriptors: Vec<OwnedFd>, waiting: &Arc<AtomicUsize>) -> io::Result<()> {
    let waiting = waiting.clone();
    waiting.fetch_add(1, Ordering::Relaxed);
    let close = move || {
        drop(descriptors);
        waiting.fetch_sub(1, Ordering::Relaxed);
    };
    thread::Builder::new().stack_size(STACK).spawn(close).map(drop)
}

/// Exits: the kernel closes what is left, and does not wait for it.
pub fn exit() -> ! {
    #[expect(clippy::exit, reason = "returning would wait for the threads that close")]
    std::process::exit(0)
}

/// The reaper as the monitor knows it: the process that takes descriptors now, and those that are to exit.
#[derive(Debug, Default)]
pub struct Reaper {
    running: Option<(Child, Channel<ToReaper, FromReaper>)>,
    exiting: Vec<Child>,
    /// Descriptors that could not be passed, and when to try again.
    kept: Vec<OwnedFd>,
    retry_at: Option<Instant>,
}

impl Reaper {
    /// Closes a connection that the monitor does not pass on. If nothing is queued on it, closing does not wait,
    /// and no process is needed.
    pub fn close_connection(&mut self, connection: OwnedFd) {
        // After this the peer cannot send more. A connection that has ended already has nothing to shut down.
        drop(socket::shutdown(connection.as_fd(), libc::SHUT_RDWR));
        if ioctl::get_int(connection.as_fd(), IntRequest::Fionread).is_ok_and(|queued| queued == 0)
        {
            return;
        }
        self.close(connection);
    }

    /// Closes a descriptor, which can be anything that another process sent.
    pub fn close(&mut self, descriptor: OwnedFd) {
        if let Err(error) = self.pass(&descriptor) {
            tracing::error!(%error, "cannot pass a descriptor to the reaper: trying again");
            self.kept.push(descriptor);
            self.retry_at = Some(Instant::now() + RETRY);
            return;
        }
        // Not the last copy: the reaper holds one until the next message.
        drop(descriptor);
        if let Some((_, channel)) = &self.running
            && let Err(error) = channel.send(&ToReaper::Close, &[])
        {
            tracing::debug!(%error, "the reaper closes a descriptor later");
        }
    }

    /// When to call [`Self::retry`].
    pub fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Passes descriptors that could not be passed before, if it is time.
    pub fn retry(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for descriptor in std::mem::take(&mut self.kept) {
                self.close(descriptor);
            }
        }
    }

    /// Passes a descriptor to the reaper, which holds it until the monitor has closed its own copy.
    fn pass(&mut self, descriptor: &OwnedFd) -> io::Result<()> {
        if let Some((child, channel)) = self.running.take() {
            let is_full = !matches!(channel.receive(), Err(ChannelError::NotReady));
            if !is_full && channel.send(&ToReaper::Hold, &[descriptor.as_fd()]).is_ok() {
                self.running = Some((child, channel));
                return Ok(());
            }
            // The end of its channel makes it exit.
            self.exiting.push(child);
        }
        let (channel, other) = Channel::pair()?;
        // Before the start, so that the process finds it at once.
        channel.send(&ToReaper::Hold, &[descriptor.as_fd()]).map_err(io::Error::other)?;
        let child = role::start(Role::Reaper, "sockbrokerd: reaper", &[], other, Stdio::null())?;
        self.running = Some((child, channel));
        Ok(())
    }

    /// Waits for processes that have exited.
    pub fn collect(&mut self) {
        self.exiting.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if let Some((child, _)) = &mut self.running
            && !matches!(child.try_wait(), Ok(None))
        {
            self.running = None;
        }
    }
}
