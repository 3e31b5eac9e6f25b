//! Channels that the broker has not confirmed yet. Their session must not end before: it would end them too.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The channels of one client that are starting.
#[derive(Debug, Clone, Default)]
pub(super) struct Starting(Arc<(Mutex<usize>, Condvar)>);

/// A channel that is starting, until this is dropped.
#[derive(Debug)]
pub(super) struct Start(Starting);

impl Starting {
    pub(super) fn begin(&self) -> Start {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Start(self.clone())
    }

    /// Waits until no channel is starting.
    pub(super) fn wait(&self) {
        let count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(count, |count| *count > 0));
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        *self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_the_last_channel_has_started() {
        let starting = Starting::default();
        starting.wait();
        let starts = [starting.begin(), starting.begin()];
        let waiter = std::thread::spawn(move || starting.wait());
        starts.into_iter().for_each(drop);
        waiter.join().unwrap();
    }
}
