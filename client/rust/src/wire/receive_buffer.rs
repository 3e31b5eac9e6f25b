//! Received bytes and descriptors that no caller has taken yet.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_proto::descriptors::{DescriptorQueue, FrameDescriptors, Received, TooFew};

use super::framing::{Framing, Scan};
use super::preamble::{self, Beginning};
use super::response::OwnedResponse;
use super::unix;
use crate::error::{Error, Result};

/// The smallest space that is offered to one read, in bytes.
const READ_BYTES_MIN: usize = 64 << 10;
/// The most bytes by which the buffer grows at once. A broker can announce a length and never send
/// the message.
const GROWTH_BYTES_MAX: usize = 4 << 20;
/// An empty buffer larger than this is released.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Attachments of at least this size in bytes are not copied: their buffer is passed on.
const MOVED_BYTES_MIN: usize = 32 << 10;
/// The most received descriptors that no frame has claimed yet.
const QUEUED_DESCRIPTORS_MAX: usize = 2 * unix::DESCRIPTORS_MAX;

/// A reused buffer of bytes, and the queue of descriptors.
#[derive(Debug, Default)]
pub(crate) struct ReceiveBuffer {
    framing: Framing,
    buffer: Vec<u8>,
    /// The part of `buffer` that holds received bytes.
    filled: Range<usize>,
    descriptors: DescriptorQueue<OwnedFd>,
    /// The length of the message that is being received; 0 while that is unknown.
    incomplete: usize,
    /// Whether other text may precede the next message.
    may_have_preamble: bool,
    /// How long a receive that waits takes at most.
    timeout: Option<Duration>,
}

