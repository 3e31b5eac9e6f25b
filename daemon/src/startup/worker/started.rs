//! Passes answers of the monitor to the calls that wait for them.

use std::io;
use std::os::fd::OwnedFd;

use sockbroker_monitor::message::{CallerRefusal, ToMonitor};

use super::Follower;
use crate::network::caller_process::Started;
use crate::network::captures;

impl Follower {
    /// Passes the answer to a request for a process that acts as the caller. Without a reason, the channels are lost.
    pub(super) fn caller_started(
        &mut self,
        request: u64,
        ends: Option<(OwnedFd, OwnedFd)>,
        refusal: Option<CallerRefusal>,
    ) {
        let started: Started = ends.ok_or(refusal.unwrap_or(CallerRefusal::Failed(libc::EMFILE)));
        if let Some(sender) = self.callers.remove(&request) {
            // Without the call that needs it, the process ends.
            drop(sender.send(started));
        }
    }

    /// Passes the answer to a request for the process that reads captures.
    pub(super) fn reader_started(&mut self, request: u64, started: captures::Started) {
        if let Some(sender) = self.readers.remove(&request) {
            // Without the call that needs it, the process ends.
            drop(sender.send(started));
        }
    }

    /// Passes the answer to a claim to the call that made it. A call that was cancelled gives the claim back.
    pub(super) fn claimed(&mut self, request: u64, granted: bool) -> io::Result<()> {
        let Some((claim, sender)) = self.claims.remove(&request) else { return Ok(()) };
        if sender.send(granted).is_err() && granted && !self.broker.claims.has(claim) {
            self.send(ToMonitor::Unclaim { claim }, None)?;
        }
        Ok(())
    }
}
