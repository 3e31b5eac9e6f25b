//! Joins captures, one after the other, to one section of pcapng.
//!
//! Wireshark reads one file, whatever interface is selected in the toolbar. The interfaces of a further capture get the
//! numbers after those of the earlier ones.

use sockbroker_pcapng::{Block, ByteOrder, MAX_INTERFACES};

use crate::failure::{Exit, Failure};
use crate::sniff::blocks::Blocks;

/// Where packets and counters have the number of their interface.
const INTERFACE_NUMBER: std::ops::Range<usize> = 8..12;

/// What was written so far.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The byte order of the section; `None` before it begins.
    order: Option<ByteOrder>,
    /// The number of interfaces.
    interfaces: u32,
    /// The number of the first interface of this capture.
    first: u32,
}

/// What a block is, as far as joining treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Section(ByteOrder),
    Interface,
    OfInterface(u32),
    Other,
}

impl Kind {
    fn of(block: &Block<'_>) -> Self {
        match block {
            Block::Section(section) => Self::Section(section.order),
            Block::Interface(_) => Self::Interface,
            Block::Packet(packet) => Self::OfInterface(packet.interface),
            Block::Statistics(statistics) => Self::OfInterface(statistics.interface),
            Block::Other { .. } => Self::Other,
        }
    }
}

impl Joined {
    /// Begins a further capture.
    pub(super) fn next_capture(&mut self) {
        self.first = self.interfaces;
    }

    /// Appends all complete blocks to `output`.
    pub(super) fn take(
        &mut self,
        blocks: &mut Blocks,
        output: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let unreadable =
            |error: String| Failure::protocol(format!("cannot read the broker's capture: {error}"));
        while let Some(block) = blocks.next().map_err(|error| unreadable(error.to_string()))? {
            let kind = Kind::of(&block);
            match kind {
                Kind::Section(order) => match self.order {
                    None => self.order = Some(order),
                    Some(first) if first == order => continue,
                    Some(_) => return Err(unreadable("its byte order has changed".to_owned())),
                },
                Kind::Interface if self.interfaces as usize >= MAX_INTERFACES => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!(
                            "cannot continue the capture: its file has {MAX_INTERFACES} interfaces, the most that \
                             readers accept; start a new capture"
                        ),
                    ));
                }
                Kind::Interface => self.interfaces += 1,
                Kind::OfInterface(_) | Kind::Other => {}
            }
            let start = output.len();
            output.extend_from_slice(blocks.last());
            if let Kind::OfInterface(number) = kind
                && self.first > 0
            {
                let number = number.saturating_add(self.first);
                let bytes = match self.order {
                    Some(ByteOrder::Big) => number.to_be_bytes(),
                    Some(ByteOrder::Little) | None => number.to_le_bytes(),
                };
                let block = output.get_mut(start..).unwrap_or_default();
                if let Some(place) = block.get_mut(INTERFACE_NUMBER) {
                    place.copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sockbroker_pcapng::{Interface, LinkType, Packet, Reader, Section, Statistics, Writer};

    use super::*;

    /// A capture with these interfaces, and for each a packet of its name and counters.
    fn capture(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
        for name in names {
            let interface = Interface::new(name, LinkType::ETHERNET, 0);
            let interface = writer.interface(&interface, &mut bytes).unwrap();
            let data = [name.as_bytes()];
            let length = u32::try_from(name.len()).unwrap();
            writer.packet(&Packet::new(interface, 1, &data, length), &mut bytes).unwrap();
            let statistics = Statistics { interface, ..Statistics::default() };
            writer.statistics(&statistics, &mut bytes).unwrap();
        }
        bytes
    }

    /// Takes all blocks of a capture, whose bytes arrive in parts of this size.
    fn take(
        joined: &mut Joined,
        bytes: &[u8],
        part: usize,
        output: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (mut blocks, mut parts) = (Blocks::default(), bytes.chunks(part));
        while blocks.read(|buffer| {
            let part = parts.next().unwrap_or_default();
            buffer[..part.len()].copy_from_slice(part);
            Ok(part.len())
        })? > 0
        {
            joined.take(&mut blocks, output)?;
        }
        Ok(())
    }

    #[test]
    fn captures_become_one_section_with_numbers_that_go_on() {
        let captures = [&["lo"][..], &[], &["eth0", "eth1"], &["lo"]].map(capture);
        for part in [1, 7, 100_000] {
            let (mut joined, mut output) = (Joined::default(), Vec::new());
            for bytes in &captures {
                take(&mut joined, bytes, part, &mut output).unwrap();
                joined.next_capture();
            }
            assert!(output.starts_with(&captures[0]), "the first capture is not changed");
            let mut reader = Reader::new(&output[..]);
            let (mut names, mut packets, mut counted) = (Vec::new(), Vec::new(), Vec::new());
            let mut sections = 0;
            while let Some(block) = reader.next_block().unwrap() {
                match block {
                    Block::Section(_) => sections += 1,
                    Block::Interface(found) => names.push(found.name.unwrap().to_vec()),
                    Block::Packet(packet) => {
                        assert_eq!(names[packet.interface as usize], packet.data);
                        packets.push(packet.interface);
                    }
                    Block::Statistics(statistics) => counted.push(statistics.interface),
                    Block::Other { .. } => panic!("an unknown block"),
                }
            }
            assert_eq!(
                (sections, &packets[..], &counted[..]),
                (1, &[0, 1, 2, 3][..], &[0, 1, 2, 3][..])
            );
        }
    }

    #[test]
    fn captures_beyond_the_limit_of_interfaces_are_refused() {
        let (mut joined, mut output) = (Joined::default(), Vec::new());
        let names = vec!["x"; MAX_INTERFACES];
        take(&mut joined, &capture(&names), 100_000, &mut output).unwrap();
        joined.next_capture();
        let refused = take(&mut joined, &capture(&["y"]), 100, &mut output).unwrap_err();
        assert!(refused.to_string().contains("the most that readers accept"), "{refused}");
    }

    #[test]
    fn another_byte_order_is_refused() {
        let (mut joined, mut output) = (Joined::default(), Vec::new());
        take(&mut joined, &capture(&["lo"]), 100, &mut output).unwrap();
        joined.next_capture();
        // The header of a section in the other order.
        let numbers = [0x0A0D_0D0A_u32, 28, 0x1A2B_3C4D, 0x0001_0000, u32::MAX, u32::MAX, 28];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        let refused = take(&mut joined, &bytes, 100, &mut output).unwrap_err();
        assert!(refused.to_string().contains("byte order has changed"), "{refused}");
    }
}
