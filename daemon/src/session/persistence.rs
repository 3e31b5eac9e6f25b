//! Makes sessions outlive the process that serves them, and ends that.
//!
//! The sockets lie in the lots of the worker with their state ([`crate::session::lots`]). Owner, token and restrictions
//! are with the monitor, which a worker that was taken over cannot change.
//!
//! The parts of a session are parked by [`crate::session::parking`], and their later changes by `session::saving`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use sockbroker_monitor::message::{PersistRefusal, Persisted};
use sockbroker_proto::api::session::Persistence as Reach;

use crate::error::{OpError, OpResult};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::lots::Lots;
use crate::session::monitor_link::MonitorLink;
use crate::session::parking::{Persistence, RESERVED};
use crate::session::record::{RecordError, SessionFacts, encode};
use crate::table::Resource;
use sockbroker_policy::Policy;
use sockbroker_policy::action::PersistSession;
use sockbroker_policy::subject::Subject;

impl Session {
    /// What it outlives.
    pub fn reach(&self) -> Option<Reach> {
        self.persistence().map(|persistence| persistence.reach)
    }

    /// Where its handles lie, if it outlives this process.
    pub(super) fn persistence(&self) -> Option<Arc<Persistence>> {
        self.persistence_cell().clone()
    }

    pub(super) fn persistence_cell(&self) -> MutexGuard<'_, Option<Arc<Persistence>>> {
        // One value, set in one statement: a panic of another call does not spoil it.
        self.persistence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it outlives this process, which does not leave it to the next one now.
    pub(super) fn is_kept(&self) -> bool {
        self.persistence().is_some_and(|own| !own.left.load(Ordering::Acquire))
    }

    /// Whether its handles are left to the next process, so that the sockets stay open.
    pub fn is_left(&self) -> bool {
        self.persistence().is_some_and(|own| own.left.load(Ordering::Acquire))
    }

    /// Ends with this process, although it was persistent: the policy does not grant it any more. Returns whether it was.
    pub(super) fn stop_persisting(&self) -> bool {
        // Within the lock, so that no change is under way.
        let _table = self.table();
        let before = self.persistence_cell().take();
        let left = before.as_ref().is_some_and(|own| own.left.load(Ordering::Acquire));
        if left {
            *self.persistence_cell() = before;
            return false;
        }
        self.asked_to_persist.store(false, Ordering::SeqCst);
        before.is_some_and(|persistence| {
            persistence.end(self.number);
            true
        })
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
    fn begin_parking(&self, lots: Arc<Lots>, reach: Reach, monitor: MonitorLink) -> OpResult<()> {
        let table = self.table();
        if self.is_closed() {
            return Err(OpError::Session("the session is closed"));
        }
        let (reserved, left) = (AtomicU64::new(0), AtomicBool::new(false));
        let persistence = Persistence { lots, reach, monitor, reserved, left };
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
        *self.persistence_cell() = Some(Arc::new(persistence));
        Ok(())
    }
}

/// Whether a policy lets sessions of a principal outlive their worker. What a session gives up does not end that.
pub(super) fn may_persist(policy: &Policy, subject: &Subject) -> bool {
    policy.select(subject, Vec::new()).authorize(PersistSession).is_ok()
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
        let linger = session.linger();
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
        self.note_restrictions(monitor, session).await?;
        session.begin_parking(self.lots.clone(), reach, monitor.clone())?;
        for (handle, _) in session.streams() {
            if let Err(error) = session.keep_stream(handle).await {
                session.stop_persisting();
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn refused(&self, refusal: PersistRefusal) -> OpError {
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
            PersistRefusal::Bytes => {
                ("persistent_bytes_per_user", limits.persistent_bytes_per_user)
            }
            PersistRefusal::Failed(errno) => return OpError::Os { call: "socketpair", errno },
        };
        OpError::Limit { name, value }
    }

    /// Ends with this process what outlives it without a grant: a session that a client uses goes on until then, and one
    /// that waits for its client closes.
    pub(super) fn revoke_persistence(&self, policy: &Policy) {
        for session in self.sessions() {
            if session.reach().is_none() || may_persist(policy, session.principal().subject()) {
                continue;
            }
            if session.stop_persisting() {
                let (number, uid) = (session.number(), session.uid());
                tracing::info!(session = number, uid, "the session no longer outlives its worker");
                self.forget_persistent(number);
            }
            if session.awaits_client() {
                self.close(&session);
            }
        }
    }

    /// Reports to the monitor that a session cannot be recovered.
    pub(super) fn forget_persistent(&self, session: u64) {
        if let Some(monitor) = self.monitor() {
            monitor.session_over(session);
        }
    }
}
