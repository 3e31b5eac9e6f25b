//! Newline-delimited JSON: one message a line. Blank lines are skipped.

use bytes::{Buf, BytesMut};

use crate::rpc::core::{Answer, Message};
use crate::transport::codec::decoded::{CodecError, Decoded};
use crate::transport::outgoing::Outgoing;

/// The state of the decoder: how far the line was searched for its end.
#[derive(Debug)]
pub(crate) struct Ndjson {
    longest: usize,
    searched: usize,
}

impl Ndjson {
    pub(super) fn new(longest: usize) -> Self {
        Self { longest, searched: 0 }
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, CodecError> {
        loop {
            let rest = input.get(self.searched..).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
            if end.unwrap_or(input.len()) > self.longest {
                return Err(CodecError::LineTooLong(self.longest));
            }
            let Some(end) = end else {
                self.searched = input.len();
                return Ok(Decoded::Incomplete(1));
            };
            self.searched = 0;
            let line = input.split_to(end).freeze();
            input.advance(1);
            if !line.trim_ascii().is_empty() {
                return Ok(Decoded::Message(Message { json: line, ..Message::default() }));
            }
        }
    }

    pub(super) fn decode_end(input: &mut BytesMut) -> Option<Message> {
        let line = input.split().freeze();
        let blank = line.trim_ascii().is_empty();
        (!blank).then(|| Message { json: line, ..Message::default() })
    }
}

pub(super) fn encode(answer: &Answer, out: &mut Outgoing) {
    out.begin(None, |line| {
        line.extend_from_slice(&answer.json);
        line.push(b'\n');
    });
}
