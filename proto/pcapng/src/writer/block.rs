//! The bytes of blocks and of their options.

use super::error::WriteError;
use crate::number::{BLOCK_OVERHEAD, END_OF_OPTIONS, MAX_BLOCK_BYTES};

/// An option that is written: text, or a number in its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockOption<'a> {
    code: u16,
    /// A byte in front of a text.
    prefix: Option<u8>,
    text: &'a str,
    number: [u8; 8],
    number_bytes: usize,
}

impl<'a> BlockOption<'a> {
    pub(super) fn text(code: u16, text: &'a str) -> Self {
        Self { code, prefix: None, text, number: [0; 8], number_bytes: 0 }
    }

    /// A text with a byte in front of it.
    pub(super) fn prefixed_text(code: u16, prefix: u8, text: &'a str) -> Self {
        Self { prefix: Some(prefix), ..Self::text(code, text) }
    }

    pub(super) fn bytes(code: u16, bytes: &[u8]) -> Self {
        let mut number = [0; 8];
        put(&mut number, 0, bytes);
        Self { number, number_bytes: bytes.len(), ..Self::text(code, "") }
    }

    pub(super) fn u32(code: u16, number: u32) -> Self {
        Self::bytes(code, &number.to_le_bytes())
    }

    pub(super) fn u64(code: u16, number: u64) -> Self {
        Self::bytes(code, &number.to_le_bytes())
    }

    /// The length of the value. Only one of the parts is not empty, except for the prefix.
    fn value_bytes(&self) -> usize {
        self.text.len().saturating_add(self.number_bytes + usize::from(self.prefix.is_some()))
    }
}

/// The length of options with their end, 0 without any.
pub(super) fn options_bytes(options: &[Option<BlockOption<'_>>]) -> usize {
    let each =
        options.iter().flatten().map(|option| padded(option.value_bytes()).saturating_add(4));
    match each.fold(0, usize::saturating_add) {
        0 => 0,
        bytes => bytes.saturating_add(4),
    }
}

/// Appends a block. `captured` is the length of all parts of `data`.
pub(super) fn block(
    kind: u32,
    fixed: &[u8],
    data: &[&[u8]],
    captured: usize,
    options: &[Option<BlockOption<'_>>],
    output: &mut Vec<u8>,
) -> Result<(), WriteError> {
    for option in options.iter().flatten() {
        let bytes = option.value_bytes();
        if bytes > usize::from(u16::MAX) {
            return Err(WriteError::OptionTooLong { code: option.code, bytes });
        }
    }
    let options_bytes = options_bytes(options);
    let bytes = (BLOCK_OVERHEAD + fixed.len())
        .saturating_add(padded(captured))
        .saturating_add(options_bytes);
    let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_BLOCK_BYTES) else {
        return Err(WriteError::BlockTooLong { bytes });
    };
    output.reserve(bytes);
    output.extend_from_slice(&kind.to_le_bytes());
    output.extend_from_slice(&length.to_le_bytes());
    output.extend_from_slice(fixed);
    for part in data {
        output.extend_from_slice(part);
    }
    pad(captured, output);
    for option in options.iter().flatten() {
        let bytes = option.value_bytes();
        output.extend_from_slice(&option.code.to_le_bytes());
        output.extend_from_slice(&u16::try_from(bytes).unwrap_or(u16::MAX).to_le_bytes());
        output.extend(option.prefix);
        output.extend_from_slice(option.text.as_bytes());
        output.extend_from_slice(option.number.get(..option.number_bytes).unwrap_or_default());
        pad(bytes, output);
    }
    if options_bytes > 0 {
        output.extend_from_slice(&END_OF_OPTIONS.to_le_bytes());
        output.extend_from_slice(&[0; 2]);
    }
    output.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Encodes a time: the upper half first, each half in the byte order of the section.
pub(super) fn time_bytes(time: u64) -> [u8; 8] {
    time.rotate_left(32).to_le_bytes()
}

/// The length with zeros up to a multiple of four.
pub(super) const fn padded(bytes: usize) -> usize {
    match bytes.checked_next_multiple_of(4) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

fn pad(bytes: usize, output: &mut Vec<u8>) {
    let zeros = padded(bytes).saturating_sub(bytes);
    output.extend_from_slice([0; 3].get(..zeros).unwrap_or_default());
}

/// Copies a field into the fixed part of a block. The offsets and lengths are constants that fit.
pub(super) fn put(fixed: &mut [u8], offset: usize, field: &[u8]) {
    if let Some(target) = fixed.get_mut(offset..offset + field.len()) {
        target.copy_from_slice(field);
    }
}
