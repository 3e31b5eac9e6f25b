//! The state of the monitor, and the steps that all its parts share.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::events::{Events, Signals};
use sockbroker_sys::{process, socket};

use super::arrivals::Arrivals;
use super::callers::Callers;
use super::claims::Claims;
use super::counters::Counters;
use super::ended::{Ending, EndingProcesses};
use super::gateway_link::{Gateway, RemoteSettings};
use super::host::{Host, Limits, Refusal, Settings};
use super::keep::Kept;
use super::opener_link::{AGAIN, OpenerLink};
use super::policies::Policies;
use super::queries::Queries;
use super::readers::Readers;
use super::remote::{Named, RemotePrincipals};
use super::starts::Starts;
use super::store::Store;
use super::worker::Worker;
use super::worker_ids::AllWorkerIds;
use crate::channel::ChannelError;
use crate::message::ToWorker;
use crate::reaper::Reaper;

/// How long the monitor does not accept when the process is out of descriptors or memory.
pub(super) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// The connections that one turn of the loop accepts, and the messages that it takes from one worker.
pub(super) const AT_ONCE: usize = 64;

pub(super) const LISTENER: u64 = 0;
pub(super) const SIGNALS: u64 = 1;
pub(super) const READER: u64 = 2;
pub(super) const OPENER: u64 = 3;
pub(super) const GATEWAY: u64 = 4;
/// The first number that an arrival or a worker gets.
pub(super) const FIRST: u64 = 16;

/// The monitor.
#[derive(Debug)]
pub struct Monitor<H> {
    pub(super) host: H,
    pub(super) limits: Limits,
    pub(super) activated: bool,
    pub(super) listener: Option<OwnedFd>,
    pub(super) configuration: OwnedFd,
    pub(super) events: Events,
    pub(super) signals: Signals,
    pub(super) arrivals: Arrivals,
    /// The workers by the numbers of their channels.
    pub(super) workers: BTreeMap<u64, Worker>,
    /// The worker that serves each principal.
    pub(super) serving: HashMap<Credentials, u64>,
    /// Open connections by user.
    pub(super) connections: HashMap<u32, u64>,
    /// `None` if workers have the user id of the monitor.
    pub(super) worker_ids: Option<AllWorkerIds>,
    pub(super) starts: Starts,
    pub(super) callers: Callers,
    pub(super) readers: Readers,
    pub(super) policies: Policies,
    pub(super) queries: Queries,
    pub(super) claims: Claims,
    pub(super) counters: Counters,
    pub(super) ending: EndingProcesses,
    pub(super) reaper: Reaper,
    /// The lots of each principal that has persistent sessions.
    pub(super) kept: HashMap<Credentials, Kept>,
    pub(super) store: Store,
    /// Whose lots the service manager is still to confirm.
    pub(super) barriers: HashMap<u64, Credentials>,
    /// The number of the next lots, for their name.
    pub(super) next_lots: u64,
    pub(super) opener: Option<OpenerLink>,
    /// `None` if the broker serves no remote principals.
    pub(super) gateway: Option<Gateway>,
    pub(super) remote: RemotePrincipals,
    pub(super) warns_of_lost_capabilities: bool,
    /// Why the broker has to end.
    pub(super) failure: Option<&'static str>,
    pub(super) next: u64,
    /// The number of the next worker.
    pub(super) serial: u64,
    pub(super) accept_again: Option<Instant>,
    pub(super) sweep_at: Option<Instant>,
    /// When workers that have not ended are killed; set once the broker stops.
    pub(super) kill_at: Option<Instant>,
    /// When workers are killed that have not received by then that the broker stops.
    pub(super) kill_unaware_at: Option<Instant>,
}

/// What is reserved for root and for the broker's own user.
pub(super) fn reserved(uid: u32, amount: u64) -> u64 {
    if is_owner(uid) { amount } else { 0 }
}

/// Whether a user is root or the broker's own.
pub(super) fn is_owner(uid: u32) -> bool {
    uid == 0 || uid == process::effective_uid()
}

