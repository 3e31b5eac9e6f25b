//! The log of refused requests: a few lines a minute for each worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sockbroker_policy::Denial;

/// The lines of one worker in one minute.
const LINES: u64 = 10;
const MINUTE: Duration = Duration::from_mins(1);

/// Counts the refusals of this minute, by the number of the worker.
#[derive(Debug)]
pub(super) struct Refusals {
    began: Instant,
    counts: BTreeMap<u64, u64>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), counts: BTreeMap::new() }
    }

    /// Logs a refusal. The worker has allowed the request before, so its policy is older or newer, or it was taken
    /// over.
    pub(super) fn report(&mut self, worker: u64, denial: &Denial) {
        if self.count(worker, Instant::now()) {
            let caller = &*denial.caller;
            tracing::warn!(caller, worker, %denial, "the opener refused what a worker had allowed");
        }
    }

    /// Counts a refusal. Whether it has a line.
    fn count(&mut self, worker: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= MINUTE {
            self.began = now;
            for (worker, count) in std::mem::take(&mut self.counts) {
                let missing = count.saturating_sub(LINES);
                if missing > 0 {
                    tracing::warn!(worker, missing, "the opener refused further requests");
                }
            }
        }
        let count = self.counts.entry(worker).or_default();
        *count += 1;
        *count <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_for_each_worker_and_minute() {
        let mut refusals = Refusals::new();
        let now = Instant::now();
        let lines = (0..30).filter(|_| refusals.count(1, now)).count() as u64;
        assert_eq!(lines, LINES);
        assert!(refusals.count(2, now));
        assert!(refusals.count(1, now + MINUTE));
    }
}
