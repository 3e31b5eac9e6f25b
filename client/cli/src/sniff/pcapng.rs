//! Writes capture files in the pcapng format (draft-ietf-opsawg-pcapng), with times in nanoseconds.
//!
//! A file has one section with one interface: a section header, a description of the interface, one block
//! for each packet, and statistics at the end. Numbers are in the byte order of this machine.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Option codes. Codes below 2 are common to all blocks.
const END_OF_OPTIONS: u16 = 0;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Directions of `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// The header that packets begin with (`LINKTYPE_` of tcpdump.org).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// The header of 20 bytes of a cooked capture, version 2.
    Cooked,
}

impl LinkType {
    fn number(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::Cooked => 276,
        }
    }
}

/// The direction of a packet, and its kind of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Incoming, to this host.
    Unicast,
    Broadcast,
    /// Incoming, to a multicast group.
    Multicast,
    /// To another host, captured in promiscuous mode.
    Promiscuous,
    /// Outgoing, from this host.
    Outgoing,
}

impl Direction {
    /// Returns `epb_flags`: the direction in the lowest two bits, the kind of destination in the next three.
    fn flags(self) -> u32 {
        match self {
            Self::Unicast => 1 << 2 | INBOUND,
            Self::Multicast => 2 << 2 | INBOUND,
            Self::Broadcast => 3 << 2 | INBOUND,
            Self::Promiscuous => 4 << 2 | INBOUND,
            Self::Outgoing => OUTBOUND,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    /// The captured bytes.
    pub(crate) data: &'a [u8],
    /// The full length of the packet in bytes.
    pub(crate) length: u32,
    pub(crate) direction: Direction,
}

/// The counters of a capture.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Packets that the interface received.
    pub(crate) received: u64,
    /// Packets that were dropped because the buffer was full.
    pub(crate) dropped: u64,
}

#[derive(Debug)]
pub(crate) struct Writer<W> {
    output: W,
    start: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the start of a file for one interface. `start` is in nanoseconds since 1970.
    pub(crate) fn begin(
        mut output: W,
        interface: &str,
        link: LinkType,
        snaplen: u32,
        start: u64,
    ) -> io::Result<Self> {
        let mut header = Block::new(SECTION_HEADER);
        header.u32(0x1A2B_3C4D).u16(1).u16(0);
        // The length of the section is unknown.
        header.u64(u64::MAX);
        header.option(SHB_OS, b"Linux");
        header.option(SHB_USERAPPL, concat!("sockbroker ", env!("CARGO_PKG_VERSION")).as_bytes());
        header.finish(&mut output)?;
        let mut description = Block::new(INTERFACE_DESCRIPTION);
        description.u16(link.number()).u16(0).u32(snaplen);
        description.option(IF_NAME, interface.as_bytes());
        // 10^-9 seconds.
        description.option(IF_TSRESOL, &[9]);
        description.finish(&mut output)?;
        output.flush()?;
        Ok(Self { output, start })
    }

    pub(crate) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut block = Block::new(ENHANCED_PACKET);
        block.u32(0).time(packet.time);
        block.u32(size(packet.data.len())).u32(packet.length);
        block.padded(packet.data);
        block.option(EPB_FLAGS, &packet.direction.flags().to_ne_bytes());
        block.finish(&mut self.output)
    }

    /// Writes the statistics at the end of the file, with the counters if they are known.
    pub(crate) fn end(&mut self, counts: Option<Counts>, end: u64) -> io::Result<()> {
        let mut block = Block::new(INTERFACE_STATISTICS);
        block.u32(0).time(end);
        block.option(ISB_STARTTIME, &time_bytes(self.start));
        block.option(ISB_ENDTIME, &time_bytes(end));
        if let Some(counts) = counts {
            block.option(ISB_IFRECV, &counts.received.to_ne_bytes());
            block.option(ISB_IFDROP, &counts.dropped.to_ne_bytes());
        }
        block.finish(&mut self.output)?;
        self.output.flush()
    }
}

/// A block under construction. Its length is written at both ends.
struct Block {
    kind: u32,
    body: Vec<u8>,
    options: bool,
}

impl Block {
    fn new(kind: u32) -> Self {
        Self { kind, body: Vec::new(), options: false }
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.body.extend(number.to_ne_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.body.extend(number.to_ne_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.body.extend(number.to_ne_bytes());
        self
    }

    fn time(&mut self, time: u64) -> &mut Self {
        self.body.extend(time_bytes(time));
        self
    }

    /// Appends bytes, padded with zeros to a multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.body.extend(bytes);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, number: u16, value: &[u8]) {
        self.options = true;
        // The values are names and numbers, which fit.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(number).u16(length);
        self.padded(value.get(..usize::from(length)).unwrap_or_default());
    }

    fn finish(mut self, output: &mut impl Write) -> io::Result<()> {
        if self.options {
            self.u16(END_OF_OPTIONS).u16(0);
        }
        let length = size(self.body.len() + 12).to_ne_bytes();
        // With one write, so that a reader never sees half a block.
        let block = [&self.kind.to_ne_bytes()[..], &length, &self.body, &length].concat();
        output.write_all(&block)
    }
}

/// Encodes a time: the upper half first, in any byte order.
fn time_bytes(time: u64) -> [u8; 8] {
    // After the rotation the byte order of the machine is right within each half.
    time.rotate_left(if cfg!(target_endian = "little") { 32 } else { 0 }).to_ne_bytes()
}

fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the type and body of each block. Fails if the two lengths of a block differ.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = number(&file[4..8]) as usize;
            assert!(length.is_multiple_of(4) && length >= 12, "{length}");
            let (block, rest) = file.split_at(length);
            assert_eq!(number(&block[length - 4..]) as usize, length);
            found.push((number(&block[..4]), block[8..length - 4].to_vec()));
            file = rest;
        }
        found
    }

    fn file(packets: &[Packet<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, "lo", LinkType::Ethernet, 100, 7).unwrap();
        for packet in packets {
            writer.packet(packet).unwrap();
        }
        writer.end(Some(Counts { received: 3, dropped: 1 }), 9).unwrap();
        bytes
    }

    #[test]
    fn file_has_header_interface_packets_and_statistics() {
        let packet = Packet {
            time: 1 << 33 | 5,
            data: b"abcde",
            length: 60,
            direction: Direction::Outgoing,
        };
        let blocks = blocks(&file(&[packet, packet]));
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0x0A0D_0D0A, 1, 6, 6, 5]);
        let body: Vec<_> = blocks[2].1.chunks(4).map(<[u8]>::to_vec).collect();
        let words = [0u32, 2, 5, 5, 60].map(|word| word.to_ne_bytes().to_vec());
        assert_eq!(body[..5], words);
        assert_eq!(blocks[2].1[20..28], *b"abcde\0\0\0");
    }

    #[test]
    fn statistics_without_counters_have_only_times() {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, "lo", LinkType::Ethernet, 100, 7).unwrap();
        writer.end(None, 9).unwrap();
        let blocks = blocks(&bytes);
        let (kind, body) = blocks.last().unwrap();
        // Interface and time, two options of a number and 8 bytes each, and the end of the options.
        assert_eq!((*kind, body.len()), (5, 12 + 2 * 12 + 4));
    }

    #[test]
    fn blocks_are_aligned_for_packets_of_every_length() {
        let data = [7; 9];
        for length in 0..=9 {
            let data = &data[..length];
            let packet = Packet { time: 0, data, length: 9, direction: Direction::Unicast };
            assert_eq!(blocks(&file(&[packet])).len(), 4, "{length}");
        }
    }
}
