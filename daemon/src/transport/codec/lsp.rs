//! LSP framing with attachments and descriptors (`sockbroker_proto::frame`).

use bytes::{Buf, BytesMut};
use sockbroker_proto::descriptors::DescriptorQueue;
use sockbroker_proto::frame::{FrameLimits, Head, read_head, write_head};

use crate::descriptor::Descriptor;
use crate::rpc::call::RequestParts;
use crate::rpc::core::{Answer, Message};
use crate::transport::codec::decoded::{CodecError, Decoded};
use crate::transport::outgoing::{Outgoing, Passing};

/// Frames of at least this size are read into their own buffer, which their attachments share.
const OWN_BUFFER_MIN: usize = 64 << 10;
/// Space after a frame in its own buffer, for the part of the next frame that the last read returns.
const NEXT_FRAME: usize = 16 << 10;

/// The state of the decoder.
#[derive(Debug)]
pub(crate) struct Lsp {
    limits: FrameLimits,
    head: Option<Head>,
    /// The position in the stream at which the present frame begins.
    start: u64,
    /// Whether the input buffer belongs to the present frame alone.
    owns_buffer: bool,
}

impl Lsp {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self { limits, head: None, start: 0, owns_buffer: false }
    }

    /// Whether no frame has begun, apart from what is still in the input.
    pub(super) fn is_between(&self) -> bool {
        self.head.is_none()
    }

    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut DescriptorQueue<Descriptor>,
    ) -> Result<Decoded, CodecError> {
        let head = match self.head.take() {
            Some(head) => head,
            None => match read_head(input, &self.limits)? {
                None => return Ok(Decoded::Incomplete(1)),
                Some((head, length)) => {
                    self.start = descriptors.position(input.len());
                    input.advance(length);
                    head
                }
            },
        };
        let length = head.body_length();
        if input.len() < length {
            let missing = length - input.len();
            self.head = Some(head);
            if length >= OWN_BUFFER_MIN && !self.owns_buffer {
                self.owns_buffer = true;
                move_to_own_buffer(input, length);
            }
            return Ok(Decoded::Incomplete(missing));
        }
        let shares = std::mem::take(&mut self.owns_buffer);
        // They arrived with the frame's first byte, so all of them are in the queue.
        let own = descriptors.take(self.start, head.descriptors).map_err(|_too_few| {
            CodecError::Descriptors("fewer descriptors came than the frame announces")
        })?;
        let json = input.split_to(head.content_length).freeze();
        let takes_attachments = head.attachments.is_some();
        let parts = head.attachments.unwrap_or_default();
        let attachments = parts.into_iter().map(|part| take_part(input, part, shares)).collect();
        if shares {
            // What follows gets another buffer, or the shared one would live as long as the connection.
            *input = BytesMut::from(&input[..]);
        }
        let parts = RequestParts {
            attachments,
            descriptors: own.descriptors,
            lost_descriptors: own.lost,
            takes_attachments,
        };
        Ok(Decoded::Message(Message { json, parts }))
    }
}

/// Moves a frame whose head was read into a buffer with space for its body.
fn move_to_own_buffer(input: &mut BytesMut, length: usize) {
    let mut own = BytesMut::with_capacity(length + NEXT_FRAME);
    own.extend_from_slice(input);
    *input = own;
}

/// A part that shares its buffer holds all of it for as long as its call waits: unless the buffer
/// is the frame's own, with nothing of other frames in it, the part is copied.
fn take_part(input: &mut BytesMut, length: usize, shares: bool) -> bytes::Bytes {
    let part = input.split_to(length);
    if shares { part.freeze() } else { bytes::Bytes::copy_from_slice(&part) }
}

pub(super) fn encode(answer: Answer, out: &mut Outgoing) {
    let lengths: Vec<usize> =
        answer.response_parts.attachments.iter().map(bytes::Bytes::len).collect();
    let attachments = (!lengths.is_empty()).then_some(&lengths[..]);
    let descriptors = answer.response_parts.descriptors;
    if descriptors.is_empty() {
        out.begin(None, |frame| write_head(frame, answer.json.len(), attachments, 0));
    } else {
        let mut head = Vec::new();
        write_head(&mut head, answer.json.len(), attachments, descriptors.len());
        let length = head.len() + answer.json.len() + lengths.iter().sum::<usize>();
        let passing = answer.refusal.map(|refusal| Passing { descriptors, length, refusal, frame });
        out.begin(passing, |frame| frame.extend_from_slice(&head));
    }
    out.push(answer.json);
    for attachment in answer.response_parts.attachments {
        out.push(attachment);
    }
}

/// A frame with a response alone.
fn frame(json: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_head(&mut frame, json.len(), None, 0);
    frame.extend_from_slice(json);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(json: &[u8], attachment: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_head(&mut bytes, json.len(), Some(&[attachment.len()]), 0);
        bytes.extend_from_slice(json);
        bytes.extend_from_slice(attachment);
        bytes
    }

    /// The messages of `bytes` when they come in pieces of this size.
    fn decode_in_pieces(bytes: &[u8], piece: usize) -> (Vec<Message>, BytesMut) {
        let mut codec = Lsp::new(FrameLimits::default());
        let (mut input, mut messages) = (BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(piece) {
            input.extend_from_slice(chunk);
            while let Decoded::Message(message) =
                codec.decode(&mut input, &mut DescriptorQueue::default()).unwrap()
            {
                messages.push(message);
            }
        }
        assert!(codec.is_between());
        (messages, input)
    }

    #[test]
    fn frames_near_the_own_buffer_size_are_decoded_from_any_fragments() {
        let sizes = [0, 1, OWN_BUFFER_MIN - 1, OWN_BUFFER_MIN, OWN_BUFFER_MIN + 1, 300_000];
        let parts = sizes.map(|size| (0..=250).cycle().take(size).collect::<Vec<u8>>());
        let stream: Vec<u8> = parts.iter().flat_map(|part| frame(b"{}", part)).collect();
        for piece in [1000, NEXT_FRAME, OWN_BUFFER_MIN, stream.len()] {
            let (messages, rest) = decode_in_pieces(&stream, piece);
            assert!(rest.is_empty());
            assert_eq!(messages.len(), parts.len(), "pieces of {piece}");
            for (message, part) in messages.iter().zip(&parts) {
                assert_eq!(message.json, b"{}"[..]);
                assert!(message.parts.attachments == [part.as_slice()], "pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_input_does_not_keep_the_buffer_of_a_large_frame() {
        let mut stream = frame(b"{}", &vec![7; 1 << 20]);
        stream.extend_from_slice(b"Content-Length: 2\r\n");
        let mut codec = Lsp::new(FrameLimits::default());
        let mut input = BytesMut::from(&stream[..1000]);
        assert!(matches!(
            codec.decode(&mut input, &mut DescriptorQueue::default()).unwrap(),
            Decoded::Incomplete(_)
        ));
        input.extend_from_slice(&stream[1000..]);
        let Decoded::Message(message) =
            codec.decode(&mut input, &mut DescriptorQueue::default()).unwrap()
        else {
            panic!("the frame is whole");
        };
        assert_eq!(input, b"Content-Length: 2\r\n"[..]);
        // The body is the only owner of its buffer when the other part is dropped.
        let part = message.parts.attachments.into_iter().next().unwrap();
        drop(message.json);
        assert!(part.is_unique());
    }
}
