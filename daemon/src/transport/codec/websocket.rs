//! WebSocket messages (RFC 6455) over a stream after its handshake, with one JSON-RPC message in each.
//!
//! `soketto` reads and writes the frame headers; fragments, control frames and the size limit are
//! handled here, so that the connection loop is the same for every framing.

use bytes::{Buf, BytesMut};
use soketto::Parsing;
use soketto::base::{Codec, Header, OpCode};

use crate::rpc::core::{Answer, Message};
use crate::transport::codec::decoded::{CodecError, Decoded};
use crate::transport::outgoing::Outgoing;

/// Control frames carry at most 125 bytes (RFC 6455, section 5.5).
const CONTROL_MAX: usize = 125;

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    codec: Codec,
    longest: usize,
    header: Option<Header>,
    /// The fragments of the present message; `None` between messages.
    message: Option<BytesMut>,
}

impl WebSocket {
    pub(super) fn new(longest: usize) -> Self {
        let mut codec = Codec::new();
        codec.set_max_data_size(longest);
        Self { codec, longest, header: None, message: None }
    }

    /// Whether no message has begun, apart from what is still in the input.
    pub(super) fn is_between(&self) -> bool {
        self.header.is_none() && self.message.is_none()
    }

    /// The bytes of fragments of an incomplete message.
    pub(super) fn held(&self) -> usize {
        self.message.as_ref().map_or(0, BytesMut::len)
    }

    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        out: &mut Outgoing,
    ) -> Result<Decoded, CodecError> {
        loop {
            let Some(header) = self.read_header(input)? else {
                return Ok(Decoded::Incomplete(1));
            };
            let length = header.payload_len();
            if input.len() < length {
                self.header = Some(header);
                return Ok(Decoded::Incomplete(length - input.len()));
            }
            let mut payload = input.split_to(length);
            Codec::apply_mask(&header, &mut payload);
            match header.opcode() {
                OpCode::Ping => self.reply(OpCode::Pong, &payload, out),
                OpCode::Pong => {}
                OpCode::Close => {
                    self.reply(OpCode::Close, &payload, out);
                    return Ok(Decoded::Close);
                }
                _ => {
                    if let Some(message) = self.take_fragment(&header, payload)? {
                        return Ok(Decoded::Message(message));
                    }
                }
            }
        }
    }

    fn read_header(&mut self, input: &mut BytesMut) -> Result<Option<Header>, CodecError> {
        if let Some(header) = self.header.take() {
            return Ok(Some(header));
        }
        let wrong = |error: soketto::base::Error| CodecError::WebSocket(error.to_string());
        let (header, length) = match self.codec.decode_header(input).map_err(wrong)? {
            Parsing::Done { value, offset } => (value, offset),
            Parsing::NeedMore(_) => return Ok(None),
        };
        input.advance(length);
        if !header.is_masked() {
            return Err(CodecError::WebSocket("a client's frame must be masked".to_owned()));
        }
        if header.opcode().is_control() && header.payload_len() > CONTROL_MAX {
            return Err(CodecError::WebSocket("a control frame is too long".to_owned()));
        }
        Ok(Some(header))
    }

    /// Adds a fragment. Returns the message when it is complete.
    fn take_fragment(
        &mut self,
        header: &Header,
        payload: BytesMut,
    ) -> Result<Option<Message>, CodecError> {
        let begins = header.opcode() != OpCode::Continue;
        let whole = match (self.message.take(), begins) {
            (None, true) => payload,
            (Some(mut message), false) => {
                message.extend_from_slice(&payload);
                message
            }
            (None, false) | (Some(_), true) => {
                return Err(CodecError::WebSocket("fragments out of order".to_owned()));
            }
        };
        if whole.len() > self.longest {
            let text = format!("a message is longer than {} bytes", self.longest);
            return Err(CodecError::WebSocket(text));
        }
        if header.is_fin() {
            return Ok(Some(Message { json: whole.freeze(), ..Message::default() }));
        }
        // A payload is a part of the buffer of the input, which can be large.
        self.message = Some(if begins { BytesMut::from(&whole[..]) } else { whole });
        Ok(None)
    }

    pub(super) fn encode(&mut self, answer: &Answer, out: &mut Outgoing) {
        self.reply(OpCode::Text, &answer.json, out);
    }

    fn reply(&mut self, opcode: OpCode, payload: &[u8], out: &mut Outgoing) {
        let mut header = Header::new(opcode);
        header.set_payload_len(payload.len());
        out.begin(None, |frame| {
            frame.extend_from_slice(self.codec.encode_header(&header));
            frame.extend_from_slice(payload);
        });
    }
}
