//! Whether the process can end, and whether it can rest.

use std::sync::Arc;

use crate::session::Session;
use crate::session::broker::Broker;

impl Broker {
    /// Whether nothing would be lost by the end of this process: no session exists, and no rate has to be
    /// remembered.
    pub fn is_idle(&self) -> bool {
        let sessions = self.lock();
        let used = sessions.implicit.values().any(|session| session.strong_count() > 0);
        let idle = !used && sessions.opened.is_empty() && sessions.ending.is_empty();
        drop(sessions);
        idle && self.users.are_idle()
    }

    /// Whether a session exists that connections can find.
    pub fn has_opened_sessions(&self) -> bool {
        !self.lock().opened.is_empty()
    }

    /// Whether anything changes without a call: tasks of sessions, processes that end when they are idle, leases that
    /// are given back.
    pub fn has_periodic_work(&self) -> bool {
        self.callers.is_running()
            || self.captures.is_running()
            || self.has_leased_memory()
            || self.sessions().iter().any(|session| session.tasks().running() > 0)
            || !self.lock().ending.is_empty()
    }

    /// Whether its sessions are those that an earlier process left, and no client has attached to any of them. They wait
    /// in the lots as well as here.
    pub fn only_awaits_clients(&self) -> bool {
        let sessions = self.sessions();
        let awaits = |session: &Arc<Session>| session.is_kept() && session.awaits_client();
        !sessions.is_empty() && sessions.iter().all(awaits)
    }
}
