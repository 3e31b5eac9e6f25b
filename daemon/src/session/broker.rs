//! What all connections share: policy, limits, sessions, resolver.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use sockbroker_proto::api::broker::Process;

use crate::config::limits::{Limits, size};
use crate::error::{OpError, OpResult};
use crate::network::Network;
use crate::network::caller_identity::CallerIdentities;
use crate::network::resolve::Resolver;
use crate::observe::audit::{Audit, Record};
use crate::observe::metrics::Metrics;
use crate::observe::refusals::Refusals;
use crate::ops::control_end::ControlEnds;
use crate::ops::unix_file::ControlFile;
use crate::principal::{Principal, PrincipalKey};
use crate::quota::{Quota, Reservation, Users};
use crate::session::Session;
use crate::session::policy::{Loader, PolicyInForce};
use crate::session::token::Token;
use crate::table::fanout::FanoutGroups;
use sockbroker_policy::Policy;
use sockbroker_policy::rights::Restriction;

/// The daemon's state.
#[derive(Debug)]
pub struct Broker {
    /// The policy in force.
    pub policy: PolicyInForce,
    /// The limits in force.
    pub limits: Limits,
    /// The network in which sockets are created.
    pub network: Network,
    /// Resolves names in that network.
    pub resolver: Resolver,
    /// Who may act as whom.
    pub callers: CallerIdentities,
    /// What descriptors of clients must not be.
    pub control_ends: ControlEnds,
    /// What every user has in use.
    pub users: Users,
    /// The process that the broker is, and what confines it.
    pub process: Process,
    /// The file of its own control socket, which is never a destination.
    pub control: OnceLock<ControlFile>,
    /// Whose the fan-out groups of packet sockets are.
    pub fanout: FanoutGroups,
    /// Where decisions are told.
    pub audit: Audit,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The log of refused connections.
    pub refusals: Refusals,
    /// Sessions that were opened or cloned; implicit ones live with their connection alone.
    opened: Mutex<HashMap<u64, Arc<Session>>>,
    /// Implicit sessions, to be listed.
    implicit: Mutex<BTreeMap<u64, Weak<Session>>>,
    numbers: AtomicU64,
}

impl Broker {
    /// A broker with no sessions.
    pub fn new(policy: Policy, limits: Limits) -> Self {
        let network = Network::own();
        let resolver = Resolver::new(network.clone(), size(limits.resolver_jobs));
        let callers = CallerIdentities::new(size(limits.identity_jobs));
        let users = Users::new(Arc::new(Quota::new(&limits)));
        let refusals = Refusals::new(limits.refusal_lines_per_minute);
        Self {
            policy: PolicyInForce::new(policy),
            limits,
            network,
            resolver,
            callers,
            control_ends: ControlEnds::default(),
            users,
            process: Process::default(),
            control: OnceLock::new(),
            fanout: FanoutGroups::default(),
            audit: Audit::default(),
            metrics: Arc::default(),
            refusals,
            opened: Mutex::new(HashMap::new()),
            implicit: Mutex::new(BTreeMap::new()),
            numbers: AtomicU64::new(1),
        }
    }

    /// The same, able to reload its policy.
    #[must_use]
    pub fn reloading(mut self, loader: Box<Loader>) -> Self {
        self.policy = self.policy.reloading(loader);
        self
    }

    /// The same, telling its decisions.
    #[must_use]
    pub fn auditing(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// The same, as this process.
    #[must_use]
    pub fn running_as(mut self, process: Process) -> Self {
        self.process = process;
        self
    }

    fn report_session(&self, session: &Session, state: &'static str) {
        self.audit.report(session.principal().key(), || {
            Record::new("session")
                .with("state", state)
                .with("session", session.number())
                .with("uid", session.uid())
                .with("handles", session.handles() as u64)
        });
    }

    /// Reads the policy anew and puts it in force; on any error the old one stays. Gives the number of
    /// the policy in force.
    pub async fn reload(self: &Arc<Self>) -> OpResult<u64> {
        let broker = self.clone();
        // Files and the databases of users may block.
        let loaded = tokio::task::spawn_blocking(move || broker.policy.load()).await;
        let loaded = match loaded {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Ok(self.policy.generation()),
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        };
        let policy = loaded.map_err(|reason| {
            tracing::error!(reason, "the policy cannot be used: the old one stays");
            self.audit.report_own(|| {
                Record::new("policy").with("state", "kept").with("reason", &*reason)
            });
            OpError::Policy(reason)
        })?;
        let revokes = policy.revokes();
        let generation = self.policy.replace(policy);
        tracing::info!(generation, "another policy is in force");
        self.audit.report_own(|| {
            Record::new("policy").with("state", "loaded").with("number", generation)
        });
        if revokes {
            self.revoke();
        }
        Ok(generation)
    }

    /// Closes the sockets that the policy in force would not have granted.
    fn revoke(&self) {
        let (policy, _) = self.policy.current();
        for session in self.sessions() {
            let closed = session.revoke(&policy);
            if closed > 0 {
                let (session, uid) = (session.number(), session.uid());
                tracing::info!(session, uid, closed, "sockets are no longer granted");
            }
        }
    }

    /// A number for a session or connection, never given twice.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<u64, Arc<Session>>> {
        // A map of whole values: a panic of another call does not spoil it.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn implicit(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Session>>> {
        self.implicit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session that a connection of this subject begins in.
    pub fn begin(&self, principal: &Principal) -> Arc<Session> {
        let session = Arc::new(Session::new(self.number(), principal, &self.limits));
        self.implicit().insert(session.number(), Arc::downgrade(&session));
        session
    }

    /// Every session, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        // Implicit ones first: one that is opened meanwhile is then found twice, not never.
        let implicit: Vec<_> = self.implicit().values().filter_map(Weak::upgrade).collect();
        let opened: Vec<_> = self.opened().values().cloned().collect();
        let all = implicit.into_iter().chain(opened).map(|session| (session.number(), session));
        let all: BTreeMap<_, _> = all.collect();
        all.into_values().filter(|session| !session.is_closed()).collect()
    }

