//! The framings of a stream: bytes to messages and answers to bytes, without I/O.

pub(super) mod decoded;
mod lsp;
mod ndjson;
mod websocket;

use bytes::BytesMut;
use sockbroker_proto::descriptors::DescriptorQueue;
use sockbroker_proto::frame::FrameLimits;

use super::outgoing::Outgoing;
use crate::descriptor::Descriptor;
use crate::rpc::core::{Answer, Message};
use crate::transport::codec::decoded::{CodecError, Decoded};

/// The framing of a stream, with the state of its decoder.
#[derive(Debug)]
pub(super) enum Codec {
    Lsp(lsp::Lsp),
    Ndjson(ndjson::Ndjson),
    /// WebSocket, after its handshake.
    WebSocket(websocket::WebSocket),
}

impl Codec {
    pub(super) fn lsp(limits: FrameLimits) -> Self {
        Self::Lsp(lsp::Lsp::new(limits))
    }

    pub(super) fn ndjson(limits: FrameLimits) -> Self {
        Self::Ndjson(ndjson::Ndjson::new(limits))
    }

    /// WebSocket, after its handshake.
    pub(super) fn websocket(limits: FrameLimits) -> Self {
        Self::WebSocket(websocket::WebSocket::new(limits.frame_bytes))
    }

    /// Removes the next message from `input`. Answers of the protocol itself, such as a pong, go to `out`.
    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut DescriptorQueue<Descriptor>,
        out: &mut Outgoing,
    ) -> Result<Decoded, CodecError> {
        match self {
            Self::Lsp(codec) => codec.decode(input, descriptors),
            Self::Ndjson(codec) => codec.decode(input, descriptors),
            Self::WebSocket(codec) => codec.decode(input, out),
        }
    }

    /// Whether no message has begun, apart from what is still in the input.
    pub(super) fn is_between(&self) -> bool {
        match self {
            Self::Lsp(codec) => codec.is_between(),
            Self::Ndjson(_) => true,
            Self::WebSocket(codec) => codec.is_between(),
        }
    }

    /// The number of bytes of an incomplete message outside of the input.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Lsp(_) | Self::Ndjson(_) => 0,
            Self::WebSocket(codec) => codec.held(),
        }
    }

    /// The last message at the end of the stream: a line without its line end.
    pub(super) fn decode_end(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut DescriptorQueue<Descriptor>,
    ) -> Result<Option<Message>, CodecError> {
        match self {
            Self::Ndjson(codec) => codec.decode_end(input, descriptors),
            Self::Lsp(_) | Self::WebSocket(_) => Ok(None),
        }
    }

    pub(super) fn encode(&mut self, answer: Answer, out: &mut Outgoing) {
        match self {
            Self::Lsp(_) => lsp::encode(answer, out),
            Self::Ndjson(_) => ndjson::encode(answer, out),
            Self::WebSocket(codec) => codec.encode(&answer, out),
        }
    }
}
