//! The places of sessions: those that the monitor has leased to this worker.

use std::sync::atomic::Ordering;

use sockbroker_monitor::message::SessionLimit;

use crate::config::limits::size;
use crate::error::{OpError, OpResult};
use crate::principal::Principal;
use crate::session::broker::{Broker, Sessions};

/// The number of sessions that a worker asks for at a time, and that it keeps unused.
const LEASE: u64 = 16;

/// A place for a session that is about to be made, among those that the monitor has leased.
#[derive(Debug)]
pub struct SessionPlace<'a>(&'a Broker);

impl Drop for SessionPlace<'_> {
    fn drop(&mut self) {
        self.0.lock().places -= 1;
    }
}

impl Broker {
    /// Takes a place for a session, to be held while the session is made. Asks the monitor for further ones if this
    /// worker has none left. `None` without a monitor.
    pub async fn lease_session(&self) -> OpResult<Option<SessionPlace<'_>>> {
        let Some(monitor) = self.monitor() else { return Ok(None) };
        if let Some(place) = self.take_place() {
            return Ok(Some(place));
        }
        // One call asks at a time: if each of many calls asked for more places than it needs, the last ones would be
        // refused although there is room.
        let _turn = self.leasing.lock().await;
        loop {
            if let Some(place) = self.take_place() {
                return Ok(Some(place));
            }
            // A call that came meanwhile can take what comes.
            monitor.lease(LEASE).await?.map_err(|limit| match limit {
                SessionLimit::InAll if monitor.serves_remote_principal() => {
                    OpError::Limit { name: "remote_sessions", value: self.limits.remote_sessions }
                }
                SessionLimit::InAll => self.too_many_sessions(),
                SessionLimit::OfUser => self.too_many_sessions_of_user(),
            })?;
        }
    }

    fn take_place(&self) -> Option<SessionPlace<'_>> {
        let mut sessions = self.lock();
        let used = sessions.opened.len() as u64 + sessions.places;
        if used >= self.leased_sessions.load(Ordering::Relaxed) {
            return None;
        }
        sessions.places += 1;
        Some(SessionPlace(self))
    }

    /// Adds sessions that the monitor has leased.
    pub fn lease_sessions(&self, sessions: u64) {
        self.leased_sessions.fetch_add(sessions, Ordering::Relaxed);
    }

    /// Takes leased sessions that are not used, for the monitor; returns their number.
    pub fn give_back_sessions(&self) -> u64 {
        let sessions = self.lock();
        let used = sessions.opened.len() as u64 + sessions.places + LEASE;
        let unused = self.leased_sessions.load(Ordering::Relaxed).saturating_sub(used);
        self.leased_sessions.fetch_sub(unused, Ordering::Relaxed);
        drop(sessions);
        unused
    }
}

/// The limits on sessions.
impl Broker {
    /// The limit in all for a user: `most`, and for root and the broker's own user also what is reserved
    /// for them.
    pub fn limit_in_all(&self, uid: u32, most: u64, reserved: u64) -> u64 {
        let (policy, _) = self.policy.current();
        if policy.is_owner(uid) { most.saturating_add(reserved) } else { most }
    }

    pub(super) fn check_session_limits(
        &self,
        sessions: &Sessions,
        principal: &Principal,
    ) -> OpResult<()> {
        let limits = &self.limits;
        let uid = principal.subject().uid;
        let room = match self.monitor() {
            Some(_) => self.leased_sessions.load(Ordering::Relaxed),
            None => self.limit_in_all(uid, limits.sessions, limits.sessions_reserved),
        };
        if sessions.opened.len() >= size(room) {
            return Err(self.too_many_sessions());
        }
        let key = principal.key();
        let own = sessions.opened.values().filter(|session| session.principal().key() == key);
        if own.count() >= size(limits.sessions_per_user) {
            return Err(self.too_many_sessions_of_user());
        }
        Ok(())
    }

    fn too_many_sessions(&self) -> OpError {
        OpError::Limit { name: "sessions", value: self.limits.sessions }
    }

    fn too_many_sessions_of_user(&self) -> OpError {
        OpError::Limit { name: "sessions_per_user", value: self.limits.sessions_per_user }
    }
}
