//! Rights that a session gave up, and names that it looked up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::rights::Restriction;
use sockbroker_proto::address::Address;

use crate::error::{OpError, OpResult};
use crate::session::Session;
use crate::session::restriction::SessionRestriction;

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

    /// Remembers addresses that a look-up of this name gave in a network namespace.
    pub fn looked_up(
        &self,
        namespace: &Namespace,
        host: &str,
        found: impl IntoIterator<Item = Address>,
    ) {
        self.state().lookups.record(namespace, host, found);
    }

    /// The time since a look-up gave this address; `None` if none did.
    pub fn lookup_age(&self, namespace: &Namespace, address: &Address) -> Option<Duration> {
        self.state().lookups.age(namespace, address)
    }
}
