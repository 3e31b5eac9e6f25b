//! The broker: what all connections share, and the sessions.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use sockbroker_monitor::opener::Namespaces;
use sockbroker_proto::api::broker::Process;
use tokio::time::timeout;

use crate::config;
use crate::config::limits::{Limits, size};
use crate::descriptor::Descriptor;
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentities;
use crate::network::captures::CaptureSource;
use crate::network::opener::{Opener, Privileged};
use crate::network::resolve::Resolver;
use crate::observe::audit::{Audit, Record};
use crate::observe::metrics::Metrics;
use crate::observe::refusals::Refusals;
use crate::ops::control_end::ControlEnds;
use crate::ops::unix_file::ControlFile;
use crate::principal::{Principal, PrincipalKey};
use crate::quota::{Quota, Users};
use crate::session::Session;
use crate::session::activity::Activity;
use crate::session::channels::PendingChannels;
use crate::session::lots::Lots;
use crate::session::monitor_link::MonitorLink;
use crate::session::policy::{NextPolicy, PolicyInForce};
use crate::session::restriction::SessionRestriction;
use crate::session::sweeps::Sweeps;
use crate::session::token::Token;
use crate::table::claims::{Claim, Claimed, Claims};
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

    /// Claims a port or a group for a principal; `None` if another principal has it.
    pub async fn claim(&self, claim: Claim, principal: &PrincipalKey) -> OpResult<Option<Claimed>> {
        if let Some(monitor) = self.monitor() {
            // In one step: the last socket may be closed meanwhile, and the claim with it.
            if let Some(joined) = self.claims.join(claim, principal) {
                return Ok(Some(joined));
            }
            if !monitor.claim(claim).await? {
                return Ok(None);
            }
        }
        Ok(self.claims.take(claim, principal))
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

    pub(super) fn report_session(&self, session: &Session, state: &'static str) {
        self.audit.report(session.principal().key(), || {
            Record::new("session")
                .with("state", state)
                .with("session", session.number())
                .with("uid", session.uid())
                .with("handles", session.handles() as u64)
        });
    }

    /// Reads the policy again and puts it in force; after any error the old one stays. Returns the
    /// generation in force.
    pub async fn reload(self: &Arc<Self>) -> OpResult<u64> {
        if let Some(monitor) = self.monitor() {
            return monitor.reload().await;
        }
        let broker = self.clone();
        // Files and the databases of users may block.
        let load = move || match &broker.policy.next {
            NextPolicy::Loader(load) => Some(load()),
            NextPolicy::Nowhere | NextPolicy::Monitor(_) => None,
        };
        let loaded = match tokio::task::spawn_blocking(load).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Ok(self.policy.generation()),
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        };
        let policy = loaded.map_err(|reason| {
            tracing::error!(reason, "the new policy cannot be used: the old one stays in force");
            self.audit.report_own(|| {
                Record::new("policy").with("state", "kept").with("reason", &*reason)
            });
            OpError::Policy(reason)
        })?;
        let generation = self.policy.generation() + 1;
        self.put_in_force(policy, generation).await;
        tracing::info!(generation, "a new policy is in force");
        self.audit.report_own(|| {
            Record::new("policy").with("state", "loaded").with("number", generation)
        });
        Ok(generation)
    }

    /// Puts a policy in force, and closes what it revokes.
    pub async fn put_in_force(self: &Arc<Self>, policy: Policy, generation: u64) {
        let revokes = policy.revokes();
        self.policy.replace(policy, generation);
        if revokes {
            let broker = self.clone();
            // With many handles this takes long.
            let revoked = tokio::task::spawn_blocking(move || broker.revoke()).await;
            if let Err(error) = revoked {
                std::panic::resume_unwind(Box::new(error.to_string()));
            }
        }
    }

    /// Whether nothing would be lost by the end of this process: no session exists, and no rate has to be
    /// remembered.
    pub fn is_idle(&self) -> bool {
        let sessions = self.lock();
        let used = sessions.implicit.values().any(|session| session.strong_count() > 0);
        let idle = !used && sessions.opened.is_empty() && sessions.ending.is_empty();
        drop(sessions);
        idle && self.users.are_idle()
    }

    /// Closes the sockets and streams that the policy in force does not grant.
    pub(super) fn revoke(&self) {
        let (policy, _) = self.policy.current();
        self.revoke_persistence(&policy);
        for session in self.sessions() {
            let closed = session.revoke(&policy);
            if closed > 0 {
                let (session, uid) = (session.number(), session.uid());
                tracing::info!(session, uid, closed, "closed handles that are no longer granted");
            }
        }
    }

    /// A number for a session or connection, never given twice.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Each map changes in one statement: a panic of another call does not spoil them.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session that a new connection of this principal begins in.
    pub fn begin(&self, principal: &Principal) -> Arc<Session> {
        let session = Arc::new(Session::new(self.number(), principal, &self.limits));
        self.lock().implicit.insert(session.number(), Arc::downgrade(&session));
        session
    }

    /// Every session, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let sessions = self.lock();
        let implicit = sessions.implicit.values().filter_map(Weak::upgrade);
        let mut all: Vec<_> = implicit.chain(sessions.opened.values().cloned()).collect();
        drop(sessions);
        all.retain(|session| !session.is_closed());
        all.sort_unstable_by_key(|session| session.number());
        all
    }

    /// `session.open`: gives the session a token, by which other connections find it.
    pub fn open(&self, session: &Arc<Session>, linger: Option<Duration>) -> OpResult<Token> {
        let mut sessions = self.lock();
        if session.is_closed() {
            return Err(OpError::Session("the session is closed: open a new connection"));
        }
        if !sessions.opened.contains_key(&session.number()) {
            self.check_session_limits(&sessions, session.principal())?;
        }
        let token = session.open(linger)?;
        let before = sessions.opened.insert(session.number(), session.clone());
        sessions.implicit.remove(&session.number());
        drop(sessions);
        if before.is_none() {
            self.report_session(session, "opened");
        }
        Ok(token)
    }

    /// The session of a token. A wrong token and another principal's token give the same error.
    pub fn find(&self, token: &str, principal: &PrincipalKey) -> OpResult<Arc<Session>> {
        let unknown = OpError::Session(
            "no session with this token: a session belongs to one user, with its groups and network namespace",
        );
        let Some(token) = Token::parse(token) else {
            return Err(unknown);
        };
        let session = self.lock().opened.get(&token.session()).cloned();
        let valid = |session: &Arc<Session>| {
            session.principal().key() == *principal && session.accepts(&token)
        };
        session.filter(valid).ok_or(unknown)
    }

    /// `session.clone`: a session with the same handles, which waits for its first connection.
    pub fn duplicate(&self, session: &Session) -> OpResult<Token> {
        let mut sessions = self.lock();
        self.check_session_limits(&sessions, session.principal())?;
        let clone = session.duplicate(self.number(), &self.limits)?;
        session.save_handles()?;
        self.add(&mut sessions, clone, None)
    }

    /// `session.open` for a child process: a session without handles and with this restriction, which
    /// waits for its first connection.
    pub fn open_restricted(
        &self,
        parent: &Session,
        linger: Option<Duration>,
        restriction: SessionRestriction,
    ) -> OpResult<Token> {
        let mut sessions = self.lock();
        self.check_session_limits(&sessions, parent.principal())?;
        let child = parent.child(self.number(), &self.limits);
        child.restrict(restriction)?;
        self.add(&mut sessions, child, linger)
    }

    fn add(
        &self,
        sessions: &mut Sessions,
        session: Session,
        linger: Option<Duration>,
    ) -> OpResult<Token> {
        let token = session.open(linger)?;
        session.expect_connection(Duration::from_secs(self.limits.clone_seconds));
        sessions.opened.insert(session.number(), Arc::new(session));
        self.sweeps.request();
        Ok(token)
    }

    /// Ends a session: its handles close, its tasks are aborted, its token is void.
    pub fn close(&self, session: &Arc<Session>) {
        let mut sessions = self.lock();
        sessions.implicit.remove(&session.number());
        let opened = sessions.opened.remove(&session.number()).is_some();
        drop(sessions);
        if opened {
            self.report_session(session, "closed");
        }
        self.end(session);
    }

    /// Closes a session that was removed, and keeps it until its tasks have ended. Not under the lock:
    /// closing a socket may take time.
    pub(super) fn end(&self, session: &Arc<Session>) {
        self.activity.note();
        session.close();
        if let Some(monitor) = self.monitor().filter(|_| session.is_kept()) {
            monitor.session_over(session.number());
        }
        if session.tasks().running() > 0 {
            self.lock().ending.push(session.clone());
            self.sweeps.request();
        }
    }

    fn forget_all(&self) {
        let mut sessions = self.lock();
        sessions.opened.clear();
        sessions.implicit.clear();
    }

    /// Ends every session, and waits until the tasks of all of them have ended. Tasks that do not end
    /// within `drain_seconds` are logged.
    pub async fn close_all(&self) {
        let all = self.sessions();
        for session in &all {
            session.leave_parked();
        }
        self.forget_all();
        for session in &all {
            self.end(session);
        }
        let ending = std::mem::take(&mut self.lock().ending);
        let ended = async {
            for session in &ending {
                session.tasks_ended().await;
            }
            // What they have counted is in the audit then.
            self.captures.ended().await;
        };
        if timeout(Duration::from_secs(self.limits.drain_seconds), ended).await.is_err() {
            let tasks: usize = ending.iter().map(|session| session.tasks().running()).sum();
            tracing::warn!(tasks, "tasks of sessions did not end within drain_seconds");
        }
    }
}
