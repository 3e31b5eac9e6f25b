//! The sums of all captures of this process, for the page of metrics. They never fall.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_monitor::capture::Counts;

use super::outcome::Outcome;

/// The sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Captures that run.
    pub running: u64,
    /// Captures that have ended, by reason.
    pub ended: BTreeMap<&'static str, u64>,
    pub captured: u64,
    pub dropped: u64,
    pub bytes: u64,
}

impl Sums {
    fn add(&mut self, counts: Counts) {
        self.captured += counts.captured;
        self.dropped += counts.dropped;
        self.bytes += counts.bytes;
    }
}

#[derive(Debug, Default)]
struct State {
    /// Of captures that have ended.
    past: Sums,
    running: Vec<Arc<Outcome>>,
}

/// Where captures are counted.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<State>);

impl Totals {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, outcome: Arc<Outcome>) {
        self.lock().running.push(outcome);
    }

    /// Counts a capture as one that has ended, if it had begun.
    pub(super) fn end(&self, outcome: &Arc<Outcome>) {
        let mut state = self.lock();
        state.running.retain(|running| !Arc::ptr_eq(running, outcome));
        if let Some(ended) = outcome.get() {
            state.past.add(outcome.own());
            *state.past.ended.entry(ended.reason.word()).or_default() += 1;
        }
    }

    /// The captures that run.
    pub(super) fn running(&self) -> Vec<Arc<Outcome>> {
        self.lock().running.clone()
    }

    /// The sums, with the counts of running captures that were read last.
    pub(super) fn sums(&self) -> Sums {
        let state = self.lock();
        let mut sums = state.past.clone();
        sums.running = state.running.len() as u64;
        state.running.iter().for_each(|outcome| sums.add(outcome.own()));
        sums
    }
}

#[cfg(test)]
mod tests {
    use sockbroker_monitor::capture::{Ended, Reason};

    use super::*;

    #[test]
    fn sums_do_not_have_what_an_earlier_process_has_counted() {
        let totals = Totals::default();
        let counts =
            |captured| Counts { seen: captured, captured, bytes: captured, ..Counts::default() };
        let outcome = Arc::new(Outcome::default());
        totals.begin(outcome.clone());
        outcome.begin_at(counts(50));
        assert_eq!((totals.sums().captured, outcome.highest().captured), (0, 50));
        outcome.note(counts(60));
        outcome.set(Ended { reason: Reason::Stopped, counts: counts(61), complete: true });
        totals.end(&outcome);
        assert_eq!((totals.sums().captured, totals.sums().bytes), (11, 11));
    }

    #[test]
    fn sums_do_not_fall_when_a_capture_ends_with_less_than_it_had_reported() {
        let totals = Totals::default();
        let counts =
            |captured, dropped| Counts { seen: 100, captured, dropped, unread: 0, bytes: captured };
        let outcome = Arc::new(Outcome::default());
        totals.begin(outcome.clone());
        outcome.note(counts(50, 1));
        let sums = totals.sums();
        assert_eq!((sums.running, sums.captured, sums.dropped, sums.bytes), (1, 50, 1, 50));
        // The stream was cut: ten packets did not reach the client.
        outcome.set(Ended { reason: Reason::Unread, counts: counts(40, 2), complete: false });
        totals.end(&outcome);
        let sums = totals.sums();
        assert_eq!((sums.running, sums.captured, sums.dropped, sums.bytes), (0, 50, 2, 50));
        assert_eq!(sums.ended, BTreeMap::from([("unread", 1)]));
        // One that never began is not counted.
        let outcome = Arc::new(Outcome::default());
        totals.begin(outcome.clone());
        totals.end(&outcome);
        assert_eq!(totals.sums(), Sums { running: 0, ..sums });
    }
}
