//! Who uses the agent: connections and channels.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts what uses the agent.
#[derive(Debug)]
pub(super) struct Users {
    state: Arc<Mutex<State>>,
    idle: Option<Duration>,
}

#[derive(Debug)]
struct State {
    count: usize,
    since: Instant,
    /// Whether the broker cannot be reached any more.
    is_cut_off: bool,
}

/// One use, which ends with the last copy of this.
#[derive(Debug, Clone)]
pub(super) struct User {
    counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted(Arc<Mutex<State>>);

impl Users {
    /// Nobody uses the agent. With `idle`, it is to end after that time without use.
    pub(super) fn new(idle: Option<Duration>) -> Self {
        let state = State { count: 0, since: Instant::now(), is_cut_off: false };
        Self { state: Arc::new(Mutex::new(state)), idle }
    }

    /// Begins a use.
    pub(super) fn begin(&self) -> User {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        User { counted: Arc::new(Counted(self.state.clone())) }
    }

    /// Whether the agent is to end.
    pub(super) fn are_gone(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = || self.idle.is_some_and(|idle| state.since.elapsed() >= idle);
        state.is_cut_off || state.count == 0 && is_idle()
    }
}

impl User {
    /// Notes that the broker cannot be reached any more: the agent ends, and the next client starts another one.
    pub(super) fn note_cut_off(&self) {
        self.counted.0.lock().unwrap_or_else(PoisonError::into_inner).is_cut_off = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count -= 1;
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_ends_when_the_last_use_has_ended_for_the_idle_time() {
        let users = Users::new(Some(Duration::ZERO));
        assert!(users.are_gone());
        let first = users.begin();
        let second = first.clone();
        drop(first);
        assert!(!users.are_gone());
        drop(second);
        assert!(users.are_gone());
        users.begin().note_cut_off();
        assert!(users.are_gone());
        assert!(!Users::new(None).are_gone());
        assert!(!Users::new(Some(Duration::from_secs(3600))).are_gone());
    }
}
