//! Views of all workers, for an administrator: each worker answers for itself, within a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long workers may take to answer. One that does not is reported as missing.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// Views in progress for one worker.
pub(super) const VIEWS: usize = 4;

/// A view in progress.
#[derive(Debug)]
pub(super) struct InProgress {
    pub(super) asker: u64,
    pub(super) request: u64,
    /// The workers that have not answered.
    pub(super) waiting: BTreeSet<u64>,
    pub(super) missing: u64,
    pub(super) deadline: Instant,
}

/// The views in progress, by the number of the question.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) next: u64,
    pub(super) open: BTreeMap<u64, InProgress>,
}

impl Views {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|view| view.deadline).min()
    }

    /// A worker has ended: it does not answer, and is not answered.
    pub(super) fn lost(&mut self, token: u64) {
        self.open.retain(|_, view| view.asker != token);
        for view in self.open.values_mut() {
            view.missing += u64::from(view.waiting.remove(&token));
        }
    }
}
