//! The connections that are being made, so that a socket that connects again is not closed with its old descriptor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A socket: the process id of the program that uses it, and its handle.
pub(super) type Place = (i32, u64);

/// The newest attempt of each socket. All clients of the agent share it, since a program can use several connections.
#[derive(Debug, Default, Clone)]
pub(super) struct Attempts(Arc<Mutex<HashMap<Place, Arc<()>>>>);

/// An attempt to connect a socket.
#[derive(Debug)]
pub(super) struct Attempt {
    all: Attempts,
    place: Place,
    mark: Arc<()>,
}

impl Attempts {
    fn newest(&self) -> MutexGuard<'_, HashMap<Place, Arc<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt. An earlier one of the same socket is not the newest any more.
    pub(super) fn begin(&self, place: Place) -> Attempt {
        let mark = Arc::new(());
        self.newest().insert(place, mark.clone());
        Attempt { all: self.clone(), place, mark }
    }

    /// Notes that the socket has got another descriptor.
    pub(super) fn replace(&self, place: Place) {
        self.newest().remove(&place);
    }
}

impl Attempt {
    /// Whether the socket has not got another descriptor since.
    pub(super) fn is_newest(&self) -> bool {
        self.all.newest().get(&self.place).is_some_and(|newest| Arc::ptr_eq(newest, &self.mark))
    }

    pub(super) fn handle(&self) -> u64 {
        self.place.1
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_newest() {
            self.all.replace(self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_attempt_of_the_same_socket_is_the_newest() {
        let attempts = Attempts::default();
        let first = attempts.begin((1, 7));
        let other = attempts.begin((2, 7));
        assert!(first.is_newest());
        let second = attempts.begin((1, 7));
        assert!(!first.is_newest());
        drop(first);
        assert!(second.is_newest());
        attempts.replace((1, 7));
        assert!(!second.is_newest());
        assert!(other.is_newest());
        drop((second, other));
        assert!(attempts.newest().is_empty());
    }
}
