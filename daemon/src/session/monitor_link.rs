//! A worker's requests to the monitor. The task that owns the channel sends them (`startup/worker.rs`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sockbroker_monitor::claim::Claim;
use sockbroker_monitor::message::{
    Caller, MemoryLimit, PersistRefusal, Persisted, Query, SessionLimit, WaitingSession,
};
use sockbroker_policy::subject::{RemoteIdentity, Subject};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::limits::{Limits, size};
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentities;
use crate::network::caller_process::{CallerProcess, Started};
use crate::network::captures::{self, CaptureSource, Reader};

/// What a worker asks of the monitor.
#[derive(Debug)]
pub enum MonitorRequest {
    /// A connection that the monitor passed has ended.
    Closed(u64),
    /// Reads the policy again: the generation in force then, or why the new policy cannot be used.
    Reload(oneshot::Sender<Result<u64, String>>),
    /// Asks for this number of further sessions; they are leased when the sender is used, unless a limit leaves none.
    Lease(u64, oneshot::Sender<Result<(), SessionLimit>>),
    /// Asks for this number of further bytes of kernel memory; they are leased when the sender is used, unless a limit
    /// does not allow it.
    LeaseMemory(u64, oneshot::Sender<Result<(), MemoryLimit>>),
    /// Claims a port or a group: whether no other worker has it.
    Claim(Claim, oneshot::Sender<bool>),
    /// Gives a claim back.
    Unclaim(Claim),
    /// The page of metrics, which the monitor keeps.
    Counters(Vec<u8>),
    /// Starts the process that acts as the caller.
    StartCaller(oneshot::Sender<Started>),
    /// Starts the process that reads captures.
    StartReader(oneshot::Sender<captures::Started>),
    /// About a kept session.
    Kept(KeptRequest),
    /// What all other workers answer.
    QueryOthers(Query, oneshot::Sender<QueryResults>),
}

/// What a worker asks of the monitor about sessions that outlive it.
#[derive(Debug)]
pub enum KeptRequest {
    /// Keeps a session with this linger for the next worker: its number, and what the monitor keeps of it.
    Persist((u64, Duration), Vec<u8>, oneshot::Sender<Result<Persisted, PersistRefusal>>),
    /// Notes what a kept session gave up.
    Restricted(u64, Vec<u8>, oneshot::Sender<Result<(), PersistRefusal>>),
    /// A kept session has another linger.
    Linger(u64, Duration),
    /// A kept session has its first connection, or has lost its last one.
    Attached(u64, bool),
    /// A kept session has ended.
    Over(u64),
}

/// What the other workers answered.
#[derive(Debug, Default)]
pub struct QueryResults {
    /// The user of each worker, and its answer.
    pub results: Vec<(u32, Vec<u8>)>,
    /// The sessions that have no worker, if the query was for sessions.
    pub waiting: Vec<WaitingSession>,
    /// The number of workers that did not answer; `None` if the monitor refused the query.
    pub missing: Option<u64>,
}

/// The way to the monitor. The number of requests in it is bounded by the connections and calls of the worker.
#[derive(Clone)]
pub struct MonitorLink {
    requests: mpsc::UnboundedSender<MonitorRequest>,
    /// In the worker of a remote principal.
    remote: Option<Arc<Remote>>,
}

impl fmt::Debug for MonitorLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MonitorLink")
    }
}

impl MonitorLink {
    /// How calls act as their caller: through a process that the monitor starts.
    pub fn callers(self, caller: Caller, limits: &Limits) -> CallerIdentities {
        let process = CallerProcess::new(Box::new(move || self.start_caller()));
        let (jobs, starts) = (size(limits.identity_jobs), limits.worker_starts_per_second);
        CallerIdentities::of_worker(jobs, caller, process, starts)
    }

    /// Captures, which a process reads that the monitor starts.
    pub fn captures(self) -> CaptureSource {
        CaptureSource::new(Some(Reader::new(move || self.start_reader())))
    }

    /// A link, and its other end. In the worker of a remote principal, it has the number by which the monitor counts for
    /// this principal.
    pub fn new(
        remote: Option<(u32, RemoteIdentity)>,
    ) -> (Self, mpsc::UnboundedReceiver<MonitorRequest>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by connections and calls")]
        let (requests, receiver) = mpsc::unbounded_channel();
        let remote = remote.map(|(number, identity)| {
            let subject = Subject::remote(number, identity);
            Arc::new(Remote { subject, ends: Mutex::default() })
        });
        (Self { requests, remote }, receiver)
    }

    /// Whether this is the worker of a remote principal.
    pub fn serves_remote_principal(&self) -> bool {
        self.remote.is_some()
    }

    /// Counts a connection until the result is dropped.
    pub fn connection(&self, number: u64) -> PassedConnection {
        let end = self.remote.as_ref().map(|remote| remote.add(number));
        PassedConnection { link: self.clone(), number, end }
    }

