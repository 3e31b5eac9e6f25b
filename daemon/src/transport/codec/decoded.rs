//! What a codec finds in received bytes.

use sockbroker_proto::frame::FrameError;

use crate::rpc::core::Message;

/// What the received bytes contain.
#[derive(Debug)]
pub(in crate::transport) enum Decoded {
    Message(Message),
    /// No complete message; at least this number of bytes is missing.
    Incomplete(usize),
    /// The peer closes the connection.
    Close,
}

/// A violation of the framing. After it the start of the next message is unknown.
#[derive(Debug, thiserror::Error)]
pub(in crate::transport) enum CodecError {
    /// An invalid head of a frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A line beyond the limit.
    #[error("a line is longer than {0} bytes")]
    LineTooLong(usize),
    /// Descriptors and frames do not match.
    #[error("{0}")]
    Descriptors(&'static str),
    /// A violation of the WebSocket protocol.
    #[error("websocket: {0}")]
    WebSocket(String),
}
