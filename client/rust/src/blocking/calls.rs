//! The calls in progress on one connection, and the answers that were read for others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::wire::response::OwnedResponse;

/// The calls in progress.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) slots: Vec<Slot>,
    /// Whether somebody reads.
    pub(crate) reading: bool,
    /// Why nothing will come any more.
    pub(crate) ended: Option<Error>,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: u64,
    pub(crate) answer: Option<OwnedResponse>,
}

impl Calls {
    pub(crate) fn has_answer(&self, id: u64) -> bool {
        self.slots.iter().any(|slot| slot.id == id && slot.answer.is_some())
    }

    pub(crate) fn take_answer(&mut self, id: u64) -> Option<OwnedResponse> {
        let at = self.slots.iter().position(|slot| slot.id == id && slot.answer.is_some())?;
        self.slots.swap_remove(at).answer
    }
}

/// A thread that panicked leaves nothing half done behind these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