    /// Ends a connection of a remote principal, unless it has ended already.
    pub fn end(&self, number: u64, reason: String) {
        if let Some(remote) = &self.remote {
            remote.end(number, reason);
        }
    }

    /// Reads the policy again.
    pub(super) async fn reload(&self) -> OpResult<u64> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::Reload(sender));
        result.await.map_err(|_ended| ended())?.map_err(OpError::Policy)
    }

    /// Leases further sessions, at least one; or the limit that leaves none.
    pub(super) async fn lease(&self, sessions: u64) -> OpResult<Result<(), SessionLimit>> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::Lease(sessions, sender));
        result.await.map_err(|_ended| ended())
    }

    /// Leases further bytes of kernel memory; or the limit that does not allow it.
    pub(super) async fn lease_memory(&self, bytes: u64) -> OpResult<Result<(), MemoryLimit>> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::LeaseMemory(bytes, sender));
        result.await.map_err(|_ended| ended())
    }

    /// Claims a port or a group: whether no other worker has it.
    pub(super) async fn claim(&self, claim: Claim) -> OpResult<bool> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::Claim(claim, sender));
        result.await.map_err(|_ended| ended())
    }

    /// Gives a claim back.
    pub(super) fn unclaim(&self, claim: Claim) {
        self.send(MonitorRequest::Unclaim(claim));
    }

    /// Gives the monitor the page of metrics, so that sums that were reported do not fall when this worker ends.
    pub fn keep_counters(&self, page: Vec<u8>) {
        self.send(MonitorRequest::Counters(page));
    }

    /// What the other workers answer.
    pub async fn query_others(&self, query: Query) -> OpResult<QueryResults> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::QueryOthers(query, sender));
        result.await.map_err(|_ended| ended())
    }

    /// Keeps a session for the next worker.
    pub(super) async fn persist(
        &self,
        session: u64,
        linger: Duration,
        facts: Vec<u8>,
    ) -> OpResult<Result<Persisted, PersistRefusal>> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::Kept(KeptRequest::Persist((session, linger), facts, sender)));
        result.await.map_err(|_ended| ended())
    }

    /// Notes what a kept session gave up.
    pub(super) async fn restricted(
        &self,
        session: u64,
        text: Vec<u8>,
    ) -> OpResult<Result<(), PersistRefusal>> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::Kept(KeptRequest::Restricted(session, text, sender)));
        result.await.map_err(|_ended| ended())
    }

    /// Reports that a kept session has another linger.
    pub(super) fn linger(&self, session: u64, linger: Duration) {
        self.send(MonitorRequest::Kept(KeptRequest::Linger(session, linger)));
    }

    /// Reports that a kept session has its first connection, or has lost its last one.
    pub(super) fn attached(&self, session: u64, attached: bool) {
        self.send(MonitorRequest::Kept(KeptRequest::Attached(session, attached)));
    }

    /// Reports the end of a kept session.
    pub(super) fn session_over(&self, session: u64) {
        self.send(MonitorRequest::Kept(KeptRequest::Over(session)));
    }

    /// Starts the process that acts as the caller.
    pub fn start_caller(&self) -> oneshot::Receiver<Started> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::StartCaller(sender));
        result
    }

    /// Starts the process that reads captures.
    pub fn start_reader(&self) -> oneshot::Receiver<captures::Started> {
        let (sender, result) = oneshot::channel();
        self.send(MonitorRequest::StartReader(sender));
        result
    }

    fn send(&self, request: MonitorRequest) {
        // Without the task the worker is about to end.
        drop(self.requests.send(request));
    }
}

fn ended() -> OpError {
    OpError::Session("the broker is shutting down")
}

/// Receives the reason when a connection has to end alone.
pub type End = watch::Receiver<Option<String>>;

/// The remote principal of a worker, and its connections, which can end alone, by their numbers.
struct Remote {
    subject: Subject,
    ends: Mutex<HashMap<u64, watch::Sender<Option<String>>>>,
}

impl Remote {
    fn add(&self, number: u64) -> End {
        let (sender, end) = watch::channel(None);
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        end
    }

    fn remove(&self, number: u64) {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    fn end(&self, number: u64, reason: String) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = ends.get(&number) {
            end.send_replace(Some(reason));
        }
    }
}

/// A connection that the monitor passed. The monitor counts it until this is dropped.
#[derive(Debug)]
pub struct PassedConnection {
    link: MonitorLink,
    number: u64,
    end: Option<End>,
}

impl PassedConnection {
    /// Receives the reason if it has to end alone.
    pub fn end(&self) -> Option<End> {
        self.end.clone()
    }

    /// The remote principal of this worker; `None` if the kernel reports who calls.
    pub fn remote(&self) -> Option<&Subject> {
        self.link.remote.as_ref().map(|remote| &remote.subject)
    }
}

impl Drop for PassedConnection {
    fn drop(&mut self) {
        if let Some(remote) = &self.link.remote {
            remote.remove(self.number);
        }
        self.link.send(MonitorRequest::Closed(self.number));
    }
}
