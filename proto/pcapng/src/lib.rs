//! The capture formats: a writer and a reader of pcapng, and a writer of pcap.
//!
//! pcapng is the format of Wireshark (draft-ietf-opsawg-pcapng). A file consists of sections; a section describes
//! interfaces, and has a block for each packet. [`Writer`] appends blocks to a buffer of the caller, with times in
//! nanoseconds. [`Reader`] reads what any program has written.
//!
//! pcap is the older format (draft-ietf-opsawg-pcap): one link type, and neither interfaces nor directions nor
//! counters. [`PcapWriter`] writes its variant with nanoseconds.
//!
//! Nothing here does I/O by itself or allocates for a packet that is written.

#![forbid(unsafe_code)]

mod reader;
mod pcap;
mod writer;
mod packet;
mod link_type;
mod number;

pub use link_type::LinkType;
pub use number::{MAX_BLOCK_BYTES, MAX_INTERFACES};
pub use packet::{Direction, PacketFlags, Process, Reception};
pub use pcap::PcapWriter;
pub use reader::{
    Block, ByteOrder, Decoder, FormatError, InterfaceBlock, PacketBlock, ReadError, Reader,
    SectionBlock, StatisticsBlock,
};
pub use writer::{Interface, Packet, Section, Statistics, WriteError, Writer};
