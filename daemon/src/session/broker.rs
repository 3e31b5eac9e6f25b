//! The broker: what all connections share, and the sessions.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sockbroker_monitor::opener::Namespaces;
use sockbroker_proto::api::broker::Process;

use crate::config;
use crate::config::limits::{Limits, size};
use crate::descriptor::Descriptor;
use crate::network::caller_identity::CallerIdentities;
use crate::network::captures::CaptureSource;
use crate::network::opener::{Opener, Privileged};
use crate::network::resolve::Resolver;
use crate::observe::audit::{Audit, Record};
use crate::observe::metrics::Metrics;
use crate::observe::refusals::{Reason, Refusals};
use crate::ops::control_end::ControlEnds;
use crate::ops::unix_file::ControlFile;
use crate::principal::PrincipalKey;
use crate::quota::{Quota, Users};
use crate::session::Session;
use crate::session::activity::Activity;
use crate::session::lots::Lots;
use crate::session::monitor_link::MonitorLink;
use crate::session::pending_channels::PendingChannels;
use crate::session::policy::{NextPolicy, PolicyInForce};
use crate::session::sweep_schedule::Sweeps;
use crate::table::claims::Claims;
use sockbroker_policy::Policy;

#[derive(Debug)]
pub struct Broker {
    /// The policy in force.
    pub policy: PolicyInForce,
    pub limits: Limits,
    /// The network namespaces of sockets.
    pub namespaces: Arc<Namespaces>,
    /// The folder of the files with which names are resolved in named ones.
    pub name_files: PathBuf,
    /// Resolves names in the broker's network namespace.
    pub resolver: Resolver,
    /// Makes calls on `AF_UNIX` sockets with the ids of the caller.
    pub callers: CallerIdentities,
    /// The connections to the broker, which no client may pass as a descriptor.
    pub control_ends: ControlEnds,
    /// What every principal uses of the limits.
    pub users: Users,
    /// The process that the broker is, and what confines it.
    pub process: Process,
    /// Where captures are read.
    pub captures: CaptureSource,
    /// The channel to the opener, and the process that it is.
    pub opener: Option<(Opener, Process)>,
    /// The file of the control socket, which is never a destination.
    pub control: OnceLock<ControlFile>,
    /// The owners of fan-out groups and of ports with `SO_REUSEPORT`.
    pub claims: Claims,
    /// Where decisions are recorded.
    pub audit: Audit,
    pub metrics: Arc<Metrics>,
    /// The log of refused connections.
    pub refusals: Refusals,
    /// The channels whose tokens are not used yet.
    pub channels: PendingChannels,
    /// When something is to be swept.
    pub sweeps: Sweeps,
    /// Whether anything happens in this process.
    pub activity: Activity,
    sessions: Mutex<Sessions>,
    /// The number of opened sessions that the monitor has leased to this worker.
    pub(super) leased_sessions: AtomicU64,
    /// Held by the call that asks the monitor for further ones.
    pub(super) leasing: tokio::sync::Mutex<()>,
    /// The bytes of kernel memory that the monitor has leased to this worker.
    pub(super) leased_memory: AtomicU64,
    /// Held from the look at what of them is used until it is used, so that nothing else uses it.
    pub(super) using_memory: tokio::sync::Mutex<()>,
    numbers: AtomicU64,
    /// The first number that this process gives.
    pub(super) first_number: u64,
    /// The number of this process among those that served its principal.
    pub epoch: u64,
    /// Where the handles of persistent sessions lie.
    pub lots: Arc<Lots>,
    /// Held by the call that makes a session persistent.
    pub(super) persisting: tokio::sync::Mutex<()>,
    /// Whether the process is about to end, and leaves persistent sessions to the next one.
    pub(super) stopping: Arc<AtomicBool>,
}

/// The sessions by number.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Those that were opened or cloned.
    pub(super) opened: HashMap<u64, Arc<Session>>,
    /// The others, which live as long as their connection.
    pub(super) implicit: BTreeMap<u64, Weak<Session>>,
    /// Closed ones whose tasks have not ended yet.
    pub(super) ending: Vec<Arc<Session>>,
    /// The places for sessions that are about to be made.
    pub(super) places: u64,
}

