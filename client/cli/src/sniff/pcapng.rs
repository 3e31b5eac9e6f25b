//! Capture files: pcapng, draft-ietf-opsawg-pcapng, with times in nanoseconds.
//!
//! One section with one interface: a section header, the interface's description, a block a packet,
//! and statistics at the end. Numbers are in the order of this machine, as the format wants it.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Numbers of options; those below 2 are common to all blocks.
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

/// What packets begin with (`LINKTYPE_` of tcpdump.org).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// The 20 bytes of a cooked capture, version 2.
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

/// Which way a packet went, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To this host.
    Unicast,
    /// To all.
    Broadcast,
    /// To a group.
    Multicast,
    /// To another host, caught by promiscuous mode.
    Promiscuous,
    /// From this host.
    Outgoing,
}

impl Direction {
    /// `epb_flags`: the direction in the lowest two bits, how it was received in the next three.
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

/// One packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    /// What was kept of it.
    pub(crate) data: &'a [u8],
    /// How long it was.
    pub(crate) length: u32,
    /// Which way it went.
    pub(crate) direction: Direction,
}

/// What the interface counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Packets that it saw.
    pub(crate) received: u64,
    /// Packets that were lost, because nobody took them in time.
    pub(crate) dropped: u64,
}

/// A capture file that is being written.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    output: W,
    start: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file about one interface, at this time in nanoseconds since 1970.
    pub(crate) fn begin(
        mut output: W,
        interface: &str,
        link: LinkType,
        snaplen: u32,
        start: u64,
    ) -> io::Result<Self> {
        let mut header = Block::new(SECTION_HEADER);
        header.u32(0x1A2B_3C4D).u16(1).u16(0);
        // The section's length is not known yet.
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

    /// Adds a packet.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut block = Block::new(ENHANCED_PACKET);
        block.u32(0).time(packet.time);
        block.u32(size(packet.data.len())).u32(packet.length);
        block.padded(packet.data);
        block.option(EPB_FLAGS, &packet.direction.flags().to_ne_bytes());
        block.finish(&mut self.output)
    }

    /// Ends the file at this time with what was counted, if that is known.
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

/// A block in the making; its length stands at both ends.
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

    /// Bytes, and zeros up to a multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.body.extend(bytes);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, number: u16, value: &[u8]) {
        self.options = true;
        // Ours are names and numbers; a longer one would not fit.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(number).u16(length);
        self.padded(value.get(..usize::from(length)).unwrap_or_default());
    }

    fn finish(mut self, output: &mut impl Write) -> io::Result<()> {
        if self.options {
            self.u16(END_OF_OPTIONS).u16(0);
        }
        let length = size(self.body.len() + 12).to_ne_bytes();
        // At once: a block is seen whole, or the reader is too slow for it.
        let block = [&self.kind.to_ne_bytes()[..], &length, &self.body, &length].concat();
        output.write_all(&block)
    }
}

/// The upper half of a time stands first, whatever the order of the machine.
fn time_bytes(time: u64) -> [u8; 8] {
    // Turned by half, the order of the machine is right within each half.
    time.rotate_left(if cfg!(target_endian = "little") { 32 } else { 0 }).to_ne_bytes()
}

fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind and body of each block; fails where lengths do not agree.
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
    fn a_file_is_a_header_an_interface_its_packets_and_statistics() {
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
    fn statistics_without_counts_have_the_times_alone() {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, "lo", LinkType::Ethernet, 100, 7).unwrap();
        writer.end(None, 9).unwrap();
        let blocks = blocks(&bytes);
        let (kind, body) = blocks.last().unwrap();
        // Interface and time, two options of a number and 8 bytes each, and the end of the options.
        assert_eq!((*kind, body.len()), (5, 12 + 2 * 12 + 4));
    }

    #[test]
    fn packets_of_every_length_keep_the_blocks_aligned() {
        let data = [7; 9];
        for length in 0..=9 {
            let data = &data[..length];
            let packet = Packet { time: 0, data, length: 9, direction: Direction::Unicast };
            assert_eq!(blocks(&file(&[packet])).len(), 4, "{length}");
        }
    }
}
