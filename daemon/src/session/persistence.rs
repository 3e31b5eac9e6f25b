//! Sessions that outlive the process that serves them.
//!
//! The sockets lie in the lots of the worker with their state ([`crate::session::lots`]). Owner, token and restrictions
//! are with the monitor, which a worker that was taken over cannot change.
//!
//! The parts of a session are parked by [`crate::session::parking`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sockbroker_monitor::message::{PersistRefusal, Persisted};
use sockbroker_proto::api::session::Persistence as Reach;
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::lots::Lots;
use crate::session::monitor_link::MonitorLink;
use crate::session::parking::{Owner, Persistence, RESERVED};
use crate::session::record::{RecordError, SessionFacts, encode};
use crate::session::restriction::RestrictionText;
use crate::table::Resource;

impl Session {
    /// What it outlives.
    pub fn reach(&self) -> Option<Reach> {
        self.persistence.get().map(|persistence| persistence.reach)
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { number: self.number, default_timeout: &self.default_timeout }
    }

    /// Keeps a session that was recovered from the lots.
    pub(super) fn stay_parked(&self, lots: Arc<Lots>, reach: Reach, generation: u64) {
        let (reserved, left) = (AtomicU64::new(generation), AtomicBool::new(false));
        self.noted.store(self.restricted(), Ordering::Release);
        // A new session has none.
        drop(self.persistence.set(Persistence { lots, reach, reserved, left }));
    }

    /// Whether it outlives this process, which does not leave it to the next one now.
    pub(super) fn is_kept(&self) -> bool {
        self.persistence.get().is_some_and(|own| !own.left.load(Ordering::Acquire))
    }

    /// Leaves its handles in the lots: whatever happens to them in this process, the next one has them.
    pub(super) fn leave_parked(&self) {
        if let Some(persistence) = self.persistence.get() {
            // Within the lock, so that no change is under way.
            let _table = self.table();
            persistence.left.store(true, Ordering::Release);
        }
    }

    /// Parks the state of a handle after a change that the kernel does not keep.
    pub fn save(&self, handle: Handle) -> OpResult<()> {
        let Some(persistence) = self.persistence.get() else { return Ok(()) };
        let table = self.table();
        // A call on another connection may have closed it.
        let Some(Resource::Socket(entry)) = table.get(handle) else { return Ok(()) };
        if persistence.left.load(Ordering::Acquire) {
            return Ok(());
        }
        persistence.save_all(&self.owner(), &table, handle, &entry)
    }

    /// Parks the state of the session after a change.
    pub fn save_state(&self) -> OpResult<()> {
        let Some(persistence) = self.persistence.get() else { return Ok(()) };
        let _table = self.table();
        if self.is_closed() || persistence.left.load(Ordering::Acquire) {
            return Ok(());
        }
        persistence.save_state(&self.owner(), persistence.reserved.load(Ordering::Relaxed))
    }

    fn facts(&self) -> OpResult<(SessionFacts, usize)> {
        let state = self.state();
        let token = state.token.as_ref().ok_or(OpError::Session("the session has no token"))?;
        let subject = self.principal.subject();
        let restrictions: Vec<_> =
            state.restrictions.iter().map(|one| one.text().clone()).collect();
        let count = restrictions.len();
        let facts = SessionFacts {
            token: token.hash(),
            restrictions,
            cgroup: subject.cgroup.as_deref().map(str::to_owned),
            unit: subject.unit.as_deref().map(str::to_owned),
        };
        Ok((facts, count))
    }

    /// Parks its state and its handles, and every later one.
    fn begin_parking(&self, lots: Arc<Lots>, reach: Reach) -> OpResult<()> {
        let table = self.table();
        if self.is_closed() {
            return Err(OpError::Session("the session is closed"));
        }
        let (reserved, left) = (AtomicU64::new(0), AtomicBool::new(false));
        let persistence = Persistence { lots, reach, reserved, left };
        persistence.save_state(&self.owner(), table.numbers().generation + RESERVED)?;
        for (handle, resource) in table.resources() {
            if let Resource::Socket(entry) = resource
                && let Err(error) = persistence.save(&self.owner(), &table, handle, &entry)
            {
                persistence.end(self.number);
                return Err(error);
            }
        }
        // Only one call gets here (`Broker::persisting`).
        drop(self.persistence.set(persistence));
        Ok(())
    }

    /// The texts of restrictions from this one on.
    fn restrictions_from(&self, first: usize) -> Vec<RestrictionText> {
        self.state().restrictions.iter().skip(first).map(|one| one.text().clone()).collect()
    }
}

