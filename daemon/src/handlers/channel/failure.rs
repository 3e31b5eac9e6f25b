//! Errors that the client of a channel learns.

use std::sync::{Mutex, PoisonError};

use sockbroker_proto::channel::REASON_MAX;
use tokio::sync::Notify;

use crate::error::OpError;
use crate::rpc::error::message_and_data;
use crate::table::channel::ChannelEnd;

/// An error that the client is to learn.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) errno: u16,
    pub(super) reason: String,
    /// Whether the policy refused.
    pub(super) denied: bool,
}

impl Failure {
    /// The failure of an operation, with the error number of the same call: `os, EMSGSIZE: send: message too long`.
    pub(super) fn of(error: OpError) -> Self {
        let denied = matches!(error, OpError::Denied(_));
        let (message, data) = message_and_data(error);
        let name = data.name.map(|name| format!(", {name}")).unwrap_or_default();
        let reason = format!("{}{name}: {message}", data.kind);
        Self { denied, ..Self::new(data.errno.unwrap_or(0), &reason) }
    }

    pub(super) fn new(errno: i32, reason: &str) -> Self {
        let longest = reason.floor_char_boundary(REASON_MAX);
        let reason = reason.get(..longest).unwrap_or_default().to_owned();
        Self { errno: u16::try_from(errno).unwrap_or(0), reason, denied: false }
    }
}

impl From<ChannelEnd> for Failure {
    fn from(end: ChannelEnd) -> Self {
        let (errno, reason) = end.describe();
        Self::new(errno, reason)
    }
}

/// Failures of sending, which the other direction reports.
#[derive(Debug, Default)]
pub(super) struct Failures {
    waiting: Mutex<Option<Failure>>,
    added: Notify,
}

impl Failures {
    /// On a datagram socket only the latest is kept: the client may not read.
    pub(super) fn add(&self, failure: Failure) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.added.notify_one();
    }

    pub(super) async fn next(&self) -> Failure {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            match next {
                Some(failure) => return failure,
                None => self.added.notified().await,
            }
        }
    }
}
