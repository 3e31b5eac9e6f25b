//! Reads pcapng and pcap, of any program and either byte order.
//!
//! Files are not trusted. A length in a file does not make the reader allocate: its buffer grows with what was read, up to
//! [`MAX_BLOCK_BYTES`](crate::MAX_BLOCK_BYTES).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod source;
mod decoder;
mod section;
mod clock;
mod cursor;
mod block;
mod error;

pub use block::{Block, InterfaceBlock, PacketBlock, SectionBlock, StatisticsBlock};
pub use cursor::ByteOrder;
pub use decoder::Decoder;
pub use error::{FormatError, ReadError};
pub use source::Reader;
