//! The reaper: performs closes that may wait, by exiting.
//!
//! The last `close(2)` of a socket with `SO_LINGER` waits for its peer, also if the socket is queued on a
//! connection that is closed. It does not wait in a process that exits. So the monitor, which must not wait,
//! passes such descriptors to this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

use sockbroker_sys::events::Events;
use sockbroker_sys::ioctl::{self, IntRequest};
use sockbroker_sys::socket;

use crate::channel::{Channel, ChannelError};
use crate::message::{Nothing, ToReaper};
use crate::role::{self, Role};

/// The number of descriptors after which the process exits.
const HELD: usize = 256;
/// How long the process waits for the next descriptor.
const WAIT: Duration = Duration::from_secs(1);

/// Takes descriptors until [`HELD`] are held or none comes for a while. The caller MUST then exit, and the exit
/// closes them.
pub fn hold(input: OwnedFd) -> io::Result<Held> {
    let channel = Channel::<Nothing, ToReaper>::over(input);
    let mut events = Events::new()?;
    events.add(channel.as_fd(), 0)?;
    let mut held = Vec::new();
    while held.len() < HELD {
        match channel.receive() {
            Ok((ToReaper::Close, descriptors)) => held.extend(descriptors),
            Err(ChannelError::NotReady) if events.wait(Some(WAIT))?.is_empty() => break,
            Err(ChannelError::NotReady) => {}
            // The monitor has ended, or this process cannot hold more.
            Err(_) => break,
        }
    }
    Ok(Held { _descriptors: held, _channel: channel })
}

/// What a reaper holds when it exits.
#[derive(Debug)]
pub struct Held {
    _descriptors: Vec<OwnedFd>,
    /// More may be queued here.
    _channel: Channel<Nothing, ToReaper>,
}

/// Exits: the kernel closes what is held, and does not wait for it.
pub fn exit(held: Held) -> ! {
    let _held = held;
    #[expect(clippy::exit, reason = "returning would close the descriptors one after the other")]
    std::process::exit(0)
}

/// The reaper as the monitor knows it: the process that takes descriptors now, and those that are to exit.
#[derive(Debug, Default)]
pub struct Reaper {
    running: Option<(Child, Channel<ToReaper, Nothing>)>,
    exiting: Vec<Child>,
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
            tracing::error!(%error, "cannot start a reaper: closing a descriptor here, which may wait");
        }
        // The reaper has a copy by now.
        drop(descriptor);
    }

    fn pass(&mut self, descriptor: &OwnedFd) -> io::Result<()> {
        if let Some((child, channel)) = self.running.take() {
            if channel.send(&ToReaper::Close, &[descriptor.as_fd()]).is_ok() {
                self.running = Some((child, channel));
                return Ok(());
            }
            // It is about to exit, or does not read.
            self.exiting.push(child);
        }
        let (channel, other) = Channel::pair()?;
        // Before the start, so that the process finds it at once.
        channel.send(&ToReaper::Close, &[descriptor.as_fd()]).map_err(io::Error::other)?;
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
