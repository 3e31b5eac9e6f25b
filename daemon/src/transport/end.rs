//! Why a stream connection ended.

use std::io;

use super::codec::CodecError;
use crate::error::LimitExceeded;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer closed it, or said that it is done.
    #[error("closed by the peer")]
    Closed,
    /// The broker shuts down.
    #[error("the broker shuts down")]
    Shutdown,
    /// The peer leaves answers unread.
    #[error("the peer reads no answers: stall_seconds")]
    Stalled,
    /// The peer does not go on with a message it began.
    #[error("a message did not go on: partial_seconds")]
    Partial,
    /// The peer broke the rules of its framing.
    #[error("broken framing: {0}")]
    Framing(#[from] CodecError),
    /// The user has too much on its way.
    #[error("unfinished messages and unread answers are too much for their user: {}", .0.name)]
    LimitExceeded(LimitExceeded),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}