impl<H: Host> Monitor<H> {
    /// A monitor that serves these settings. The signals MUST have been blocked before the process had a second
    /// thread: the kernel gives a signal to any thread that does not block it.
    pub fn new(settings: Settings, signals: Signals, host: H) -> io::Result<Self> {
        let Settings { listener, limits, configuration, policy, files, activated, .. } = settings;
        let Settings { opener, warns_of_lost_capabilities, worker_ids, remote, .. } = settings;
        let mut reaper = Reaper::default();
        settings.discarded.into_iter().for_each(|descriptor| reaper.close(descriptor));
        let events = Events::new()?;
        socket::set_nonblocking(listener.as_fd(), true)?;
        events.add(listener.as_fd(), LISTENER)?;
        events.add(signals.as_fd(), SIGNALS)?;
        if let Some(opener) = &opener {
            events.add(opener.channel.as_fd(), OPENER)?;
        }
        let of_remote = remote.as_ref().map_or(0, RemoteSettings::ids);
        let worker_ids = worker_ids.map(|range| AllWorkerIds::new(range, of_remote)).transpose()?;
        let names = settings.stored.iter().map(|(name, _)| name.clone());
        let store = Store::new(settings.service_manager, names);
        let mut monitor = Self {
            host,
            limits,
            activated,
            listener: Some(listener),
            configuration,
            events,
            signals,
            arrivals: Arrivals::default(),
            workers: BTreeMap::new(),
            serving: HashMap::new(),
            connections: HashMap::new(),
            worker_ids,
            starts: Starts::new(limits.starts_per_second),
            callers: Callers::new(limits.starts_per_second),
            readers: Readers::new(limits.starts_per_second),
            policies: Policies::new(policy, files),
            queries: Queries::default(),
            claims: Claims::default(),
            counters: Counters::default(),
            ending: EndingProcesses::default(),
            reaper,
            kept: HashMap::new(),
            store,
            barriers: HashMap::new(),
            next_lots: 1,
            opener,
            gateway: remote.map(Gateway::new),
            remote: RemotePrincipals::default(),
            warns_of_lost_capabilities,
            failure: None,
            next: FIRST,
            serial: 0,
            accept_again: None,
            sweep_at: None,
            kill_at: None,
            kill_unaware_at: None,
        };
        monitor.restore(settings.stored);
        Ok(monitor)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Counts and reports a connection that is closed.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.counters.refused(match &refusal {
            Refusal::Limit { limit, .. } => limit,
            Refusal::UnknownPeer(_) => "unknown_peer",
            Refusal::NotAccepted(_) => "not_accepted",
            Refusal::NoFiles { .. } => "no_files",
            Refusal::NotStarted { .. } => "not_started",
        });
        let remote = refusal.uid().and_then(|uid| self.remote.get(uid)).cloned();
        self.host.refused(refusal, remote);
    }

    /// A user, or a remote principal by its name, for the fields `uid` and `principal` of the log.
    pub(super) fn named(&self, uid: u32) -> Named {
        self.remote.named(uid)
    }

    /// Forgets connections of a user.
    pub(super) fn release(&mut self, uid: u32, count: u64) {
        if let Some(own) = self.connections.get_mut(&uid) {
            *own = own.saturating_sub(count);
            if *own == 0 {
                self.connections.remove(&uid);
            }
        }
    }

    /// Sends a worker what it has room for. A worker whose channel is full is ended.
    pub(super) fn flush(&mut self, token: u64) {
        let behind = self.opener_is_behind();
        let Some(worker) = self.workers.get_mut(&token) else { return };
        if behind {
            worker.flush_at = Some(Instant::now() + AGAIN);
            return;
        }
        if let Err(error) = worker.flush() {
            self.fail(token, &error);
        }
    }

    /// Sends a message to a worker.
    pub(super) fn send(&mut self, token: u64, message: &ToWorker, descriptors: &[&OwnedFd]) {
        let Some(worker) = self.workers.get(&token) else { return };
        let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        if let Err(error) = worker.channel.send(message, &descriptors) {
            self.fail(token, &error);
        }
    }

    /// Ends a worker that broke the rules of its channel, or does not read it.
    pub(super) fn fail(&mut self, token: u64, error: &ChannelError) {
        // It has ended. The event loop reads what it sent before, and then finds the end.
        if matches!(error, ChannelError::Closed) {
            return;
        }
        let named = self.workers.get(&token).map(|worker| self.named(worker.uid()));
        if let Some((worker, (uid, principal))) = self.workers.get_mut(&token).zip(named) {
            let pid = worker.pid();
            tracing::error!(uid, principal, pid, %error, "killed a worker");
            worker.kill();
        }
        self.lose(token);
    }

    /// Forgets a worker that has ended. Connections that it had not confirmed are passed once more.
    pub(super) fn lose(&mut self, token: u64) {
        let Some(mut worker) = self.workers.remove(&token) else { return };
        if let Some(opener) = &mut self.opener {
            opener.end_worker(token);
        }
        drop(self.events.remove(worker.channel.as_fd()));
        self.counters.ended(worker.how(), worker.page.as_ref());
        if let Some(page) = worker.page.take() {
            self.reaper.close(page);
        }
        // One that it has received cannot be passed again: the first request is read.
        for received in worker.last_received() {
            self.reaper.close(received);
        }
        let peer = worker.end();
        if self.serving.get(&peer) == Some(&token) {
            self.serving.remove(&peer);
        }
        let (unconfirmed, held) = worker.take_connections();
        self.release(peer.uid, held);
        let named = self.named(peer.uid);
        let (process, channel) = worker.abandon(named);
        self.ending.add(process);
        // Descriptors that the worker sent last may be queued here.
        self.reaper.close(channel);
        for mut child in self.callers.take(token) {
            // It may have ended already, and ends without its worker in any case.
            drop(child.kill());
            self.ending.add(Ending { child, unexpected: None, id: None });
        }
        self.readers.leave(token, &peer);
        self.leave_claims(token, &peer);
        if !self.serving.contains_key(&peer) {
            self.leave_lots(&peer);
        }
        self.queries.lost(token);
        self.finish_queries(Instant::now());
        self.policy_distributed(Instant::now());
        let stopping = self.kill_at.is_some();
        for (number, connection, retried) in unconfirmed {
            if retried || stopping {
                self.reaper.close_connection(connection);
                self.release(peer.uid, 1);
            } else {
                self.pass_again(number, &peer, connection);
            }
        }
    }

    fn pass_again(&mut self, number: u64, peer: &Credentials, connection: OwnedFd) {
        // A refusal is in the log, and the gateway sees the end.
        drop(self.pass(number, peer, connection));
        if let Some(worker) = self.serving.get(peer).and_then(|token| self.workers.get_mut(token)) {
            worker.note_retry(number);
        }
    }
}
