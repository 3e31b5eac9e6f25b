//! How captures reach the process that reads them, also if that ends and another one continues them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_monitor::capture::{Captures, Counts, Reason};
use sockbroker_monitor::reader::message::ToReader;
use tokio::sync::watch;

use super::inbox::{Held, Inbox};
use super::outcome::Outcome;
use super::totals::Totals;

/// The way to a process that reads captures.
pub(super) trait Commands: fmt::Debug + Send + Sync {
    /// Sends a command. `false` if the process has ended.
    fn send(&self, message: &ToReader) -> bool;

    /// Where its reports go.
    fn inbox(&self) -> &Arc<Inbox>;
}

/// Where a capture is read.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Own((Arc<Captures>, Arc<Inbox>)),
    Reader(Arc<dyn Commands>),
}

impl Way {
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        match self {
            Self::Own((_, inbox)) => inbox,
            Self::Reader(link) => link.inbox(),
        }
    }
}

/// A capture as its readers know it.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) number: u64,
    pub(super) outcome: Arc<Outcome>,
    totals: Arc<Totals>,
    /// `None` while no process reads it.
    pub(super) way: watch::Sender<Option<Way>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The parts of the user's limits that it takes, while no process reads it.
    held: Option<Held>,
    /// Set until the counts of the earlier process are known.
    recovered: bool,
    /// Whether it outlives this process.
    kept: bool,
    /// Whether the next process of its principal has it.
    left: bool,
    /// Why it was asked to end, or after how many milliseconds. A process that did not obey has ended.
    close: Option<Reason>,
    stop: Option<u32>,
}

impl Linked {
    pub(super) fn new(
        number: u64,
        outcome: Arc<Outcome>,
        totals: Arc<Totals>,
        way: Option<Way>,
    ) -> Arc<Self> {
        let (way, state) = (watch::Sender::new(way), Mutex::default());
        Arc::new(Self { number, outcome, totals, way, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.state().kept
    }

    fn hold(&self, held: Held) {
        self.state().held = Some(held);
    }

    /// It was begun by an earlier process: what it has counted so far is in the sums of that.
    pub(super) fn note_recovered(&self, held: Held) {
        let mut state = self.state();
        (state.held, state.recovered) = (Some(held), true);
    }

    /// Leaves it to the next process of its principal, if that gets it.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        if state.kept {
            state.left = true;
            self.totals.end(&self.outcome);
        }
    }

    /// Asks it once to end.
    pub(super) fn close(&self, reason: Reason) -> bool {
        let mut state = self.state();
        if state.left || state.close.is_some() || self.outcome.get().is_some() {
            return false;
        }
        state.close = Some(reason);
        true
    }

    pub(super) fn note_stop(&self, linger: u32) {
        self.state().stop = Some(linger);
    }

    /// A process reads it from now on: it gets the commands that an earlier one may not have obeyed.
    fn link(&self, link: &Arc<dyn Commands>) {
        self.way.send_replace(Some(Way::Reader(link.clone())));
        let (capture, state) = (self.number, self.state());
        if let Some(reason) = state.close {
            link.send(&ToReader::Close { capture, reason });
        } else if let Some(linger) = state.stop {
            link.send(&ToReader::Stop { capture, linger });
        }
    }

    fn lose(&self) {
        self.outcome.lose();
        self.totals.end(&self.outcome);
        self.state().held = None;
    }
}

/// The captures that outlive this process, or the one that reads them.
#[derive(Debug, Default)]
pub(super) struct KeptCaptures(Mutex<HashMap<u64, Arc<Linked>>>);

impl KeptCaptures {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Linked>>> {
        // Every change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, linked: &Arc<Linked>) {
        linked.state().kept = true;
        self.lock().insert(linked.number, linked.clone());
    }

    /// Whether one runs.
    pub(super) fn is_empty(&self) -> bool {
        let mut all = self.lock();
        all.retain(|_, linked| linked.outcome.get().is_none());
        all.is_empty()
    }

    /// The process that reads a capture has ended. Returns what was held for it, if it does not outlive that.
    pub(super) fn unlink(&self, number: u64, outcome: &Arc<Outcome>, held: Held) -> Option<Held> {
        let linked = self.lock().get(&number).cloned();
        match linked.filter(|linked| Arc::ptr_eq(&linked.outcome, outcome)) {
            Some(linked) => {
                linked.hold(held);
                linked.way.send_replace(None);
                None
            }
            None => Some(held),
        }
    }

    /// Expects the reports of captures in an inbox, before they come.
    pub(super) fn expect(&self, continued: &[(u64, Counts)], inbox: &Inbox) {
        let all = self.lock();
        for (number, counts) in continued {
            let known = all.get(number);
            if let Some(linked) =
                known.filter(|linked| std::mem::take(&mut linked.state().recovered))
            {
                linked.outcome.begin_at(*counts);
            }
            let held = known.and_then(|linked| linked.state().held.take());
            let known = known.map(|linked| linked.outcome.clone());
            inbox.adopt(*number, known.zip(held));
        }
    }

    /// A new process continues these captures, and no others.
    pub(super) fn link(&self, numbers: &[u64], link: &Arc<dyn Commands>) {
        let unlinked: Vec<_> = {
            let all = self.lock();
            for number in numbers.iter().filter(|number| !all.contains_key(*number)) {
                // Its handle was not stored, or is closed.
                link.send(&ToReader::Close { capture: *number, reason: Reason::Interrupted });
            }
            all.values().filter(|linked| linked.way.borrow().is_none()).cloned().collect()
        };
        for linked in unlinked {
            if numbers.contains(&linked.number) {
                linked.link(link);
            } else if linked.outcome.get().is_none() {
                tracing::warn!(capture = linked.number, "a capture was not continued");
                linked.lose();
            }
        }
        self.is_empty();
    }

    /// No process continues the captures.
    pub(super) fn lose_all(&self) {
        for (_, linked) in self.lock().drain() {
            if linked.way.borrow().is_none() {
                linked.lose();
            }
        }
    }
}
