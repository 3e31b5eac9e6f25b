//! Reads blocks from a source of bytes.

use std::io::{self, Read};

use crate::reader::block::Block;
use crate::reader::decoder::Decoder;
use crate::reader::error::{FormatError, ReadError};

/// The first size of the buffer.
const FIRST_BYTES: usize = 64 << 10;

/// Reads a capture from a file or stream.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// The part of the buffer that was read and not decoded.
    start: usize,
    end: usize,
    /// The place of `start` in the capture.
    offset: u64,
    /// Whether the capture has ended, or cannot be read further.
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// A reader at the start of a capture. It reads more than it returns.
    pub fn new(source: R) -> Self {
        Self {
            source,
            decoder: Decoder::new(),
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            ended: false,
        }
    }

    /// Returns the next block, and `None` at the end of the capture and after an error. An empty source is an empty
    /// capture.
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>, ReadError> {
        let complete = match self.fill() {
            Ok(complete) => complete,
            Err(error) => {
                self.ended = true;
                return Err(error);
            }
        };
        if !complete {
            self.ended = true;
            return Ok(None);
        }
        let offset = self.offset;
        let input = self.buffer.get(self.start..self.end).unwrap_or_default();
        match self.decoder.decode(input) {
            Ok((block, length)) => {
                self.start = self.start.saturating_add(length);
                self.offset = self.offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                Ok(Some(block))
            }
            Err(error) => {
                self.ended = true;
                Err(ReadError::Format { offset, error })
            }
        }
    }

    /// Reads until the next block is complete. Returns `false` at the end of the capture.
    fn fill(&mut self) -> Result<bool, ReadError> {
        while !self.ended {
            let offset = self.offset;
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let malformed = |error| ReadError::Format { offset, error };
            let required = self.decoder.required(input).map_err(malformed)?;
            let present = input.len();
            if required <= present {
                return Ok(true);
            }
            let read = self.read().map_err(|error| {
                let present = u64::try_from(present).unwrap_or(u64::MAX);
                ReadError::Io { offset: offset.saturating_add(present), error }
            })?;
            if read == 0 && present == 0 {
                return Ok(false);
            }
            if read == 0 {
                let missing = required.saturating_sub(present);
                return Err(malformed(FormatError::Truncated { missing }));
            }
        }
        Ok(false)
    }

    /// Reads once. Doubles the buffer if it is full, so that it is at most twice as large as what was read.
    fn read(&mut self) -> io::Result<usize> {
        if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let doubled = self.buffer.len().saturating_mul(2).max(FIRST_BYTES);
            self.buffer.resize(doubled, 0);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(free) {
                Ok(read) => {
                    self.end = self.end.saturating_add(read);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::MAX_BLOCK_BYTES;
    use crate::{Interface, LinkType, Packet, Section, Writer};

    #[test]
    fn declared_length_does_not_allocate() {
        let mut bytes = Vec::new();
        Writer::begin(&Section::default(), &mut bytes).unwrap();
        bytes.extend([6, 0, 0, 0]);
        bytes.extend(u32::try_from(MAX_BLOCK_BYTES).unwrap().to_le_bytes());
        bytes.extend([1; 1000]);
        let mut reader = Reader::new(&bytes[..]);
        assert!(matches!(reader.next_block(), Ok(Some(Block::Section(_)))));
        let missing = MAX_BLOCK_BYTES - 1008;
        assert!(matches!(
            reader.next_block(),
            Err(ReadError::Format { offset: 28, error: FormatError::Truncated { missing: found } })
                if found == missing
        ));
        assert_eq!(reader.buffer.capacity(), FIRST_BYTES);
        // The reader stays at the end.
        assert!(matches!(reader.next_block(), Ok(None)));
    }

    #[test]
    fn buffer_grows_with_the_longest_block_and_not_with_the_file() {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
        writer.interface(&Interface::new("lo", LinkType::RAW, 0), &mut bytes).unwrap();
        let data = vec![7; 200_000];
        for _ in 0..20 {
            writer.packet(&Packet::new(0, 1, &[&data], 200_000), &mut bytes).unwrap();
        }
        let mut reader = Reader::new(&bytes[..]);
        let mut packets = 0;
        while let Some(block) = reader.next_block().unwrap() {
            if let Block::Packet(packet) = block {
                assert_eq!(packet.data, data);
                packets += 1;
            }
        }
        assert_eq!(packets, 20);
        assert!(reader.buffer.capacity() <= 512 << 10, "{}", reader.buffer.capacity());
    }

    /// Returns one byte for each read, interrupted before each, and an error at the end.
    struct Slow<'a> {
        bytes: &'a [u8],
        interrupted: bool,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some((first, rest)) = self.bytes.split_first() else {
                return Err(io::ErrorKind::ConnectionReset.into());
            };
            self.bytes = rest;
            *buffer.first_mut().unwrap() = *first;
            Ok(1)
        }
    }

    #[test]
    fn source_may_return_single_bytes_and_its_error_is_reported_with_the_place() {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
        writer.interface(&Interface::new("lo", LinkType::RAW, 0), &mut bytes).unwrap();
        let length = bytes.len() as u64;
        bytes.extend([6, 0]);
        let mut reader = Reader::new(Slow { bytes: &bytes, interrupted: false });
        assert!(matches!(reader.next_block(), Ok(Some(Block::Section(_)))));
        assert!(matches!(reader.next_block(), Ok(Some(Block::Interface(_)))));
        match reader.next_block() {
            Err(ReadError::Io { offset, error }) => {
                assert_eq!(offset, length + 2);
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(reader.next_block(), Ok(None)));
    }
}
