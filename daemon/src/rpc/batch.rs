//! Batches: calls that start in order, and whose responses are sent together in the same order.

use std::collections::HashMap;

use jsonrpsee_types::Id;
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;

use crate::config::limits::{Limits, size};
use crate::error::LimitExceeded;
use crate::rpc::bounds::check_message;
use crate::rpc::envelope::not_json;
use crate::rpc::error::RpcError;

/// Where the answer to a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Into its own frame.
    Alone,
    /// Into the answer of a batch.
    InBatch {
        /// The number of the batch.
        batch: u64,
        /// The index of the call in the batch.
        index: usize,
    },
}

/// The entries of a batch, or the error that refuses the whole batch.
pub(super) fn entries<'a>(text: &'a str, limits: &Limits) -> Result<Vec<&'a RawValue>, RpcError> {
    check_message(text, limits).map_err(|exceeded| RpcError::limit(exceeded, 0))?;
    let entries = serde_json::from_str::<Vec<&RawValue>>(text)
        .map_err(|error| RpcError::plain(ErrorKind::Parse, not_json(&error)))?;
    if entries.is_empty() {
        return Err(RpcError::plain(ErrorKind::Request, "the batch is empty"));
    }
    if entries.len() > size(limits.batch_calls) {
        let exceeded = LimitExceeded { name: "batch_calls", value: limits.batch_calls };
        return Err(RpcError::limit(exceeded, 0));
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
    answers: Vec<Option<bytes::Bytes>>,
    missing: usize,
    /// The size in bytes of the responses so far.
    held: usize,
    /// The most bytes that the answer of the batch may have.
    room: usize,
}

impl Batches {
    /// Begins a batch with this number of entries, whose answer has at most `room` bytes. Returns its number.
    pub(super) fn begin(&mut self, entries: usize, room: usize) -> u64 {
        self.next += 1;
        let answers = (0..entries).map(|_| None).collect();
        self.open.insert(self.next, Batch { answers, missing: entries, held: 2, room });
        self.next
    }

    /// The size in bytes of the responses that wait until their batch is complete.
    pub(super) fn held(&self) -> usize {
        self.open.values().map(|batch| batch.held).sum()
    }

    /// Stores the response of an entry. A response that does not fit is replaced by a limit error.
    pub(super) fn answer(&mut self, batch: u64, index: usize, id: &Id<'_>, json: bytes::Bytes) {
        let Some(batch) = self.open.get_mut(&batch) else {
            return;
        };
        let json = if batch.held + json.len() < batch.room {
            json
        } else {
            let value = batch.room as u64;
            RpcError::limit(LimitExceeded { name: "frame_bytes", value }, 0).encode(id)
        };
        batch.missing -= 1;
        batch.held += json.len() + 1;
        if let Some(slot) = batch.answers.get_mut(index) {
            *slot = Some(json);
        }
    }

    /// Notes that an entry is a notification, which has no response.
    pub(super) fn silent(&mut self, batch: u64) {
        if let Some(batch) = self.open.get_mut(&batch) {
            batch.missing -= 1;
        }
    }

    /// Removes a batch that is complete, and returns its answer. `None` if the batch is not complete, or has
    /// no responses.
    pub(super) fn take_complete(&mut self, batch: u64) -> Option<bytes::Bytes> {
        if self.open.get(&batch)?.missing > 0 {
            return None;
        }
        let answers = self.open.remove(&batch)?.answers;
        let answers: Vec<_> = answers.iter().flatten().map(|json| &**json).collect();
        (!answers.is_empty()).then(|| [b"[", &*answers.join(&b','), b"]"].concat().into())
    }
}
