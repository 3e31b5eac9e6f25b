//! The spellings of a stream: bytes to messages and answers to bytes, without I/O.

mod lsp;
mod ndjson;
mod websocket;

use std::os::fd::OwnedFd;

use bytes::BytesMut;
use sockbroker_proto::descriptors::DescriptorQueue;
use sockbroker_proto::frame::{FrameError, FrameLimits};

use super::outgoing::Outgoing;
use crate::rpc::core::{Answer, Message};

/// What the bytes received so far hold.
#[derive(Debug)]
pub(super) enum Decoded {
    /// A message.
    Message(Message),
    /// Not yet a whole one; so many bytes more would help.
    Incomplete(usize),
    /// The peer says that it is done.
    Close,
}

/// A break of the framing's rules: after it nobody can tell where the next message begins.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    /// The head of a frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A line without an end.
    #[error("a line is longer than {0} bytes")]
    LineTooLong(usize),
    /// Descriptors and frames do not match.
    #[error("{0}")]
    Descriptors(&'static str),
    /// The WebSocket protocol.
    #[error("websocket: {0}")]
    WebSocket(String),
}

/// How a stream is spelt.
#[derive(Debug)]
pub(super) enum Codec {
    /// LSP framing.
    Lsp(lsp::Lsp),
    /// Newline-delimited JSON.
    Ndjson(ndjson::Ndjson),
    /// WebSocket, after its handshake.
    WebSocket(websocket::WebSocket),
}

impl Codec {
    /// LSP framing.
    pub(super) fn lsp(limits: FrameLimits) -> Self {
        Self::Lsp(lsp::Lsp::new(limits))
    }

    /// Newline-delimited JSON.
    pub(super) fn ndjson(limits: FrameLimits) -> Self {
        Self::Ndjson(ndjson::Ndjson::new(limits.frame_bytes))
    }

    /// WebSocket, after its handshake.
    pub(super) fn websocket(limits: FrameLimits) -> Self {
        Self::WebSocket(websocket::WebSocket::new(limits.frame_bytes))
    }

    /// Takes the next message out of `input`. What the protocol itself answers, such as a pong, goes
    /// to `out`.
    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut DescriptorQueue<OwnedFd>,
        out: &mut Outgoing,
    ) -> Result<Decoded, CodecError> {
        match self {
            Self::Lsp(codec) => codec.decode(input, descriptors),
            Self::Ndjson(codec) => codec.decode(input),
            Self::WebSocket(codec) => codec.decode(input, out),
        }
    }

    /// Whether no message has begun but for what is still in the input.
    pub(super) fn is_between(&self) -> bool {
        match self {
            Self::Lsp(codec) => codec.is_between(),
            Self::Ndjson(_) => true,
            Self::WebSocket(codec) => codec.is_between(),
        }
    }

    /// How many bytes of a message it holds beside the input.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Lsp(_) | Self::Ndjson(_) => 0,
            Self::WebSocket(codec) => codec.held(),
        }
    }

    /// What remains at the end of the stream: a last line without its end.
    pub(super) fn decode_end(&mut self, input: &mut BytesMut) -> Option<Message> {
        match self {
            Self::Ndjson(_) => ndjson::Ndjson::decode_end(input),
            Self::Lsp(_) | Self::WebSocket(_) => None,
        }
    }

    /// Appends an answer.
    pub(super) fn encode(&mut self, answer: Answer, out: &mut Outgoing) {
        match self {
            Self::Lsp(_) => lsp::encode(answer, out),
            Self::Ndjson(_) => ndjson::encode(&answer, out),
            Self::WebSocket(codec) => codec.encode(&answer, out),
        }
    }
}
