//! Why a stream connection ended.

use std::io;

use super::codec::decoded::CodecError;
use crate::error::LimitExceeded;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// The broker shuts down.
    #[error("the broker shuts down")]
    Shutdown,
    /// Its remote principal is not admitted any longer.
    #[error("{0}")]
    Ended(String),
    /// The peer does not read its answers.
    #[error("the peer does not read its answers: stall_seconds")]
    Stalled,
    /// The peer does not complete a message.
    #[error("a message stays incomplete: partial_seconds")]
    Partial,
    /// The peer violated the framing.
    #[error("invalid framing: {0}")]
    Framing(#[from] CodecError),
    /// The user exceeds a limit with incomplete messages and unread answers.
    #[error("incomplete messages and unread answers exceed a limit of their user: {}", .0.name)]
    LimitExceeded(LimitExceeded),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}
