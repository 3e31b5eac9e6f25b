//! The messages of workers.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::host::{Host, Refusal};
use super::state::{AT_ONCE, EXHAUSTED_PAUSE, Monitor, reserved};
use crate::channel::ChannelError;
use crate::claim::Claim;
use crate::message::{ToMonitor, ToWorker};

/// The claims of one worker.
const CLAIMS: usize = 4096;

impl<H: Host> Monitor<H> {
    /// Handles the messages of a worker.
    pub(super) fn receive(&mut self, token: u64) {
        // Bounded, so that no worker keeps the loop.
        for _ in 0..AT_ONCE {
            let Some(worker) = self.workers.get(&token) else { return };
            let reason = match worker.channel.receive() {
                Ok((message, descriptors)) => {
                    self.answer(token, &message, descriptors);
                    continue;
                }
                Err(ChannelError::NotReady) => return,
                Err(ChannelError::Closed) => return self.lose(token),
                Err(ChannelError::Nonsense { reason, descriptors }) => {
                    for descriptor in descriptors {
                        self.reaper.close(descriptor);
                    }
                    reason
                }
                Err(ChannelError::LostDescriptors(_)) => "the monitor cannot open more files",
                Err(ChannelError::System(error)) => {
                    return self.fail(token, &ChannelError::System(error));
                }
            };
            let descriptors = Vec::new();
            return self.fail(token, &ChannelError::Nonsense { reason, descriptors });
        }
    }

    pub(super) fn answer(&mut self, token: u64, message: &ToMonitor, descriptors: Vec<OwnedFd>) {
        let Some(worker) = self.workers.get_mut(&token) else { return };
        let nonsense = |reason| ChannelError::Nonsense { reason, descriptors: Vec::new() };
        match *message {
            ToMonitor::Hello(build) => {
                if let Err(error) = worker.greet(build) {
                    self.fail(token, &error);
                }
            }
            ToMonitor::Received { number } => {
                let Some(copy) = worker.taken(number) else {
                    let error = nonsense("it received a connection that it was not passed");
                    return self.fail(token, &error);
                };
                self.reaper.close(copy);
                self.flush(token);
            }
            ToMonitor::NotReceived { number } => {
                let (uid, again_at) = (worker.uid(), Instant::now() + EXHAUSTED_PAUSE);
                if !worker.not_taken(number, again_at) {
                    return self
                        .fail(token, &nonsense("it refused a connection that it was not passed"));
                }
                self.host.refused(Refusal::NotTaken { uid });
            }
            ToMonitor::Lease { request, sessions } => self.lease(token, request, sessions),
            ToMonitor::Return { sessions } => {
                worker.leased = worker.leased.saturating_sub(sessions);
            }
            ToMonitor::Claim { request, claim } => self.claim(token, request, claim),
            ToMonitor::Unclaim { claim } => {
                worker.claims.remove(&claim);
            }
            ToMonitor::Closed { number } => {
                let uid = worker.uid();
                if !worker.closed(number) {
                    return self
                        .fail(token, &nonsense("it closed a connection that it does not have"));
                }
                self.release(uid, 1);
            }
            ToMonitor::InForce { generation } => {
                worker.in_force = generation;
                self.policy_distributed(Instant::now());
            }
            ToMonitor::Reload { request } => self.reload(Some((token, request))),
            ToMonitor::View { request, view } => self.view(token, request, view),
            ToMonitor::Seen { question } => {
                if let Some(part) = descriptors.into_iter().next() {
                    self.seen(token, question, part);
                }
            }
            ToMonitor::Idle { taken } => {
                if worker.is_idle(taken) {
                    let peer = worker.end();
                    self.serving.remove(&peer);
                    self.send(token, &ToWorker::MayEnd, &[]);
                }
            }
        }
    }

    /// Gives a worker what no other worker has claimed.
    fn claim(&mut self, token: u64, request: u64, claim: Claim) {
        let others = self.workers.iter().filter(|(other, _)| **other != token);
        let mut claimed = others.flat_map(|(_, worker)| &worker.claims);
        let is_free = !claimed.any(|other| other.conflicts_with(claim));
        let Some(worker) = self.workers.get_mut(&token) else { return };
        let granted = is_free && worker.claims.len() < CLAIMS;
        if granted {
            worker.claims.insert(claim);
        }
        self.send(token, &ToWorker::Claimed { request, granted }, &[]);
    }

    /// Leases sessions to a worker: few at a time where few are left, so that no worker holds what another needs.
    pub(super) fn lease(&mut self, token: u64, request: u64, wanted: u64) {
        let Some(worker) = self.workers.get(&token) else { return };
        let most = self.limits.sessions + reserved(worker.uid(), self.limits.sessions_reserved);
        let leased = self.workers.values().map(|worker| worker.leased).sum();
        let left = most.saturating_sub(leased);
        let sessions = wanted.min((left / 64).max(1)).min(left);
        if let Some(worker) = self.workers.get_mut(&token) {
            worker.leased += sessions;
        }
        self.send(token, &ToWorker::Leased { request, sessions }, &[]);
    }
}
