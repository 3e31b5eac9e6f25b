//! Numbers and options in the byte order of a section.

use crate::number::END_OF_OPTIONS;
use crate::reader::error::FormatError;

/// The byte order of a section or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// The least significant byte first.
    Little,
    /// The most significant byte first.
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    /// A time: the upper half first.
    pub(super) fn time(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes).rotate_left(32),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }
}

/// The unread part of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    order: ByteOrder,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(order: ByteOrder, rest: &'a [u8]) -> Self {
        Self { order, rest }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns the next bytes, or `None` if there are fewer.
    pub(super) fn bytes(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| self.order.u16(bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| self.order.u32(bytes))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| self.order.u64(bytes))
    }

    pub(super) fn time(&mut self) -> Option<u64> {
        self.array().map(|bytes| self.order.time(bytes))
    }

    /// Returns the next option, and `None` at the end of the options. The end can be that of the block: not all programs
    /// write the option that marks it.
    pub(super) fn option(&mut self) -> Result<Option<BlockOption<'a>>, FormatError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let incomplete = FormatError::OptionIncomplete { bytes: self.rest.len() };
        let (Some(code), Some(length)) = (self.u16(), self.u16()) else { return Err(incomplete) };
        if code == END_OF_OPTIONS {
            self.rest = &[];
            return Ok(None);
        }
        let available = self.rest.len();
        let Some(value) = self.bytes(usize::from(length)) else {
            return Err(FormatError::OptionTooLong { code, length, available });
        };
        // The padding of the last option may be missing.
        let padding = value.len().next_multiple_of(4).abs_diff(value.len());
        self.rest = self.rest.get(padding..).unwrap_or_default();
        Ok(Some(BlockOption { order: self.order, code, value }))
    }
}

/// An option of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockOption<'a> {
    order: ByteOrder,
    pub(super) code: u16,
    pub(super) value: &'a [u8],
}

impl BlockOption<'_> {
    pub(super) fn array<const N: usize>(&self) -> Result<[u8; N], FormatError> {
        let length = self.value.len();
        let wrong = FormatError::OptionLength { code: self.code, length, expected: N };
        self.value.try_into().ok().ok_or(wrong)
    }

    pub(super) fn u32(&self) -> Result<u32, FormatError> {
        self.array().map(|bytes| self.order.u32(bytes))
    }

    pub(super) fn u64(&self) -> Result<u64, FormatError> {
        self.array().map(|bytes| self.order.u64(bytes))
    }

    pub(super) fn time(&self) -> Result<u64, FormatError> {
        self.array().map(|bytes| self.order.time(bytes))
    }
}