/// Whether a wait for `set` ends at most a hundredth later than one for `wanted`. Calls with the same limit then set it
/// once. A wait that ends earlier is repeated.
fn is_about(set: Option<Duration>, wanted: Option<Duration>) -> bool {
    match (set, wanted) {
        (None, None) => true,
        (Some(set), Some(wanted)) => set <= wanted + wanted / 100 && set >= wanted / 2,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// A complete message at the front of a [`ReceiveBuffer`].
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// The JSON, as a range of the buffer.
    json: Range<usize>,
    /// The lengths of the attachments, which follow the JSON.
    pub(crate) lengths: Vec<usize>,
    end: usize,
    /// How many descriptors belong to the message.
    descriptors: usize,
    /// The offset of the message in the stream.
    position: u64,
}

impl ReceiveBuffer {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Lets other text precede the first message.
    pub(crate) fn expect_preamble(&mut self) {
        self.may_have_preamble = true;
    }

    /// The error when the peer has closed the connection.
    pub(crate) fn closed(&self) -> Error {
        let closed = || Error::disconnected("the broker closed the connection");
        self.printed().unwrap_or_else(closed)
    }

    /// The error when receiving has failed.
    pub(crate) fn failed(&self, error: &io::Error) -> Error {
        self.printed().unwrap_or_else(|| Error::disconnected(error))
    }

    /// The error when sending has failed. What the peer printed before is still to be received.
    pub(crate) fn send_failed(&mut self, stream: impl AsFd, error: &io::Error) -> Error {
        while matches!(self.receive(&stream), Ok(1..)) && self.filled.len() < KEPT_BYTES_MAX {}
        self.failed(error)
    }

    /// The error of a peer that printed other text and no message.
    fn printed(&self) -> Option<Error> {
        let text = self.buffer.get(self.filled.clone()).unwrap_or_default();
        let is_other = self.may_have_preamble && !text.trim_ascii().is_empty();
        is_other.then(|| preamble::printed(text))
    }

    /// Receives available bytes; how many. Fails with `WouldBlock` if there are none, and with
    /// `InvalidData` if the broker sends descriptors that it does not announce.
    pub(crate) fn receive(&mut self, stream: impl AsFd) -> io::Result<usize> {
        self.receive_by(|space, queue| unix::receive(stream, space, queue))
    }

    /// [`ReceiveBuffer::receive`] that waits until bytes are available, in the same system call. Fails with `WouldBlock`
    /// at the deadline, or a little earlier.
    pub(crate) fn wait_and_receive(
        &mut self,
        stream: impl AsFd,
        deadline: Option<Instant>,
    ) -> io::Result<usize> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !is_about(self.timeout, left) {
            unix::set_receive_timeout(&stream, left)?;
            self.timeout = left;
        }
        self.receive_by(|space, queue| unix::wait_and_receive(stream, space, queue))
    }

    fn receive_by(
        &mut self,
        receive: impl FnOnce(&mut [u8], &mut VecDeque<OwnedFd>) -> io::Result<Received>,
    ) -> io::Result<usize> {
        self.reserve_space();
        let space = self.buffer.get_mut(self.filled.end..).unwrap_or_default();
        let n = self.descriptors.receive(|queue| receive(space, queue))?;
        self.filled.end += n;
        if self.descriptors.len() > QUEUED_DESCRIPTORS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the broker sent more descriptors than it announced",
            ));
        }
        Ok(n)
    }

    fn reserve_space(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
            if self.buffer.len() > KEPT_BYTES_MAX && self.incomplete < KEPT_BYTES_MAX {
                self.buffer = Vec::new();
            }
        }
        let held = self.filled.len();
        let missing = self.incomplete.saturating_sub(held).clamp(READ_BYTES_MIN, GROWTH_BYTES_MAX);
        if self.buffer.len() - self.filled.end < missing && self.filled.start > 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..held;
        }
        if self.buffer.len() - self.filled.end < missing {
            self.buffer.resize(self.filled.end + missing, 0);
        }
    }

    /// The next message, if it is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Message>> {
        let bytes = self.buffer.get(self.filled.clone()).unwrap_or_default();
        self.incomplete = 0;
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.may_have_preamble {
            match preamble::scan(bytes)? {
                Beginning::Incomplete => return Ok(None),
                Beginning::Protocol(length) => {
                    self.may_have_preamble = false;
                    self.filled.start += length;
                    return self.next();
                }
            }
        }
        let (head_length, head) = match self.framing.scan(bytes)? {
            Scan::Incomplete(length) => {
                self.incomplete = length;
                return Ok(None);
            }
            Scan::NoMessage(length) => {
                self.filled.start += length;
                return self.next();
            }
            Scan::Message(head_length, head) => (head_length, head),
        };
        let start = self.filled.start + head_length;
        let end = start + head.body_length();
        Ok(Some(Message {
            json: start..start + head.content_length,
            lengths: head.attachments.unwrap_or_default(),
            end,
            descriptors: head.descriptors,
            position: self.descriptors.position(self.filled.len()),
        }))
    }

    pub(crate) fn json(&self, message: &Message) -> &[u8] {
        self.buffer.get(message.json.clone()).unwrap_or_default()
    }

    /// The attachments of a message, one after the other.
    pub(crate) fn attachments(&self, message: &Message) -> &[u8] {
        self.buffer.get(message.json.end..message.end).unwrap_or_default()
    }

    /// Takes the descriptors of a message. Must be called once for each message, in order.
    pub(crate) fn take_descriptors(
        &mut self,
        message: &Message,
    ) -> Result<FrameDescriptors<OwnedFd>> {
        let announced = message.descriptors;
        self.descriptors.take(message.position, announced).map_err(|TooFew { came }| {
            Error::protocol(format!(
                "a response announced {announced} descriptors and carried {came}"
            ))
        })
    }

    /// Takes a message out of the buffer, to be read elsewhere. A large message takes the buffer along,
    /// and `spare` returns its replacement.
    pub(crate) fn take_message(
        &mut self,
        message: &Message,
        descriptors: FrameDescriptors<OwnedFd>,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> OwnedResponse {
        let start = message.json.start;
        let [json, attachments] = [0..message.json.len(), message.json.len()..message.end - start];
        let lengths = message.lengths.clone();
        if attachments.len() < MOVED_BYTES_MIN {
            let buffer = self.buffer.get(start..message.end).unwrap_or_default().to_vec();
            self.skip(message);
            return OwnedResponse { buffer, json, attachments, lengths, descriptors };
        }
        let mut rest = spare();
        let after = self.buffer.get(message.end..self.filled.end).unwrap_or_default();
        rest.resize(rest.len().max(after.len()), 0);
        rest.get_mut(..after.len()).unwrap_or_default().copy_from_slice(after);
        self.filled = 0..after.len();
        let buffer = std::mem::replace(&mut self.buffer, rest);
        let [json, attachments] =
            [json, attachments].map(|part| part.start + start..part.end + start);
        OwnedResponse { buffer, json, attachments, lengths, descriptors }
    }

    /// Removes a message that has been read.
    pub(crate) fn skip(&mut self, message: &Message) {
        self.filled.start = message.end;
    }
}
