//! Reports connections to the opener, and handles its messages.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use sockbroker_sys::socket;

use super::host::Host;
use super::opener_link::{AGAIN, LATE};
use super::state::Monitor;
use crate::channel::ChannelError;
use crate::message::{FromOpener, ToOpener};

impl<H: Host> Monitor<H> {
    /// Reports a connection to the opener before a worker gets it. Returns its cookie.
    pub(super) fn report_connection(&mut self, worker: u64, connection: &OwnedFd) -> Option<u64> {
        let opener = self.opener.as_mut()?;
        // Without a cookie the connection is served, and the opener refuses what is asked for it.
        let cookie = socket::cookie(connection.as_fd()).ok()?;
        opener.send(ToOpener::Accepted { worker, cookie }, Vec::new());
        Some(cookie)
    }

    /// Reports the end of a connection.
    pub(super) fn report_closed(&mut self, worker: u64, cookie: Option<u64>) {
        if let Some((opener, cookie)) = self.opener.as_mut().zip(cookie) {
            opener.send(ToOpener::Closed { worker, cookie }, Vec::new());
        }
    }

    /// Whether the opener does not know yet what it has to know before a worker gets a connection.
    pub(super) fn opener_is_behind(&self) -> bool {
        self.opener.as_ref().is_some_and(|opener| opener.behind_since.is_some())
    }

    /// Handles the messages of the opener. An error if it has ended: nothing replaces it, because the monitor has
    /// dropped its capabilities.
    pub(super) fn read_opener(&mut self) -> io::Result<()> {
        while let Some(opener) = &mut self.opener {
            match opener.channel.receive() {
                Ok((FromOpener::InForce { generation }, _)) => {
                    opener.in_force = generation;
                    self.policy_distributed(Instant::now());
                }
                Ok((FromOpener::Forgotten, _)) => opener.answered(),
                Ok((FromOpener::Nonsense { worker }, _)) => {
                    let reason = "it sent nonsense to the opener";
                    let descriptors = Vec::new();
                    self.fail(worker, &ChannelError::Nonsense { reason, descriptors });
                }
                Ok((FromOpener::Hello(_) | FromOpener::Ready(_), _)) => {
                    return Err(io::Error::other("the opener began twice"));
                }
                Err(ChannelError::NotReady) => return Ok(()),
                Err(error) => {
                    let pid = opener.pid();
                    tracing::error!(pid, %error, "the opener has ended, and the broker ends with it");
                    return Err(io::Error::other("the opener has ended"));
                }
            }
        }
        Ok(())
    }

    /// Sends the opener what waits for room in its channel. Returns when to do so again. An error if the opener does
    /// not read or answer.
    pub(super) fn flush_opener(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        let Some(opener) = &mut self.opener else { return Ok(None) };
        if opener.behind_since.is_some() {
            opener.flush().map_err(io::Error::other)?;
        }
        let respond_by = opener.respond_by();
        if respond_by.is_some_and(|at| at <= now) {
            tracing::error!(pid = opener.pid(), "the opener does not respond, and the broker ends");
            return Err(io::Error::other("the opener does not respond"));
        }
        match opener.behind_since {
            Some(since) if now.saturating_duration_since(since) >= LATE => {
                tracing::error!(pid = opener.pid(), "the opener does not read its channel");
                Err(io::Error::other("the opener does not respond"))
            }
            Some(_) => Ok(Some(now + AGAIN)),
            None => Ok(respond_by),
        }
    }
}
