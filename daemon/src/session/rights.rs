//! What a session gives up, and what its look-ups let it reach.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sockbroker_proto::address::Address;

use crate::error::{OpError, OpResult};
use crate::quota::Reservation;
use crate::session::Session;
use crate::table::entry::Entry;
use sockbroker_policy::Policy;
use sockbroker_policy::action::Create;
use sockbroker_policy::question::Question;
use sockbroker_policy::rights::Restriction;
use sockbroker_policy::verb::Verb;

/// What a session gave up, with the memory it takes of its user's share. Clones of the session share
/// both.
#[derive(Debug, Clone)]
pub(super) struct GivenUp {
    restriction: Arc<Restriction>,
    _share: Arc<Reservation>,
}

// Values that are set in one statement: a panic of another call does not spoil them.
impl Session {
    /// Gives rights up for the rest of the session: from now on only what matches is granted.
    /// `share` is the memory of the restriction.
    pub fn restrict(&self, restriction: Restriction, share: Reservation) -> OpResult<()> {
        let mut given_up = self.given_up();
        if given_up.len() >= self.restriction_limit {
            let value = self.restriction_limit as u64;
            return Err(OpError::Limit { name: "restrictions", value });
        }
        given_up.push(GivenUp { restriction: Arc::new(restriction), _share: Arc::new(share) });
        self.set_given_up(given_up);
        Ok(())
    }

    /// What it has given up.
    pub fn restrictions(&self) -> Vec<Arc<Restriction>> {
        let given_up = self.restrictions.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.iter().map(|given_up| given_up.restriction.clone()).collect()
    }

    pub(super) fn given_up(&self) -> Vec<GivenUp> {
        self.restrictions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it has given rights up.
    pub fn restricted(&self) -> usize {
        self.restricted.load(Ordering::Acquire)
    }

    pub(super) fn set_given_up(&self, given_up: Vec<GivenUp>) {
        let mut own = self.restrictions.lock().unwrap_or_else(PoisonError::into_inner);
        self.restricted.store(given_up.len(), Ordering::Release);
        *own = given_up;
    }

    /// Remembers addresses that a look-up of this name gave.
    pub fn looked_up(&self, host: &str, addresses: impl IntoIterator<Item = Address>) {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        lookups.record(host, addresses);
    }

    /// How long ago a look-up gave this address; `None` if none did.
    pub fn lookup_age(&self, address: &Address) -> Option<Duration> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner).age(address)
    }

    /// Closes the sockets that a policy would not grant, and ends calls that wait on them. Gives their
    /// number.
    pub fn revoke(&self, policy: &Policy) -> usize {
        let rights = policy.select(self.principal.subject(), self.restrictions());
        let grants = |entry: &Entry| {
            let adopt = Question::about(Verb::Adopt, entry.actual());
            rights.ask(Create { socket: entry.actual() }).is_ok() || rights.decide(&adopt).is_ok()
        };
        let entries = self.entries().into_iter();
        let gone: Vec<_> = entries.filter(|(_, entry)| !grants(entry)).collect();
        for (handle, entry) in &gone {
            entry.end();
            // It may have been closed meanwhile, which is as good.
            drop(self.remove(*handle));
        }
        gone.len()
    }
}
