//! Persistent sessions: what the monitor keeps of them, and the lots that it passes.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sockbroker_monitor::message::{FromKept, Index, Persisted, ToKept, ToMonitor};
use sockbroker_sys::lot::Lot;
use sockbroker_sys::sealed;

use super::Follower;
use crate::session::monitor_link::KeptRequest;
use crate::startup::sources::{MEMORY, in_memory};

impl Follower {
    pub(super) fn handle_kept(
        &mut self,
        message: ToKept,
        mut descriptors: impl Iterator<Item = OwnedFd>,
    ) -> io::Result<()> {
        match message {
            ToKept::Lot => self.add_lot(descriptors.next().zip(descriptors.next())),
            ToKept::Recover(persisted) => self.recover(persisted, descriptors.next()),
            ToKept::Persisted { request, result } => {
                // The call may have been cancelled. Its session stays kept until it ends.
                if let Some(persist) = self.persists.remove(&request) {
                    persist.send(result).ok();
                }
                Ok(())
            }
            ToKept::Noted { request, result } => {
                if let Some(noted) = self.restrictions.remove(&request) {
                    noted.send(result).ok();
                }
                Ok(())
            }
            ToKept::Waiting { request } => self.add_waiting(request, descriptors.next()),
        }
    }

    /// Adds the sessions that have no worker to the answers to a query.
    fn add_waiting(&mut self, request: u64, sessions: Option<OwnedFd>) -> io::Result<()> {
        let sessions = sessions.ok_or_else(|| io::Error::other("no sessions came"))?;
        if let Some((results, _, _)) = self.queries.get_mut(&request) {
            let sessions = sealed::read(sessions.as_fd(), MEMORY)?;
            results.waiting = postcard::from_bytes(&sessions).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Adds a lot.
    fn add_lot(&mut self, ends: Option<(OwnedFd, OwnedFd)>) -> io::Result<()> {
        let (first, second) = ends.ok_or_else(|| io::Error::other("a lot has two ends"))?;
        self.broker.lots.add(Lot::of_ends(first, second)?);
        Ok(())
    }

    /// Restores the sessions that an earlier worker left.
    fn recover(&mut self, persisted: Persisted, index: Option<OwnedFd>) -> io::Result<()> {
        let index = index.ok_or_else(|| io::Error::other("no sessions came"))?;
        let index = sealed::read(index.as_fd(), MEMORY)?;
        let index: Index = postcard::from_bytes(&index).map_err(io::Error::other)?;
        let sessions = self.broker.recover(&index, persisted)? as u64;
        for claim in self.broker.claims.all() {
            self.send(ToMonitor::Kept(FromKept::Claimed { claim }), None)?;
        }
        let handles = (self.broker.lots.messages() as u64).saturating_sub(sessions);
        tracing::info!(sessions, handles, "recovered sessions");
        self.send(ToMonitor::Kept(FromKept::Recovered { sessions, handles }), None)
    }

    /// Sends a request about a kept session. One that cannot be sent is answered by the end of its sender.
    pub(super) fn request_kept(&mut self, number: u64, request: KeptRequest) -> io::Result<()> {
        match request {
            KeptRequest::Persist((session, linger), facts, sender) => {
                let Some(memory) = in_memory("session", &facts) else { return Ok(()) };
                self.persists.insert(number, sender);
                let message = FromKept::Persist { request: number, session, linger };
                self.send(ToMonitor::Kept(message), Some(memory))
            }
            KeptRequest::Restricted(session, text, sender) => {
                let Some(memory) = in_memory("restriction", &text) else { return Ok(()) };
                self.restrictions.insert(number, sender);
                let message = FromKept::Restricted { request: number, session };
                self.send(ToMonitor::Kept(message), Some(memory))
            }
            KeptRequest::Linger(session, linger) => {
                self.send(ToMonitor::Kept(FromKept::Linger { session, linger }), None)
            }
            KeptRequest::Attached(session, attached) => {
                self.send(ToMonitor::Kept(FromKept::Attached { session, attached }), None)
            }
            KeptRequest::Over(session) => {
                self.send(ToMonitor::Kept(FromKept::Over { session }), None)
            }
        }
    }
}
