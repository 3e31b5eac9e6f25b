//! Batches: calls that start in order and are answered together, in the order of the batch.

use std::collections::HashMap;

use jsonrpsee::types::Id;
use serde_json::value::RawValue;

use super::error;

/// Where the answer to a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Into a frame of its own.
    Alone,
    /// Into its batch.
    InBatch {
        /// The batch's number.
        batch: u64,
        /// The call's place in it.
        index: usize,
    },
}

/// The batches of one connection that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Batches {
    next: u64,
    open: HashMap<u64, Batch>,
}

#[derive(Debug)]
struct Batch {
    answers: Vec<Option<(Id<'static>, Box<RawValue>)>>,
    missing: usize,
}

impl Batches {
    /// Begins a batch of so many entries.
    pub(super) fn begin(&mut self, entries: usize) -> u64 {
        self.next += 1;
        let answers = (0..entries).map(|_| None).collect();
        self.open.insert(self.next, Batch { answers, missing: entries });
        self.next
    }

    /// Notes the answer of an entry.
    pub(super) fn answer(
        &mut self,
        batch: u64,
        index: usize,
        id: Id<'static>,
        json: Box<RawValue>,
    ) {
        if let Some(batch) = self.open.get_mut(&batch) {
            batch.missing -= 1;
            if let Some(slot) = batch.answers.get_mut(index) {
                *slot = Some((id, json));
            }
        }
    }

    /// Notes that an entry, a notification, has no answer.
    pub(super) fn silent(&mut self, batch: u64) {
        if let Some(batch) = self.open.get_mut(&batch) {
            batch.missing -= 1;
        }
    }

    /// The answer of a batch that is complete and has any: at most about `room` bytes, beyond which
    /// entries are answered by an error.
    pub(super) fn take_complete(&mut self, batch: u64, room: usize) -> Option<String> {
        if self.open.get(&batch)?.missing > 0 {
            return None;
        }
        let answers = self.open.remove(&batch)?.answers;
        let mut text = String::from("[");
        for (id, json) in answers.into_iter().flatten() {
            if text.len() > 1 {
                text.push(',');
            }
            if text.len() + json.get().len() < room {
                text.push_str(json.get());
            } else {
                let refused = error::answer(id, error::limit("frame_bytes", room as u64, 0));
                text.push_str(refused.get());
            }
        }
        text.push(']');
        (text.len() > 2).then_some(text)
    }
}
