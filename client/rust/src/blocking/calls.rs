//! The calls in progress on one connection, and the answers that were read for others.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::wire::reply::{Envelope, Reply};

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
    pub(crate) answer: Option<Kept>,
}

/// An answer that was read by somebody else.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) json: Vec<u8>,
    pub(crate) tail: Vec<u8>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Calls {
    pub(crate) fn has_answer(&self, id: u64) -> bool {
        self.slots.iter().any(|slot| slot.id == id && slot.answer.is_some())
    }

    pub(crate) fn take_answer(&mut self, id: u64) -> Option<Kept> {
        let at = self.slots.iter().position(|slot| slot.id == id && slot.answer.is_some())?;
        self.slots.swap_remove(at).answer
    }
}

impl Kept {
    /// Reads the result as if it had just come.
    pub(crate) fn read<T>(self, read: &mut dyn FnMut(&mut Reply<'_>) -> Result<T>) -> Result<T> {
        let Self { json, tail, lengths, descriptors } = self;
        let result = Envelope::read(&json)?.outcome()?;
        read(&mut Reply { result, tail: &tail, lengths: &lengths, descriptors })
    }
}

/// A thread that panicked leaves nothing half done behind these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
