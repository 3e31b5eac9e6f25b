//! Who uses the agent: connections and channels.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts what uses the agent.
#[derive(Debug)]
pub(super) struct Users {
    state: Arc<Mutex<State>>,
    most: usize,
    idle: Option<Duration>,
}

#[derive(Debug)]
struct State {
    count: usize,
    /// When the last use ended.
    since: Instant,
}

/// One use, until this is dropped.
#[derive(Debug)]
pub(super) struct User(Arc<Mutex<State>>);

impl Users {
    /// Nobody uses the agent. New uses begin while there are fewer than `most`. With `idle`, it is to end after that time
    /// without use.
    pub(super) fn new(most: usize, idle: Option<Duration>) -> Self {
        let state = State { count: 0, since: Instant::now() };
        Self { state: Arc::new(Mutex::new(state)), most, idle }
    }

    /// Begins a use; `None` if there are too many.
    pub(super) fn begin(&self) -> Option<User> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.count >= self.most {
            return None;
        }
        state.count += 1;
        Some(User(self.state.clone()))
    }

    /// Whether the agent is to end.
    pub(super) fn are_gone(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count == 0 && self.idle.is_some_and(|idle| state.since.elapsed() >= idle)
    }
}

impl User {
    /// A further use by the same client: a channel, whose number the broker limits.
    pub(super) fn another(&self) -> Self {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count += 1;
        Self(self.0.clone())
    }
}

impl Drop for User {
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
        let users = Users::new(1, Some(Duration::ZERO));
        assert!(users.are_gone());
        let first = users.begin().unwrap();
        let second = first.another();
        drop(first);
        assert!(!users.are_gone());
        drop(second);
        assert!(users.are_gone());
        assert!(!Users::new(1, None).are_gone());
        assert!(!Users::new(1, Some(Duration::from_hours(1))).are_gone());
    }

    #[test]
    fn at_most_the_given_number_of_uses_begins() {
        let users = Users::new(2, None);
        let used = [users.begin(), users.begin()];
        assert!(used.iter().all(Option::is_some));
        assert!(users.begin().is_none());
        drop(used);
        assert!(users.begin().is_some());
    }
}
