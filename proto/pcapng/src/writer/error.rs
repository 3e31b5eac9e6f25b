//! Why a capture cannot be written.

use crate::number::{MAX_BLOCK_BYTES, MAX_INTERFACES};

/// Why a block cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// An option has more bytes than the format permits.
    #[error("option {code} has {bytes} bytes, the limit of the format is {}", u16::MAX)]
    OptionTooLong {
        /// The code of the option in its block.
        code: u16,
        /// Its length.
        bytes: usize,
    },
    /// A block is longer than readers accept.
    #[error("the block has {bytes} bytes, the limit is {MAX_BLOCK_BYTES}")]
    BlockTooLong {
        /// The length of the block.
        bytes: usize,
    },
    /// The section has no such interface.
    #[error("interface {interface} is not described: the section has {interfaces} interfaces")]
    UnknownInterface {
        /// The number of the interface.
        interface: u32,
        /// The number of described interfaces.
        interfaces: usize,
    },
    /// The section has as many interfaces as readers accept.
    #[error("a section has at most {MAX_INTERFACES} interfaces")]
    TooManyInterfaces,
    /// The packet has more bytes than the description of its interface permits, which libpcap refuses to read.
    #[error("the packet has {captured} captured bytes, the snapshot length is {snaplen}")]
    LongerThanSnaplen {
        /// The captured bytes.
        captured: usize,
        /// The snapshot length of the interface.
        snaplen: u32,
    },
    /// The packet has more captured bytes than bytes on the wire.
    #[error("the packet has {captured} captured bytes, but only {length} bytes on the wire")]
    LongerThanPacket {
        /// The captured bytes.
        captured: usize,
        /// The length of the packet on the wire.
        length: u32,
    },
    /// pcap cannot express the time, which is after 2106.
    #[error("the time of {seconds} seconds since 1970 does not fit into pcap")]
    TimeOutOfRange {
        /// Seconds since 1970.
        seconds: u64,
    },
}
