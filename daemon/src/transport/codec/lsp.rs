//! LSP framing with attachments and descriptors (`sockbroker_proto::frame`).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::{Buf, BytesMut};
use sockbroker_proto::frame::{FrameLimits, Head, read_head, write_head};

use super::{CodecError, Decoded};
use crate::dispatch::Enclosed;
use crate::dispatch::core::{Answer, Message};
use crate::transport::outgoing::Outgoing;

/// Attachments from this size on are not copied.
const SHARED_MIN: usize = 1 << 20;

/// The state of the reader: the head of the frame whose body is on its way.
#[derive(Debug)]
pub(crate) struct Lsp {
    limits: FrameLimits,
    head: Option<Head>,
}

impl Lsp {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self { limits, head: None }
    }

    /// Whether no frame has begun but for what is still in the input.
    pub(super) fn is_between(&self) -> bool {
        self.head.is_none()
    }

    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Result<Decoded, CodecError> {
        let head = match self.head.take() {
            Some(head) => head,
            None => match read_head(input, &self.limits)? {
                None => return Ok(Decoded::Incomplete(1)),
                Some((head, length)) => {
                    input.advance(length);
                    head
                }
            },
        };
        let length = head.body_length();
        if input.len() < length {
            let missing = length - input.len();
            self.head = Some(head);
            return Ok(Decoded::Incomplete(missing));
        }
        // They came with the frame's first byte, so all of them are here.
        if descriptors.len() < head.descriptors {
            return Err(CodecError::Descriptors("fewer descriptors came than the frame announces"));
        }
        let json = input.split_to(head.content_length).freeze();
        let takes_attachments = head.attachments.is_some();
        let parts = head.attachments.unwrap_or_default();
        let attachments = parts.into_iter().map(|part| take_part(input, part)).collect();
        let descriptors = descriptors.drain(..head.descriptors).collect();
        let enclosed = Enclosed { attachments, descriptors, takes_attachments };
        Ok(Decoded::Message(Message { json, enclosed }))
    }
}

/// A part shares the buffer it came in, and would hold all of it as long as its call waits: unless it
/// is most of the buffer it is copied.
fn take_part(input: &mut BytesMut, length: usize) -> bytes::Bytes {
    let part = input.split_to(length);
    if length >= SHARED_MIN { part.freeze() } else { bytes::Bytes::copy_from_slice(&part) }
}

pub(super) fn encode(answer: Answer, out: &mut Outgoing) {
    let lengths: Vec<usize> = answer.beside.attachments.iter().map(bytes::Bytes::len).collect();
    let descriptors = answer.beside.descriptors;
    let mut head = Vec::with_capacity(64 + answer.json.len().min(4096));
    let attachments = (!lengths.is_empty()).then_some(&lengths[..]);
    write_head(&mut head, answer.json.len(), attachments, descriptors.len());
    out.begin(head, descriptors);
    out.push(answer.json);
    for attachment in answer.beside.attachments {
        out.push(attachment);
    }
}