    /// `session.open`: makes a session known and gives its token.
    pub fn open(&self, session: &Arc<Session>, linger: Option<Duration>) -> OpResult<Token> {
        let mut opened = self.opened();
        if session.is_closed() {
            return Err(OpError::Session("the session is closed: connect anew"));
        }
        if !opened.contains_key(&session.number()) {
            self.check_room(&opened, session.principal())?;
        }
        let token = session.open(linger)?;
        if opened.insert(session.number(), session.clone()).is_none() {
            self.report_session(session, "opened");
        }
        self.implicit().remove(&session.number());
        Ok(token)
    }

    /// The session of a token. A wrong token and another user's are the same error.
    pub fn find(&self, token: &str, principal: &PrincipalKey) -> OpResult<Arc<Session>> {
        let unknown = OpError::Session("no session with this token");
        let Some(token) = Token::parse(token) else {
            return Err(unknown);
        };
        let session = self.opened().get(&token.session()).cloned();
        let valid = |session: &Arc<Session>| {
            session.principal().key() == *principal
                && session.token().is_some_and(|own| own.matches(&token))
        };
        session.filter(valid).ok_or(unknown)
    }

    /// `session.clone`: a session with the same handles, which waits for its first connection.
    pub fn duplicate(&self, session: &Session) -> OpResult<Token> {
        let mut opened = self.opened();
        self.check_room(&opened, session.principal())?;
        let clone = session.duplicate(self.number(), &self.limits)?;
        let token = clone.open(None)?;
        clone.expect_connection(Duration::from_secs(self.limits.clone_seconds));
        opened.insert(clone.number(), Arc::new(clone));
        Ok(token)
    }

    /// `session.open` for a child process: a session without handles that keeps no more than this, and
    /// waits for its first connection.
    pub fn open_restricted(
        &self,
        parent: &Session,
        linger: Option<Duration>,
        (kept, share): (Restriction, Reservation),
    ) -> OpResult<Token> {
        let mut opened = self.opened();
        self.check_room(&opened, parent.principal())?;
        let child = parent.child(self.number(), &self.limits);
        child.restrict(kept, share)?;
        let token = child.open(linger)?;
        child.expect_connection(Duration::from_secs(self.limits.clone_seconds));
        opened.insert(child.number(), Arc::new(child));
        Ok(token)
    }

    /// How many there may be in all for a user to have one more: so many, and beyond them those that are
    /// reserved for root and the broker's own user.
    pub fn room(&self, uid: u32, most: u64, reserved: u64) -> u64 {
        let (policy, _) = self.policy.current();
        if policy.is_owner(uid) { most.saturating_add(reserved) } else { most }
    }

    fn check_room(
        &self,
        opened: &HashMap<u64, Arc<Session>>,
        principal: &Principal,
    ) -> OpResult<()> {
        let limits = &self.limits;
        let uid = principal.subject().uid;
        if opened.len() >= size(self.room(uid, limits.sessions, limits.sessions_reserved)) {
            return Err(OpError::Limit { name: "sessions", value: limits.sessions });
        }
        let key = principal.key();
        let own = opened.values().filter(|session| session.principal().key() == key).count();
        if own >= size(limits.sessions_per_user) {
            let value = limits.sessions_per_user;
            return Err(OpError::Limit { name: "sessions_per_user", value });
        }
        Ok(())
    }

    /// Ends a session: its handles close, its token is void.
    pub fn close(&self, session: &Session) {
        if self.opened().remove(&session.number()).is_some() {
            self.report_session(session, "closed");
        }
        self.implicit().remove(&session.number());
        session.close();
    }

    /// Ends the sessions that waited in vain for a connection.
    pub fn sweep(&self) {
        let over: Vec<_> = {
            let mut opened = self.opened();
            opened.extract_if(|_, session| session.is_over()).collect()
        };
        self.implicit().retain(|_, session| session.strong_count() > 0);
        self.refusals.sweep();
        for (number, session) in over {
            tracing::debug!(session = number, uid = session.uid(), "session is over");
            self.report_session(&session, "over");
            session.close();
        }
    }

    /// Ends every session.
    pub fn close_all(&self) {
        let all: Vec<_> = self.opened().drain().collect();
        for (_, session) in all {
            session.close();
        }
    }
}
