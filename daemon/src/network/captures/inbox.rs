//! What captures report, passed to the calls that wait for it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_monitor::capture::{Counts, Event, Failure, Live};
use tokio::sync::oneshot;

use super::outcome::Outcome;
use super::totals::Totals;
use crate::quota::Reservation;

/// Whether a capture has begun.
pub(super) type Begun = Result<(Live, OwnedFd), Failure>;
/// The counts of a capture that runs.
pub(super) type Counted = Option<Counts>;
/// Between which times a filter was replaced, on a capture that runs.
pub(super) type Replaced = Option<Result<(u64, u64), Failure>>;

/// Whether a capture outlives its process from now on; `None` if it has ended.
pub(super) type Kept = Option<Result<(), Failure>>;

/// The parts of the user's limits that a capture takes until it has ended.
pub(super) type Held = (Reservation, Reservation);

/// What calls wait for.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Waiting {
    numbers: u64,
    begun: HashMap<u64, oneshot::Sender<Begun>>,
    counted: HashMap<u64, oneshot::Sender<Counted>>,
    replaced: HashMap<u64, oneshot::Sender<Replaced>>,
    kept: HashMap<u64, oneshot::Sender<Kept>>,
    running: HashMap<u64, (Arc<Outcome>, Held)>,
}

impl Inbox {
    /// An inbox whose captures are counted there.
    pub(super) fn new(totals: Arc<Totals>) -> Self {
        Self { waiting: Mutex::default(), totals }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new capture, which will report on itself.
    pub(super) fn expect(&self, held: Held) -> (u64, Arc<Outcome>, oneshot::Receiver<Begun>) {
        let (sender, begun) = oneshot::channel();
        let outcome = Arc::new(Outcome::default());
        let mut waiting = self.lock();
        waiting.numbers += 1;
        let number = waiting.numbers;
        waiting.begun.insert(number, sender);
        waiting.running.insert(number, (outcome.clone(), held));
        self.totals.begin(outcome.clone());
        (number, outcome, begun)
    }

    /// Forgets a capture that did not begin.
    pub(super) fn forget(&self, number: u64) {
        let mut waiting = self.lock();
        waiting.begun.remove(&number);
        if let Some((outcome, _held)) = waiting.running.remove(&number) {
            self.totals.end(&outcome);
        }
    }

    pub(super) fn expect_counts(&self) -> (u64, oneshot::Receiver<Counted>) {
        let (sender, counted) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.numbers += 1;
        let number = waiting.numbers;
        waiting.counted.insert(number, sender);
        (number, counted)
    }

    pub(super) fn expect_filter(&self) -> (u64, oneshot::Receiver<Replaced>) {
        let (sender, replaced) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.numbers += 1;
        let number = waiting.numbers;
        waiting.replaced.insert(number, sender);
        (number, replaced)
    }

    pub(super) fn expect_kept(&self) -> (u64, oneshot::Receiver<Kept>) {
        let (sender, kept) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.numbers += 1;
        let number = waiting.numbers;
        waiting.kept.insert(number, sender);
        (number, kept)
    }

    /// Expects the reports of a capture that an earlier process has begun, if it has a handle. Its number is in use.
    pub(super) fn adopt(&self, number: u64, known: Option<(Arc<Outcome>, Held)>) {
        let mut waiting = self.lock();
        waiting.numbers = waiting.numbers.max(number);
        if let Some(known) = known {
            waiting.running.insert(number, known);
        }
    }

    /// Passes a report on. A call that was cancelled does not get it: then a stream is closed, and its capture ends.
    pub(super) fn deliver(&self, event: Event) {
        let mut waiting = self.lock();
        match event {
            Event::Live { capture, live, stream } => {
                if let Some(sender) = waiting.begun.remove(&capture) {
                    drop(sender.send(Ok((live, stream))));
                }
            }
            Event::NotLive { capture, failure } => {
                if let Some((outcome, _held)) = waiting.running.remove(&capture) {
                    self.totals.end(&outcome);
                }
                if let Some(sender) = waiting.begun.remove(&capture) {
                    drop(sender.send(Err(failure)));
                }
            }
            Event::Counts { request, counts } => {
                if let Some(sender) = waiting.counted.remove(&request) {
                    sender.send(counts).ok();
                }
            }
            Event::Filter { request, result } => {
                if let Some(sender) = waiting.replaced.remove(&request) {
                    sender.send(result).ok();
                }
            }
            Event::Kept { request, result } => {
                if let Some(sender) = waiting.kept.remove(&request) {
                    sender.send(result).ok();
                }
            }
            Event::Ended { capture, ended } => {
                if let Some((outcome, held)) = waiting.running.remove(&capture) {
                    // Before the end is known, so that the next capture has room.
                    drop(held);
                    outcome.set(ended);
                    self.totals.end(&outcome);
                }
            }
            Event::Closed { .. } => {}
        }
    }

    /// The process that reads the captures has ended. `unlink` takes those that outlive it, and returns what is held for
    /// the others.
    pub(super) fn lose_all(&self, unlink: impl Fn(u64, &Arc<Outcome>, Held) -> Option<Held>) {
        let mut waiting = self.lock();
        waiting.begun.clear();
        waiting.counted.clear();
        waiting.replaced.clear();
        waiting.kept.clear();
        for (number, (outcome, held)) in waiting.running.drain() {
            if unlink(number, &outcome, held).is_some() {
                outcome.lose();
                self.totals.end(&outcome);
            }
        }
    }
}
