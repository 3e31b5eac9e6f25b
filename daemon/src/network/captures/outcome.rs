//! The counts of a capture, and how it ends.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sockbroker_monitor::capture::{Counts, Ended, Reason};
use tokio::sync::Notify;

/// What happens at the end of a capture.
type AtEnd = Box<dyn FnOnce(Ended) + Send>;

/// How a capture has ended, once it has.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Default)]
struct State {
    ended: Option<Ended>,
    /// The highest counts that were reported.
    highest: Counts,
    /// What an earlier process has counted of it.
    earlier: Counts,
    at_end: Option<AtEnd>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Option<Ended> {
        self.lock().ended
    }

    /// The highest counts so far. Those of the end can be lower: what was written to a stream that is cut is not captured.
    pub(super) fn highest(&self) -> Counts {
        self.lock().highest
    }

    /// What this process adds to the sums.
    pub(super) fn own(&self) -> Counts {
        let state = self.lock();
        let (highest, earlier) = (state.highest, state.earlier);
        Counts {
            seen: highest.seen.saturating_sub(earlier.seen),
            captured: highest.captured.saturating_sub(earlier.captured),
            dropped: highest.dropped.saturating_sub(earlier.dropped),
            unread: highest.unread,
            bytes: highest.bytes.saturating_sub(earlier.bytes),
        }
    }

    /// An earlier process has counted this of it.
    pub(super) fn begin_at(&self, counts: Counts) {
        self.note(counts);
        self.lock().earlier = counts;
    }

    /// Notes what the capture has counted so far.
    pub(super) fn note(&self, counts: Counts) {
        let highest = &mut self.lock().highest;
        *highest = Counts {
            seen: highest.seen.max(counts.seen),
            captured: highest.captured.max(counts.captured),
            dropped: highest.dropped.max(counts.dropped),
            unread: counts.unread,
            bytes: highest.bytes.max(counts.bytes),
        };
    }

    pub(super) fn set(&self, ended: Ended) {
        self.note(ended.counts);
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        // Before anybody can see the end: the broker exits when the last capture has ended.
        if let Some(at_end) = state.at_end.take() {
            at_end(ended);
        }
        state.ended = Some(ended);
        drop(state);
        self.notify.notify_waiters();
    }

    /// The process that reads the capture has ended, and with it the counts since they were read last.
    pub(super) fn lose(&self) {
        let counts = self.highest();
        self.set(Ended { reason: Reason::Failed, counts, complete: false });
    }

    /// Calls this at the end, or now if that was before.
    pub(super) fn at_end(&self, at_end: impl FnOnce(Ended) + Send + 'static) {
        let mut state = self.lock();
        match state.ended {
            None => state.at_end = Some(Box::new(at_end)),
            Some(ended) => {
                drop(state);
                at_end(ended);
            }
        }
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> Ended {
        loop {
            // Registered before the end is looked for, so that it is not missed between the two.
            let notified = self.notify.notified();
            if let Some(ended) = self.get() {
                return ended;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn counts(captured: u64) -> Counts {
        Counts { seen: captured, captured, dropped: 0, unread: 0, bytes: captured }
    }

    #[test]
    fn the_end_is_reported_once_also_to_those_who_ask_later() {
        let outcome = Outcome::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let report = |name: &'static str| {
            let seen = seen.clone();
            move |ended: Ended| seen.lock().unwrap().push((name, ended.counts.captured))
        };
        outcome.at_end(report("before"));
        outcome.set(Ended { reason: Reason::Stopped, counts: counts(7), complete: true });
        outcome.set(Ended { reason: Reason::Failed, counts: counts(9), complete: false });
        outcome.at_end(report("after"));
        assert_eq!(*seen.lock().unwrap(), [("before", 7), ("after", 7)]);
        assert_eq!(outcome.get().map(|ended| ended.reason), Some(Reason::Stopped));
    }

    #[test]
    fn the_counts_of_a_lost_capture_are_those_that_were_read_last() {
        let outcome = Outcome::default();
        outcome.note(counts(5));
        outcome.lose();
        assert_eq!(
            outcome.get().map(|ended| (ended.reason, ended.counts)),
            Some((Reason::Failed, counts(5)))
        );
    }
}
