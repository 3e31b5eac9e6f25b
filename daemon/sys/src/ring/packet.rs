//! A packet of a ring.

use std::io;

/// A packet of a ring.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// When the kernel received it, in nanoseconds since 1970 (`CLOCK_REALTIME`).
    pub time: u64,
    /// The captured bytes. They begin with the header of the link layer.
    pub data: &'a [u8],
    /// The length of the packet. `data` can be a part of it.
    pub length: u32,
    /// The VLAN tag that the kernel took out of the header.
    pub tag: Option<Tag>,
    /// The index of its interface, and the hardware type of that (`ARPHRD_`).
    pub interface: u32,
    pub hardware: u16,
    /// `PACKET_HOST`, `PACKET_OUTGOING` and others (`sll_pkttype`).
    pub kind: u8,
    /// Whether the kernel dropped packets since the statistics were read last.
    pub losing: bool,
}

/// A VLAN tag: `0x8100` or another protocol, and the priority and number of the VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    pub protocol: u16,
    pub control: u16,
}

/// Where a reader is in a ring. Another process can continue from there (`Ring::resume`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The slot or the block that is read next.
    pub next: u32,
    /// The packets of that block that are left, if some of it were read.
    pub left: u32,
    /// The position of the first of them in the block.
    pub offset: u32,
}

/// The bit of a status that shows that the packets were read and noted: the process that noted them gives the memory
/// back to the kernel next. The kernel does not use it, and writes the status as a whole.
pub(super) const NOTED: u32 = 1 << 24;

/// Why a ring cannot be read: the kernel never writes such a ring.
pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the ring is malformed")
}
