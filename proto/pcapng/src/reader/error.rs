//! Why a file cannot be read.

use std::io;

use crate::number::{MAX_BLOCK_BYTES, MAX_INTERFACES};

/// A file that cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading from the source failed.
    #[error("cannot read the capture at byte {offset}: {error}")]
    Io {
        /// The number of bytes before the failed read.
        offset: u64,
        /// What the source reported.
        #[source]
        error: io::Error,
    },
    /// The bytes violate the format.
    #[error("the capture is malformed at byte {offset}: {error}")]
    Format {
        /// Where the block begins.
        offset: u64,
        /// What is wrong with it.
        #[source]
        error: FormatError,
    },
}

/// A violation of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file begins neither as pcapng nor as pcap.
    #[error("it begins with {magic:#010x}, which is neither pcapng nor pcap")]
    NotACapture {
        /// The first four bytes, little-endian.
        magic: u32,
    },
    /// The byte-order magic of a section has neither order.
    #[error("the section has the byte-order magic {magic:#010x}")]
    ByteOrder {
        /// The field, little-endian.
        magic: u32,
    },
    /// A version that this reader does not know.
    #[error("version {major}.{minor} is not supported")]
    Version {
        /// The major version.
        major: u16,
        /// The minor version.
        minor: u16,
    },
    /// A block is too short for its type.
    #[error("a block of type {kind:#x} has {length} bytes, its type needs at least {minimum}")]
    BlockTooShort {
        /// The type of the block.
        kind: u32,
        /// The length that it declares.
        length: u32,
        /// The minimum length of its type.
        minimum: usize,
    },
    /// A block is longer than the limit.
    #[error("a block has {length} bytes, the limit is {MAX_BLOCK_BYTES}")]
    BlockTooLong {
        /// The length that it declares.
        length: u32,
    },
    /// The length of a block is not a multiple of four.
    #[error("a block has {length} bytes, which is not a multiple of 4")]
    LengthNotAligned {
        /// The length that it declares.
        length: u32,
    },
    /// A block has two different lengths.
    #[error("a block begins with the length {first} and ends with {last}")]
    LengthMismatch {
        /// The length in front of the body.
        first: u32,
        /// The length behind it.
        last: u32,
    },
    /// The file ends within a block.
    #[error("it ends within a block: at least {missing} bytes are missing")]
    Truncated {
        /// The number of bytes that are missing at least.
        missing: usize,
    },
    /// A packet has more captured bytes than its block.
    #[error(
        "a packet has {captured} captured bytes, but its block has only {available} bytes for them"
    )]
    DataTooLong {
        /// The captured bytes that it declares.
        captured: u32,
        /// The bytes of the block that are left for them.
        available: usize,
    },
    /// An option is longer than the rest of its block.
    #[error("option {code} has {length} bytes, but its block has only {available} bytes left")]
    OptionTooLong {
        /// The code of the option.
        code: u16,
        /// The length that it declares.
        length: u16,
        /// The bytes of the block that are left for it.
        available: usize,
    },
    /// The rest of a block is too short for an option.
    #[error("the options end with {bytes} bytes that are not an option")]
    OptionIncomplete {
        /// The bytes that are left.
        bytes: usize,
    },
    /// An option whose value has a fixed length has another one.
    #[error("option {code} has {length} bytes, its value needs {expected}")]
    OptionLength {
        /// The code of the option.
        code: u16,
        /// The length that it has.
        length: usize,
        /// The length of its value.
        expected: usize,
    },
    /// A block refers to an interface that its section does not describe.
    #[error("interface {interface} is not described: the section has {interfaces} interfaces")]
    UnknownInterface {
        /// The number of the interface.
        interface: u32,
        /// The number of described interfaces.
        interfaces: usize,
    },
    /// A section has more interfaces than the limit.
    #[error("a section has more than {MAX_INTERFACES} interfaces")]
    TooManyInterfaces,
    /// A time is before 1970 or after 2554.
    #[error(
        "the time {ticks} with resolution {resolution:#x} and offset {offset} s is out of range"
    )]
    TimeOutOfRange {
        /// The time as it stands in the file.
        ticks: u64,
        /// `if_tsresol` of the interface.
        resolution: u8,
        /// `if_tsoffset` of the interface.
        offset: i64,
    },
}
