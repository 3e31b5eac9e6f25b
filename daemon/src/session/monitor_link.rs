//! A worker's requests to the monitor. The task that owns the channel sends them (`startup/worker.rs`).

use std::collections::HashMap;
use std::fmt;

use sockbroker_monitor::claim::Claim;
use sockbroker_monitor::message::{Caller, Query, SessionLimit};
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
    /// What all other workers answer.
    QueryOthers(Query, oneshot::Sender<QueryResults>),
}

/// What the other workers answered.
#[derive(Debug, Default)]
pub struct QueryResults {
    /// The user of each worker, and its answer.
    pub results: Vec<(u32, Vec<u8>)>,
    /// The number of workers that did not answer; `None` if the monitor refused the query.
    pub missing: Option<u64>,
}

/// The way to the monitor. The number of requests in it is bounded by the connections and calls of the worker.
#[derive(Clone)]
pub struct MonitorLink(mpsc::UnboundedSender<MonitorRequest>);

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

    /// A link, and its other end.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<MonitorRequest>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by connections and calls")]
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Counts a connection until the result is dropped.
    /// If it can end alone, it does so for the reason that `end` receives.
    pub fn connection(&self, number: u64, end: Option<End>) -> PassedConnection {
        PassedConnection { link: self.clone(), number, end }
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
        drop(self.0.send(request));
    }
}

fn ended() -> OpError {
    OpError::Session("the broker is shutting down")
}

/// Receives the reason when a connection has to end alone.
pub type End = watch::Receiver<Option<String>>;

/// The connections of a remote principal, which can end alone, by their numbers.
#[derive(Debug, Default)]
pub struct Ends(HashMap<u64, watch::Sender<Option<String>>>);

impl Ends {
    pub fn add(&mut self, number: u64) -> End {
        let (sender, end) = watch::channel(None);
        self.0.insert(number, sender);
        end
    }

    pub fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    /// Ends a connection, unless it has ended already.
    pub fn end(&self, number: u64, reason: String) {
        if let Some(end) = self.0.get(&number) {
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
}

impl Drop for PassedConnection {
    fn drop(&mut self) {
        self.link.send(MonitorRequest::Closed(self.number));
    }
}
