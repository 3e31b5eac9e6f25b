//! Batches: calls that start in order and are answered together, in the order of the batch.

use std::collections::HashMap;

use jsonrpsee::types::{ErrorObjectOwned, Id};
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;

use crate::config::limits::{Limits, size};
use crate::error::LimitExceeded;
use crate::rpc::bounds::check_message;
use crate::rpc::envelope::not_json;
use crate::rpc::error;

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

/// The entries of a batch, or why it is refused whole.
pub(super) fn entries<'a>(
    text: &'a str,
    limits: &Limits,
) -> Result<Vec<&'a RawValue>, ErrorObjectOwned> {
    if let Err(LimitExceeded { name, value }) = check_message(text, limits) {
        return Err(error::limit(name, value, 0));
    }
    let entries = serde_json::from_str::<Vec<&RawValue>>(text)
        .map_err(|error| error::plain(ErrorKind::Parse, not_json(&error)))?;
    if entries.is_empty() {
        return Err(error::plain(ErrorKind::Request, "an empty batch"));
    }
    if entries.len() > size(limits.batch_calls) {
        return Err(error::limit("batch_calls", limits.batch_calls, 0));
    }
    Ok(entries)
}

/// The batches of one connection that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Batches {
    next: u64,
    open: HashMap<u64, Batch>,
}

#[derive(Debug)]
struct Batch {
    answers: Vec<Option<Box<RawValue>>>,
    missing: usize,
    /// Bytes of the answers so far.
    held: usize,
    /// Bytes that fit into the answer of the batch.
    room: usize,
}

impl Batches {
    /// Begins a batch of so many entries, whose answer has room for so many bytes.
    pub(super) fn begin(&mut self, entries: usize, room: usize) -> u64 {
        self.next += 1;
        let answers = (0..entries).map(|_| None).collect();
        self.open.insert(self.next, Batch { answers, missing: entries, held: 2, room });
        self.next
    }

    /// Bytes of answers that wait for their neighbours.
    pub(super) fn held(&self) -> usize {
        self.open.values().map(|batch| batch.held).sum()
    }

    /// Notes the answer of an entry; where the batch has no room for it, an error that says so.
    pub(super) fn answer(&mut self, batch: u64, index: usize, id: Id<'_>, json: Box<RawValue>) {
        let Some(batch) = self.open.get_mut(&batch) else {
            return;
        };
        let json = if batch.held + json.get().len() < batch.room {
            json
        } else {
            error::answer(id, error::limit("frame_bytes", batch.room as u64, 0))
        };
        batch.missing -= 1;
        batch.held += json.get().len() + 1;
        if let Some(slot) = batch.answers.get_mut(index) {
            *slot = Some(json);
        }
    }

    /// Notes that an entry, a notification, has no answer.
    pub(super) fn silent(&mut self, batch: u64) {
        if let Some(batch) = self.open.get_mut(&batch) {
            batch.missing -= 1;
        }
    }

    /// The answer of a batch that is complete and has any.
    pub(super) fn take_complete(&mut self, batch: u64) -> Option<String> {
        if self.open.get(&batch)?.missing > 0 {
            return None;
        }
        let answers = self.open.remove(&batch)?.answers;
        let answers: Vec<_> = answers.iter().flatten().map(|json| json.get()).collect();
        (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
    }
}
