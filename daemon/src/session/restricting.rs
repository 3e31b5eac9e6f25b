//! Takes rights from a session (`session.restrict`), and notes with the monitor what a persistent session gave up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sockbroker_policy::rights::Restriction;

use crate::error::{OpError, OpResult};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::monitor_link::MonitorLink;
use crate::session::record::encode;
use crate::session::restriction::{RestrictionText, SessionRestriction};

impl Session {
    /// Gives up everything that the restriction does not keep, for the rest of the session.
    pub fn restrict(&self, restriction: SessionRestriction) -> OpResult<()> {
        let mut state = self.state();
        self.check_number(state.restrictions.len())?;
        state.restrictions.push(restriction);
        self.restricted.store(state.restrictions.len(), Ordering::Release);
        Ok(())
    }

    /// Fails if it cannot have a further restriction.
    pub(super) fn check_restrictions(&self) -> OpResult<()> {
        self.check_number(self.state().restrictions.len())
    }

    fn check_number(&self, restrictions: usize) -> OpResult<()> {
        let value = self.limits.restrictions as u64;
        let full = restrictions >= self.limits.restrictions;
        if full { Err(OpError::Limit { name: "restrictions", value }) } else { Ok(()) }
    }

    /// The restrictions in force, oldest first.
    pub fn restrictions(&self) -> Vec<Arc<Restriction>> {
        self.state().restrictions.iter().map(SessionRestriction::rules).collect()
    }

    /// How many restrictions are in force.
    pub fn restricted(&self) -> usize {
        self.restricted.load(Ordering::Acquire)
    }

    pub(super) fn set_restrictions(&self, restrictions: Vec<SessionRestriction>) {
        let mut state = self.state();
        self.restricted.store(restrictions.len(), Ordering::Release);
        state.restrictions = restrictions;
    }

    /// The texts of restrictions from this one on.
    fn restrictions_from(&self, first: usize) -> Vec<RestrictionText> {
        self.state().restrictions.iter().skip(first).map(|one| one.text().clone()).collect()
    }
}

impl Broker {
    /// Passes restrictions to the monitor that it has not noted.
    pub(super) async fn note_restrictions(
        &self,
        monitor: &MonitorLink,
        session: &Session,
    ) -> OpResult<()> {
        loop {
            let noted = session.noted.load(Ordering::Acquire);
            let Some(restriction) = session.restrictions_from(noted).into_iter().next() else {
                return Ok(());
            };
            self.note_restriction(monitor, session, &restriction).await?;
            session.noted.store(noted + 1, Ordering::Release);
        }
    }

    async fn note_restriction(
        &self,
        monitor: &MonitorLink,
        session: &Session,
        restriction: &RestrictionText,
    ) -> OpResult<()> {
        let text = encode(restriction).map_err(|error| OpError::Plain(error.to_string()))?;
        let noted = monitor.restricted(session.number(), text).await?;
        noted.map_err(|refusal| self.refused(refusal))
    }

    /// `session.restrict`: in force from now on, also after a recovery.
    pub async fn restrict(
        &self,
        session: &Session,
        restriction: SessionRestriction,
    ) -> OpResult<()> {
        let asked = || session.asked_to_persist.load(Ordering::SeqCst);
        let Some(monitor) = self.monitor().filter(|_| session.reach().is_some() || asked()) else {
            return session.restrict(restriction);
        };
        // A call may be about to make it persistent. Of several restrictions, each is noted once.
        let _turn = self.persisting.lock().await;
        if session.reach().is_none() {
            return session.restrict(restriction);
        }
        self.note_restrictions(monitor, session).await?;
        session.check_restrictions()?;
        // First: what the next process does not know would not be in force there.
        self.note_restriction(monitor, session, restriction.text()).await?;
        session.restrict(restriction)?;
        session.noted.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}
