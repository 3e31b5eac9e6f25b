//! Queries of all workers, for an administrator: each worker answers for itself, within a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::message::Query;

/// How long workers may take to answer. One that does not is reported as missing.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// Queries in progress for one worker. Further ones end the worker: its calls are bounded, and each has one.
pub(super) const QUERIES: usize = 1024;

/// A query in progress.
#[derive(Debug)]
pub(super) struct InProgress {
    pub(super) asker: u64,
    pub(super) request: u64,
    pub(super) query: Query,
    /// The workers that have not answered.
    pub(super) waiting: BTreeSet<u64>,
    pub(super) missing: u64,
    pub(super) deadline: Instant,
}

/// The queries in progress, by number.
#[derive(Debug, Default)]
pub(super) struct Queries {
    pub(super) next: u64,
    pub(super) open: BTreeMap<u64, InProgress>,
}

impl Queries {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|query| query.deadline).min()
    }

    /// A worker has ended: it does not answer, and is not answered.
    pub(super) fn lost(&mut self, token: u64) {
        self.open.retain(|_, query| query.asker != token);
        for query in self.open.values_mut() {
            query.missing += u64::from(query.waiting.remove(&token));
        }
    }
}
