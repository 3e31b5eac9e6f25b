//! The connections of a session, and how long it waits for one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::session::Session;
use crate::session::finished::LastCalls;
use crate::table::channel::ChannelEnd;

impl Session {
    /// The number of attached connections.
    pub fn connections(&self) -> usize {
        self.state().connections.len()
    }

    pub fn join(&self, connection: u64) {
        let mut state = self.state();
        if state.connections.is_empty()
            && let Some(persistence) = self.persistence()
        {
            persistence.monitor.attached(self.number, true);
        }
        state.connections.insert(connection);
        state.expires = None;
        self.awaits_client.store(false, Ordering::Release);
    }

    /// Detaches a connection and keeps how its calls ended. `true` if the session is to be closed.
    pub fn leave(&self, connection: u64, calls: LastCalls) -> bool {
        let mut state = self.state();
        state.connections.remove(&connection);
        if state.token.is_some() {
            state.finished.record(connection, calls);
        }
        let last = state.connections.is_empty();
        let now = Instant::now();
        // Its client may have abandoned the connection before the process served it, and not know that it was attached.
        let unused_until = state.reattach.filter(|until| last && *until > now);
        if last {
            let lingers = now + state.linger;
            state.expires = Some(unused_until.map_or(lingers, |until| until.max(lingers)));
            self.awaits_client.store(unused_until.is_some(), Ordering::Release);
        }
        let ends_now = state.linger.is_zero() || state.token.is_none();
        let over = last && ends_now && unused_until.is_none();
        // For the monitor it is used: it would not wait for a client as long as after a recovery.
        if last
            && !over
            && unused_until.is_none()
            && let Some(persistence) = self.persistence()
        {
            persistence.monitor.attached(self.number, false);
        }
        drop(state);
        self.ended.notify_waiters();
        // Each keeps its network namespace in existence.
        let elsewhere = (last && !over).then(|| self.table().take_elsewhere());
        for (_, entry) in elsewhere.into_iter().flatten() {
            entry.channels.end(ChannelEnd::Session);
            entry.end();
        }
        over
    }

    /// Keeps a session without connections open for this long.
    pub fn expect_connection(&self, within: Duration) {
        self.state().expires = Some(Instant::now() + within);
    }

    /// Keeps a session that was recovered open for this long, until a client uses it. A connection does so with its first
    /// call in it: `session.attach` may be a request of a client that is gone.
    pub fn expect_client(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut state = self.state();
        state.expires = Some(until);
        state.reattach = Some(until);
        self.is_unused.store(true, Ordering::Release);
    }

    /// Notes that a connection makes a call in it.
    pub fn note_use(&self) {
        if self.is_unused.load(Ordering::Relaxed) {
            self.state().reattach = None;
            self.is_unused.store(false, Ordering::Release);
        }
    }

    /// Whether it was recovered, and no client has attached to it since.
    pub(super) fn awaits_client(&self) -> bool {
        self.awaits_client.load(Ordering::Acquire)
    }

    /// Whether it has no connection and its time to wait for one is over.
    pub fn is_over(&self) -> bool {
        let mut state = self.state();
        state.finished.forget_old();
        state.connections.is_empty() && state.expires.is_some_and(|at| at <= Instant::now())
    }

    /// When time alone changes it next: its end without connections, or that of a kept answer.
    pub fn next_change(&self) -> Option<Instant> {
        let state = self.state();
        let expires = state.expires.filter(|_| state.connections.is_empty());
        expires.into_iter().chain(state.finished.oldest_ends()).min()
    }
}
