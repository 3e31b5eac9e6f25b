//! What a file contains. Values refer to the bytes that were read.

use crate::link_type::LinkType;
use crate::packet::{PacketFlags, Process};
use crate::reader::cursor::ByteOrder;

/// A part of a capture file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block<'a> {
    /// A section begins. Interfaces of earlier sections do not exist in it. A pcap file has none.
    Section(SectionBlock<'a>),
    /// An interface. A pcap file begins with its only one.
    Interface(InterfaceBlock<'a>),
    /// A packet.
    Packet(PacketBlock<'a>),
    /// Counters of an interface.
    Statistics(StatisticsBlock<'a>),
    /// A block that this reader does not interpret.
    Other {
        /// The type of the block.
        kind: u32,
        /// Its bytes.
        body: &'a [u8],
    },
}

/// A header of a section. Texts are bytes, because a program can have written any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionBlock<'a> {
    /// The byte order of the section.
    pub order: ByteOrder,
    /// The hardware of the machine.
    pub hardware: Option<&'a [u8]>,
    /// The operating system.
    pub os: Option<&'a [u8]>,
    /// The program that has written the section.
    pub application: Option<&'a [u8]>,
    /// The first comment.
    pub comment: Option<&'a [u8]>,
}

/// The description of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceBlock<'a> {
    /// Its number in the section, from 0.
    pub number: u32,
    /// What its packets begin with.
    pub link_type: LinkType,
    /// The most bytes of a packet that were captured, 0 for no limit.
    pub snaplen: u32,
    /// The name of the interface.
    pub name: Option<&'a [u8]>,
    /// Its description.
    pub description: Option<&'a [u8]>,
    /// The filter, if it is a text.
    pub filter: Option<&'a [u8]>,
    /// The speed in bits per second.
    pub speed: Option<u64>,
    /// The hardware address.
    pub mac: Option<[u8; 6]>,
    /// The operating system.
    pub os: Option<&'a [u8]>,
    /// The hardware.
    pub hardware: Option<&'a [u8]>,
    /// The first comment.
    pub comment: Option<&'a [u8]>,
}

impl InterfaceBlock<'_> {
    /// An interface without options.
    pub(super) const fn new(number: u32, link_type: LinkType, snaplen: u32) -> Self {
        Self {
            number,
            link_type,
            snaplen,
            name: None,
            description: None,
            filter: None,
            speed: None,
            mac: None,
            os: None,
            hardware: None,
            comment: None,
        }
    }
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketBlock<'a> {
    /// The number of its interface in the section.
    pub interface: u32,
    /// What the bytes begin with.
    pub link_type: LinkType,
    /// Nanoseconds since 1970. Simple packet blocks do not have a time.
    pub time: Option<u64>,
    /// The captured bytes.
    pub data: &'a [u8],
    /// The length on the wire.
    pub length: u32,
    /// Direction and kind of destination.
    pub flags: Option<PacketFlags>,
    /// Packets of the interface that were dropped since its last packet.
    pub dropped: Option<u64>,
    /// The process of the local socket.
    pub process: Option<Process>,
    /// The first comment.
    pub comment: Option<&'a [u8]>,
}

impl<'a> PacketBlock<'a> {
    /// A packet without options.
    pub(super) const fn new(
        interface: u32,
        link_type: LinkType,
        time: Option<u64>,
        data: &'a [u8],
        length: u32,
    ) -> Self {
        Self {
            interface,
            link_type,
            time,
            data,
            length,
            flags: None,
            dropped: None,
            process: None,
            comment: None,
        }
    }
}

/// Counters of an interface. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsBlock<'a> {
    /// The number of the interface in the section.
    pub interface: u32,
    /// When the counters were read.
    pub time: u64,
    /// When the capture started.
    pub start: Option<u64>,
    /// When the capture ended.
    pub end: Option<u64>,
    /// Packets that the interface received.
    pub received: Option<u64>,
    /// Packets that were dropped for lack of resources.
    pub dropped: Option<u64>,
    /// Packets that the filter accepted.
    pub accepted: Option<u64>,
    /// Packets that the operating system dropped.
    pub os_dropped: Option<u64>,
    /// Packets that were delivered.
    pub delivered: Option<u64>,
    /// The first comment.
    pub comment: Option<&'a [u8]>,
}
