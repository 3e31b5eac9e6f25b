//! What was received and not yet taken: one buffer that is used again, and the queue of descriptors.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use sockbroker_proto::descriptors::{DescriptorQueue, FrameDescriptors, TooFew};

use super::framing::{Cut, Framing};
use super::response::OwnedResponse;
use super::unix;
use crate::error::{Error, Result};

/// How much one read asks for at least.
const READ: usize = 64 << 10;
/// How much more room a large message is given at a time: what was announced may never come.
const STEP: usize = 4 << 20;
/// A buffer above this is not kept once it is empty.
const KEEP: usize = 1 << 20;

/// A message with attachments from this size on is handed over with its buffer rather than copied.
const LARGE: usize = 32 << 10;
/// Descriptors that came and that no frame has asked for yet.
const QUEUED_DESCRIPTORS: usize = 2 * unix::DESCRIPTORS_MAX;

/// The bytes and descriptors that have come.
#[derive(Debug, Default)]
pub(crate) struct ReceiveBuffer {
    framing: Framing,
    buffer: Vec<u8>,
    filled: Range<usize>,
    descriptors: DescriptorQueue<OwnedFd>,
    /// The length of the message that is under way, where its head has come.
    wanted: usize,
}

/// A whole message at the front of an received.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Where its JSON stands in the buffer.
    json: Range<usize>,
    /// The lengths of its attachments, which follow the JSON.
    pub(crate) lengths: Vec<usize>,
    /// Where it ends.
    end: usize,
    /// How many descriptors are its own.
    descriptors: usize,
    /// Where in the stream it begins.
    position: u64,
}

impl ReceiveBuffer {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Receives what has arrived. `WouldBlock` if that is nothing.
    pub(crate) fn receive(&mut self, stream: impl AsFd) -> io::Result<usize> {
        self.make_room();
        let room = self.buffer.get_mut(self.filled.end..).unwrap_or_default();
        let n = self.descriptors.receive(|queue| unix::receive(stream, room, queue))?;
        self.filled.end += n;
        if self.descriptors.len() > QUEUED_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more descriptors came than were announced",
            ));
        }
        Ok(n)
    }

    fn make_room(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
            if self.buffer.len() > KEEP && self.wanted < KEEP {
                self.buffer = Vec::new();
            }
        }
        let held = self.filled.len();
        let missing = self.wanted.saturating_sub(held).clamp(READ, STEP);
        if self.buffer.len() - self.filled.end < missing && self.filled.start > 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..held;
        }
        if self.buffer.len() - self.filled.end < missing {
            self.buffer.resize(self.filled.end + missing, 0);
        }
    }

    /// The next message, if it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Message>> {
        let bytes = self.buffer.get(self.filled.clone()).unwrap_or_default();
        self.wanted = 0;
        if bytes.is_empty() {
            return Ok(None);
        }
        let (length, head) = match self.framing.cut(bytes)? {
            Cut::Partial(whole) => {
                self.wanted = whole;
                return Ok(None);
            }
            Cut::Nothing(length) => {
                self.filled.start += length;
                return self.next();
            }
            Cut::Message(length, head) => (length, head),
        };
        let whole = length + head.body_length();
        let start = self.filled.start + length;
        Ok(Some(Message {
            json: start..start + head.content_length,
            lengths: head.attachments.unwrap_or_default(),
            end: self.filled.start + whole,
            descriptors: head.descriptors,
            position: self.descriptors.position(self.filled.len()),
        }))
    }

    /// The JSON of a message.
    pub(crate) fn json(&self, message: &Message) -> &[u8] {
        self.buffer.get(message.json.clone()).unwrap_or_default()
    }

    /// Its attachments, one after the other.
    pub(crate) fn tail(&self, message: &Message) -> &[u8] {
        self.buffer.get(message.json.end..message.end).unwrap_or_default()
    }

    /// Takes its descriptors; once for each message.
    pub(crate) fn descriptors(&mut self, message: &Message) -> Result<FrameDescriptors<OwnedFd>> {
        let announced = message.descriptors;
        self.descriptors.take(message.position, announced).map_err(|TooFew { came }| {
            Error::protocol(format!("{came} of {announced} descriptors came"))
        })
    }

    /// Takes a message away, for somebody else to read. A large one leaves with the buffer it is in,
    /// which `spare` replaces.
    pub(crate) fn take(
        &mut self,
        message: &Message,
        descriptors: FrameDescriptors<OwnedFd>,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> OwnedResponse {
        let start = message.json.start;
        let [json, tail] = [0..message.json.len(), message.json.len()..message.end - start];
        let lengths = message.lengths.clone();
        if tail.len() < LARGE {
            let buffer = self.buffer.get(start..message.end).unwrap_or_default().to_vec();
            self.pass(message);
            return OwnedResponse { buffer, json, tail, lengths, descriptors };
        }
        let mut rest = spare();
        let after = self.buffer.get(message.end..self.filled.end).unwrap_or_default();
        rest.resize(rest.len().max(after.len()), 0);
        rest.get_mut(..after.len()).unwrap_or_default().copy_from_slice(after);
        self.filled = 0..after.len();
        let buffer = std::mem::replace(&mut self.buffer, rest);
        let [json, tail] = [json, tail].map(|part| part.start + start..part.end + start);
        OwnedResponse { buffer, json, tail, lengths, descriptors }
    }

    /// Leaves a message behind.
    pub(crate) fn pass(&mut self, message: &Message) {
        self.filled.start = message.end;
    }
}
