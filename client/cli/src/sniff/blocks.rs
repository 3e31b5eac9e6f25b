//! The blocks of a capture, and the bytes that they consist of.

use sockbroker_pcapng::{Block, Decoder, FormatError, ReadError};

use crate::failure::Failure;

/// How much is read at once.
pub(super) const PART: usize = 256 << 10;

/// Divides bytes into blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    decoder: Decoder,
    buffer: Vec<u8>,
    /// The part of the buffer that was read, and how much of it was decoded.
    end: usize,
    start: usize,
    /// Where the last block begins that was taken.
    last: usize,
    /// How many bytes precede the buffer.
    offset: u64,
}

impl Blocks {
    /// Reads more bytes and returns how many; 0 at the end of the source. All blocks so far must have been taken.
    pub(crate) fn read(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Failure>,
    ) -> Result<usize, Failure> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.offset = self.offset.saturating_add(self.start as u64);
        self.end -= std::mem::take(&mut self.start);
        if self.buffer.len() < self.end + PART {
            self.buffer.resize(self.end + PART, 0);
        }
        let length = read(self.buffer.get_mut(self.end..).unwrap_or_default())?;
        self.end += length;
        Ok(length)
    }

    /// Takes the next block that is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Block<'_>>, FormatError> {
        let input = self.buffer.get(self.start..self.end).unwrap_or_default();
        if self.decoder.required(input)? > input.len() {
            return Ok(None);
        }
        let (block, length) = self.decoder.decode(input)?;
        self.last = self.start;
        self.start += length;
        Ok(Some(block))
    }

    /// Adds the place of the block that could not be decoded to an error.
    pub(super) fn located(&self, error: FormatError) -> ReadError {
        ReadError::Format { offset: self.offset.saturating_add(self.start as u64), error }
    }

    /// Fails if the source has ended within a block.
    pub(super) fn finish(&self) -> Result<(), ReadError> {
        let input = self.buffer.get(self.start..self.end).unwrap_or_default();
        if input.is_empty() {
            return Ok(());
        }
        let required = self.decoder.required(input).map_err(|error| self.located(error))?;
        let missing = required.saturating_sub(input.len());
        Err(self.located(FormatError::Truncated { missing }))
    }

    /// Takes all complete blocks without decoding their packets. Returns the number of packets.
    pub(crate) fn pass(&mut self) -> Result<u64, FormatError> {
        let mut packets = 0;
        loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let Some((is_packet, length)) = self.decoder.pass(input)? else { return Ok(packets) };
            packets += u64::from(is_packet);
            self.start += length;
        }
    }

    /// The bytes of the last block that `next` has taken.
    pub(crate) fn last(&self) -> &[u8] {
        self.buffer.get(self.last..self.start).unwrap_or_default()
    }

    /// The bytes of all complete blocks that `next` has taken since the last read.
    pub(crate) fn taken(&self) -> &[u8] {
        self.buffer.get(..self.start).unwrap_or_default()
    }
}
