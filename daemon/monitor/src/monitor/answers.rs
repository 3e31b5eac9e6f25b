//! The messages of workers.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use sockbroker_sys::lot::Lot;

use super::host::{Host, Refusal};
use super::keep::Kept;
use super::remote::is_remote;
use super::state::{AT_ONCE, Monitor, is_owner, reserved};
use super::worker::Worker;
use crate::channel::ChannelError;
use crate::claim::Claim;
use crate::message::{
    CallerRefusal, MemoryLimit, ReaderRefusal, SessionLimit, ToMonitor, ToOpener, ToWorker,
};

/// Requests of one worker to read the policy that wait at a time. Each is of a waiting call, and the limits on those
/// are lower.
const RELOADS: u64 = 8192;

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
                Err(ChannelError::LostDescriptors { descriptors, .. }) => {
                    for descriptor in descriptors {
                        self.reaper.close(descriptor);
                    }
                    "the monitor cannot open more files"
                }
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
                let Some(copy) = worker.received(number) else {
                    let error = nonsense("it received a connection that it was not passed");
                    return self.fail(token, &error);
                };
                self.reaper.close(copy);
                self.flush(token);
            }
            ToMonitor::NotReceived { number } => {
                let (uid, known) = (worker.uid(), worker.requeue(number));
                if !known {
                    let error = nonsense("it refused a connection that it was not passed");
                    return self.fail(token, &error);
                }
                self.refuse(Refusal::NoFiles { uid });
            }
            ToMonitor::Lease { request, sessions } => self.lease(token, request, sessions),
            ToMonitor::Return { sessions } => worker.return_sessions(sessions),
            ToMonitor::LeaseMemory { request, bytes } => self.lease_memory(token, request, bytes),
            ToMonitor::ReturnMemory { bytes } => worker.return_memory(bytes),
            ToMonitor::Claim { request, claim } => self.claim(token, request, claim),
            ToMonitor::Unclaim { claim } => self.unclaim(token, claim),
            ToMonitor::Closed { number } => {
                let (uid, cookie) = (worker.uid(), worker.cookies.remove(&number));
                if !worker.closed(number) {
                    return self
                        .fail(token, &nonsense("it closed a connection that it does not have"));
                }
                self.report_closed(token, cookie);
                self.release(uid, 1);
            }
            ToMonitor::InForce { generation } => {
                worker.in_force = generation;
                self.policy_distributed(Instant::now());
            }
            ToMonitor::Reload { request } => self.reload_for(token, request),
            ToMonitor::QueryOthers { request, query } => self.query_others(token, request, query),
            ToMonitor::QueryResult { number } => {
                if let Some(result) = descriptors.into_iter().next() {
                    self.query_result(token, number, result);
                }
            }
            ToMonitor::Counters => {
                if let Some(page) = descriptors.into_iter().next() {
                    self.keep_page(token, page);
                }
            }
            ToMonitor::StartCaller { request } => self.start_caller(token, request),
            ToMonitor::StartReader { request } => self.start_reader(token, request),
            ToMonitor::Kept(message) => self.answer_kept(token, message, descriptors),
            ToMonitor::Idle { taken } => self.end_idle(token, taken),
        }
    }

    /// Reads the policy again for a worker.
    fn reload_for(&mut self, token: u64, request: u64) {
        let Some(worker) = self.workers.get_mut(&token) else { return };
        worker.reloads += 1;
        if worker.reloads > RELOADS {
            let reason = "it requests too many reloads at a time";
            let error = ChannelError::Nonsense { reason, descriptors: Vec::new() };
            return self.fail(token, &error);
        }
        self.reload(Some((token, request)));
    }

    /// Lets a worker end that has nothing to do, unless a connection is on its way.
    fn end_idle(&mut self, token: u64, taken: u64) {
        let Some(worker) = self.workers.get_mut(&token).filter(|worker| worker.is_idle(taken))
        else {
            return;
        };
        let peer = worker.end();
        self.serving.remove(&peer);
        self.send(token, &ToWorker::MayEnd, &[]);
    }

    /// Starts a process that makes calls with the ids of the worker's caller, if the policy grants such calls.
    fn start_caller(&mut self, token: u64, request: u64) {
        let Some(worker) = self.workers.get(&token) else { return };
        let (peer, names) = (worker.peer(), &self.policies.users.names);
        let granted = !is_remote(peer.uid)
            && self.policies.users.unix_callers.include(peer, is_owner(peer.uid));
        let refusal = if !granted {
            tracing::warn!(
                uid = peer.uid,
                "a worker asks to act as its user, which no rule grants"
            );
            CallerRefusal::NotGranted
        } else if !self.callers.can_become(peer) {
            CallerRefusal::Unable
        } else if !self.callers.starts.admit(peer.uid, Instant::now()) {
            CallerRefusal::Starts
        } else {
            match self.callers.start(token, peer, names, self.configuration.as_fd()) {
                Ok((calls, sends)) => {
                    return self.send(token, &ToWorker::Caller { request }, &[&calls, &sends]);
                }
                Err(error) => {
                    tracing::error!(uid = peer.uid, %error, "cannot start a process that acts as a user");
                    CallerRefusal::Failed(error.raw_os_error().unwrap_or(libc::EAGAIN))
                }
            }
        };
        self.send(token, &ToWorker::CallerRefused { request, refusal }, &[]);
    }

    /// Starts the process that reads the captures of a worker, once an earlier one has ended. The opener judges each
    /// capture.
    pub(super) fn start_reader(&mut self, token: u64, request: u64) {
        let Some(worker) = self.workers.get(&token) else { return };
        let (uid, peer) = (worker.uid(), worker.peer().clone());
        // Without an opener no capture can be opened, but those that an earlier broker left have to end.
        let has_left = |kept: &mut Kept| !kept.captures.is_empty().unwrap_or(true);
        let started = if self.opener.is_none() && !self.kept_of(token).is_some_and(has_left) {
            Err(ReaderRefusal::NoOpener)
        } else if self.readers.is_free(token, &peer) {
            self.start_free_reader(token, uid)
        } else if self.readers.wait(token, request) {
            return;
        } else {
            Err(ReaderRefusal::Starts)
        };
        match started {
            Ok(channel) => self.send(token, &ToWorker::Reader { request }, &[&channel]),
            Err(refusal) => self.send(token, &ToWorker::ReaderRefused { request, refusal }, &[]),
        }
    }

    fn start_free_reader(&mut self, token: u64, uid: u32) -> Result<OwnedFd, ReaderRefusal> {
        let failed =
            |error: &io::Error| ReaderRefusal::Failed(error.raw_os_error().unwrap_or(libc::EAGAIN));
        if !self.readers.starts.admit(uid, Instant::now()) {
            return Err(ReaderRefusal::Starts);
        }
        let copies = |lot: &Lot| {
            let [read, write] = lot.ends();
            Ok::<_, io::Error>([read.try_clone_to_owned()?, write.try_clone_to_owned()?])
        };
        let lot = match self.kept_of(token) {
            Some(kept) => copies(&kept.captures),
            None => self.readers.lot(token).and_then(copies),
        };
        let lot = lot.map_err(|error| failed(&error))?;
        let id = self.worker_ids.as_mut();
        let id = id.map(|ids| ids.of(uid).take().ok_or(ReaderRefusal::Ids)).transpose()?;
        let name = self.policies.users.names.process_name("reader", uid);
        let started = self.readers.start(token, (uid, &name), id, self.configuration.as_fd(), &lot);
        match (started, &mut self.opener) {
            (Ok((channel, of_opener)), Some(opener)) => {
                opener.send(ToOpener::Reader { worker: token }, vec![of_opener]);
                Ok(channel)
            }
            (Ok((channel, of_opener)), None) => {
                self.readers.hold(token, of_opener);
                Ok(channel)
            }
            (Err(error), _) => {
                let (uid, principal) = self.named(uid);
                tracing::error!(uid, principal, %error, "cannot start a process that reads captures");
                Err(failed(&error))
            }
        }
    }

    /// Starts the processes that waited for the end of earlier ones.
    pub(super) fn start_waiting_readers(&mut self) {
        for (token, request) in self.readers.take_waiting() {
            self.start_reader(token, request);
        }
    }

    /// Gives a worker what no other worker has claimed.
    fn claim(&mut self, token: u64, request: u64, claim: Claim) {
        let granted = self.claims.take(token, claim);
        if granted {
            self.note_claim(token, claim, true);
        }
        self.send(token, &ToWorker::Claimed { request, granted }, &[]);
    }

    /// The last socket with a claim is closed.
    fn unclaim(&mut self, token: u64, claim: Claim) {
        self.claims.end(token, claim);
        self.note_claim(token, claim, false);
    }

    /// Leases sessions to a worker: few at a time where few are left, so that no worker holds what another needs, and
    /// no more than its user can have.
    pub(super) fn lease(&mut self, token: u64, request: u64, wanted: u64) {
        let Some(worker) = self.workers.get(&token) else { return };
        let uid = worker.uid();
        let most = if is_remote(uid) {
            self.gateway.as_ref().map_or(0, |gateway| gateway.settings.sessions)
        } else {
            self.limits.sessions + reserved(uid, self.limits.sessions_reserved)
        };
        let leased = self.of_kind(uid).map(|worker| (worker.uid(), worker.leased));
        let left = most.saturating_sub(leased.clone().map(|(_, sessions)| sessions).sum());
        let own = self.limits.sessions_per_user.saturating_sub(self.of_account(uid, leased));
        let sessions = if own == 0 {
            Err(SessionLimit::OfUser)
        } else if left == 0 {
            Err(SessionLimit::InAll)
        } else {
            Ok(wanted.min((left / 64).max(1)).min(left).min(own))
        };
        if let (Ok(sessions), Some(worker)) = (sessions, self.workers.get_mut(&token)) {
            worker.leased += sessions;
        }
        self.send(token, &ToWorker::Leased { request, sessions }, &[]);
    }

    /// The workers that share limits "in all" with those of this user: neither remote nor local principals take what
    /// others need.
    fn of_kind(&self, uid: u32) -> impl Iterator<Item = &Worker> + Clone {
        self.workers.values().filter(move |worker| is_remote(worker.uid()) == is_remote(uid))
    }

    /// Leases kernel memory to a worker: all that it asks for, or nothing.
    fn lease_memory(&mut self, token: u64, request: u64, bytes: u64) {
        let Some(worker) = self.workers.get(&token) else { return };
        let uid = worker.uid();
        let leased = self.of_kind(uid).map(|worker| (worker.uid(), worker.leased_memory));
        let all = leased.clone().map(|(_, bytes)| bytes).fold(bytes, u64::saturating_add);
        let own = self.of_account(uid, leased).saturating_add(bytes);
        let leased = if own > self.limits.kernel_bytes_per_user {
            Err(MemoryLimit::OfUser)
        } else if all > self.limits.kernel_bytes {
            Err(MemoryLimit::InAll)
        } else {
            Ok(())
        };
        if let (Ok(()), Some(worker)) = (leased, self.workers.get_mut(&token)) {
            worker.leased_memory += bytes;
        }
        self.send(token, &ToWorker::MemoryLeased { request, leased }, &[]);
    }
}
