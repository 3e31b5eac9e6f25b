//! Batches: calls that start in order, and whose responses are sent together in the same order.

use std::collections::HashMap;
use std::sync::Arc;

use jsonrpsee_types::Id;
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;

use crate::config::limits::{Limits, size};
use crate::error::LimitExceeded;
use crate::quota::{Reservation, Share, User};
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
#[derive(Debug)]
pub(super) struct Batches {
    next: u64,
    open: HashMap<u64, Batch>,
    user: Arc<User>,
    /// What their responses take of their user's bytes.
    share: Option<Reservation>,
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
    pub(super) fn new(user: &Arc<User>) -> Self {
        Self { next: 0, open: HashMap::new(), user: user.clone(), share: None }
    }

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

    /// Counts this number of bytes for the user, in place of the number before.
    fn charge(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        let bytes = bytes as u64;
        match &mut self.share {
            _ if bytes == 0 => self.share = None,
            Some(share) => share.resize(bytes)?,
            None => self.share = Some(self.user.take(Share::Bytes, bytes)?),
        }
        Ok(())
    }

    /// Stores the response of an entry. A response that exceeds a limit is replaced by an error, and the limit is
    /// returned.
    pub(super) fn answer(
        &mut self,
        batch: u64,
        index: usize,
        id: &Id<'_>,
        json: bytes::Bytes,
    ) -> Result<(), LimitExceeded> {
        let before = self.held();
        let Some(Batch { held, room, .. }) = self.open.get(&batch) else {
            return Ok(());
        };
        let exceeded = if held + json.len() < *room {
            self.charge(before + json.len() + 1)
        } else {
            Err(LimitExceeded { name: "frame_bytes", value: *room as u64 })
        };
        let json = match exceeded {
            Ok(()) => json,
            Err(exceeded) => RpcError::limit(exceeded, 0).encode(id),
        };
        self.store(batch, index, json);
        exceeded
    }

    fn store(&mut self, batch: u64, index: usize, json: bytes::Bytes) {
        let Some(batch) = self.open.get_mut(&batch) else {
            return;
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
        // It shrinks, which no limit refuses. Errors that replace responses are not counted.
        let rest = self.share.as_ref().map_or(0, Reservation::amount).min(self.held() as u64);
        self.charge(size(rest)).ok();
        let answers: Vec<_> = answers.iter().flatten().map(|json| &**json).collect();
        (!answers.is_empty()).then(|| [b"[", &*answers.join(&b','), b"]"].concat().into())
    }
}