/// Reports a session over that the monitor was to keep, unless it has become persistent: the call that asked for it may be
/// cancelled.
struct Undo<'a> {
    monitor: &'a MonitorLink,
    session: &'a Session,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.session.reach().is_none() {
            self.monitor.session_over(self.session.number());
        }
    }
}

/// Passes restrictions to the monitor that it has not noted.
async fn note(monitor: &MonitorLink, session: &Session) -> OpResult<()> {
    loop {
        let noted = session.noted.load(Ordering::Acquire);
        let Some(restriction) = session.restrictions_from(noted).into_iter().next() else {
            return Ok(());
        };
        let text = encode(&restriction).map_err(|error| OpError::Plain(error.to_string()))?;
        monitor.restricted(session.number(), text).await?;
        session.noted.store(noted + 1, Ordering::Release);
    }
}

impl Broker {
    /// `session.open` with `persist`: from the answer on, the session and its handles outlive this process.
    pub async fn persist(&self, session: &Arc<Session>) -> OpResult<()> {
        let monitor = self.monitor().ok_or(OpError::Session(
            "this broker serves all clients in one process, which keeps no sessions: open the session without persist",
        ))?;
        // One call at a time: others of the same session wait for it.
        let _turn = self.persisting.lock().await;
        if session.principal().is_remote() {
            return Err(OpError::Session(
                "sessions of clients on other machines do not outlive their worker: open the session without persist",
            ));
        }
        let linger = session.linger().as_secs();
        // Before the restrictions are read: from now on `note_restriction` waits for this call.
        session.asked_to_persist.store(true, Ordering::SeqCst);
        let (facts, known) = session.facts()?;
        let text = |error: RecordError| OpError::Plain(error.to_string());
        let facts = encode(&facts).map_err(text)?;
        let _undo = Undo { monitor, session };
        let Persisted { handles, service } =
            match monitor.persist(session.number(), linger, facts).await? {
                Ok(persisted) => persisted,
                Err(refusal) => return Err(self.refused(refusal)),
            };
        self.lots.allow(handles);
        if session.reach().is_some() {
            return Ok(());
        }
        let reach = if service { Reach::Service } else { Reach::Worker };
        // What the session gave up while the monitor was asked, before any of its handles is parked.
        session.noted.store(known, Ordering::Release);
        note(monitor, session).await?;
        session.begin_parking(self.lots.clone(), reach)
    }

    fn refused(&self, refusal: PersistRefusal) -> OpError {
        let limits = &self.limits;
        let (name, value) = match refusal {
            PersistRefusal::SessionsOfUser => {
                ("persistent_sessions_per_user", limits.persistent_sessions_per_user)
            }
            PersistRefusal::Sessions => {
                ("persistent_sessions_in_all", limits.persistent_sessions_in_all)
            }
            PersistRefusal::Handles => {
                ("persistent_handles_in_all", limits.persistent_handles_in_all)
            }
            PersistRefusal::Failed(errno) => return OpError::Os { call: "socketpair", errno },
        };
        OpError::Limit { name, value }
    }

    /// `session.restrict`: in force from now on, also after a recovery.
    pub async fn note_restriction(&self, session: &Session) -> OpResult<()> {
        let Some(monitor) = self.monitor() else { return Ok(()) };
        if session.reach().is_none() && !session.asked_to_persist.load(Ordering::SeqCst) {
            return Ok(());
        }
        // A call may be about to make it persistent. Of several restrictions, each is noted once.
        let _turn = self.persisting.lock().await;
        if session.reach().is_none() { Ok(()) } else { note(monitor, session).await }
    }

    /// Whether a number was given by an earlier process.
    pub fn is_earlier(&self, number: u64) -> bool {
        number < self.first_number
    }

    /// Leaves persistent sessions to the next process: they no longer end with their connections.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Closes the session of a connection that was its last, unless the session waits for the next process.
    pub(super) fn close_left(&self, session: &Arc<Session>) {
        if session.reach().is_none() || !self.stopping.load(Ordering::Acquire) {
            self.close(session);
        }
    }

    /// Adds a session that an earlier process left.
    pub(super) fn add_recovered(&self, session: Session) {
        self.report_session(&session, "recovered");
        self.lock().opened.insert(session.number(), Arc::new(session));
        self.sweeps.request();
    }

    /// Reports to the monitor that a session cannot be recovered.
    pub(super) fn forget_persistent(&self, session: u64) {
        if let Some(monitor) = self.monitor() {
            monitor.session_over(session);
        }
    }
}
