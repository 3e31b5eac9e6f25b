//! Passes answers of the monitor to the calls that wait for them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sockbroker_monitor::message::{CallerRefusal, ToMonitor};
use sockbroker_sys::{process, sealed};

use super::Follower;
use crate::descriptor::Descriptor;
use crate::network::caller_process::Started;
use crate::network::captures;
use crate::principal::PrincipalKey;
use crate::startup::sources::MEMORY;

impl Follower {
    /// Passes the result of a reload. The call may have been cancelled.
    pub(super) fn reloaded(&mut self, request: u64, result: Result<u64, String>) {
        drop(self.reloads.remove(&request).map(|reload| reload.send(result)));
    }

    /// Adds the answer of another worker, which may have sent anything: also a socket whose close waits.
    pub(super) fn add_result(&mut self, request: u64, uid: u32, answer: Option<OwnedFd>) {
        let (Some((results, unread, _)), Some(answer)) = (self.queries.get_mut(&request), answer)
        else {
            return;
        };
        let own = self.broker.users.user(&PrincipalKey::of_uid(process::effective_uid()));
        let answer = Descriptor::of_client(answer, &own);
        match sealed::read(answer.as_fd(), MEMORY) {
            Ok(answer) => results.results.push((uid, answer)),
            Err(_) => *unread += 1,
        }
    }

    /// Passes the answers of the other workers.
    pub(super) fn end_query(&mut self, request: u64, missing: Option<u64>) {
        if let Some((mut results, unread, sender)) = self.queries.remove(&request) {
            results.missing = missing.map(|missing| missing + unread);
            drop(sender.send(results));
        }
    }

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