impl Broker {
    /// A broker with no sessions.
    pub fn new(policy: Policy, limits: Limits) -> Self {
        let resolver = Resolver::new(size(limits.resolver_jobs));
        let callers = CallerIdentities::new(size(limits.identity_jobs));
        let users = Users::new(Arc::new(Quota::new(&limits)));
        let refusals = Refusals::new(limits.refusal_lines_per_minute);
        Self {
            policy: PolicyInForce::new(policy),
            limits,
            namespaces: Arc::new(Namespaces::new(Vec::new())),
            name_files: config::Namespaces::default().files,
            resolver,
            callers,
            control_ends: ControlEnds::default(),
            users,
            process: Process::default(),
            captures: CaptureSource::new(None),
            opener: None,
            control: OnceLock::new(),
            claims: Claims::default(),
            audit: Audit::default(),
            metrics: Arc::default(),
            refusals,
            channels: PendingChannels::default(),
            sweeps: Sweeps::default(),
            activity: Activity::default(),
            sessions: Mutex::default(),
            leased_sessions: AtomicU64::new(0),
            leased_memory: AtomicU64::new(0),
            using_memory: tokio::sync::Mutex::default(),
            leasing: tokio::sync::Mutex::default(),
            numbers: AtomicU64::new(1),
            first_number: 1,
            epoch: 1,
            lots: Arc::default(),
            persisting: tokio::sync::Mutex::default(),
            stopping: Arc::default(),
        }
    }

    /// A broker whose policy has this generation, and is followed by others.
    #[must_use]
    pub fn reloading(mut self, next: NextPolicy, generation: u64) -> Self {
        self.policy = self.policy.followed_by(next, generation);
        if let Some(monitor) = self.monitor().cloned() {
            self.claims = Claims::reported(move |claim| monitor.unclaim(claim));
        }
        self
    }

    /// A broker that numbers connections and sessions from here.
    #[must_use]
    pub fn numbering_from(mut self, first: u64, epoch: u64) -> Self {
        self.numbers = AtomicU64::new(first);
        (self.first_number, self.epoch) = (first, epoch);
        self
    }

    /// The monitor of this worker; `None` if this process serves every principal.
    pub fn monitor(&self) -> Option<&MonitorLink> {
        match &self.policy.next {
            NextPolicy::Monitor(link) => Some(link),
            NextPolicy::Nowhere | NextPolicy::Loader(_) => None,
        }
    }

    /// A broker that records its decisions.
    #[must_use]
    pub fn auditing(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// A broker that reports this as its process.
    #[must_use]
    pub fn running_as(mut self, process: Process) -> Self {
        self.process = process;
        self
    }

    /// A broker whose calls that need a capability are made by this opener.
    #[must_use]
    pub fn with_opener(mut self, opener: Option<(Opener, Process)>) -> Self {
        self.opener = opener;
        self
    }

    /// How the calls of a connection reach what needs a capability. `stream` is its socket.
    pub(super) fn privileged(&self, stream: Option<&Weak<Descriptor>>) -> Privileged {
        let opener = self.opener.as_ref().map(|(opener, _)| opener.clone());
        Privileged::new(opener, stream.cloned(), self.namespaces.clone())
    }

    /// Writes a line about a refused connection, or counts it.
    pub fn refuse(&self, reason: Reason, principal: Option<PrincipalKey>, write: impl FnOnce()) {
        self.refusals.report(reason, principal, write);
        self.sweeps.request();
    }

    pub(super) fn report_session(&self, session: &Session, state: &'static str) {
        self.audit.report(session.principal().key(), || {
            Record::new("session")
                .with("state", state)
                .with("session", session.number())
                .with("uid", session.uid())
                .with("handles", session.handles() as u64)
        });
    }

    /// A number for a session or connection, never given twice.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Each map changes in one statement: a panic of another call does not spoil them.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
