//! Connections that have not sent their first byte.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

use sockbroker_sys::credentials::Credentials;

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) connection: OwnedFd,
    pub(super) peer: Credentials,
    deadline: Instant,
}

/// The connections that are waited for, by number. All have the same time, so the oldest is the first to be
/// overdue.
#[derive(Debug, Default)]
pub(super) struct Arrivals(BTreeMap<u64, Arrival>);

impl Arrivals {
    pub(super) fn add(
        &mut self,
        number: u64,
        connection: OwnedFd,
        peer: Credentials,
        deadline: Instant,
    ) {
        self.0.insert(number, Arrival { connection, peer, deadline });
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Arrival> {
        self.0.remove(&number)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().next().map(|arrival| arrival.deadline)
    }

    /// Takes those whose time is over.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<(u64, Arrival)> {
        let mut overdue = Vec::new();
        while let Some(first) = self.0.first_entry().filter(|first| first.get().deadline <= now) {
            overdue.push(first.remove_entry());
        }
        overdue
    }

    pub(super) fn take_all(&mut self) -> Vec<(u64, Arrival)> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}
