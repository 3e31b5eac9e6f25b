//! The packets of a capture file that a client sent. Pure: bytes in, packets out.

use sockbroker_pcapng::{Block, Decoder, LinkType};

use crate::error::{OpError, OpResult};

/// A packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub data: &'a [u8],
    /// When it was captured, in nanoseconds since 1970. A packet without a time has that of the packet before it.
    pub time: u64,
    /// Why it must not be sent.
    pub refusal: Option<Refusal>,
}

/// Why a packet must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The file has only a part of it.
    Truncated {
        /// Its length on the wire.
        length: u32,
    },
    /// It does not begin as the packets of the interface do.
    LinkType { found: LinkType, expected: LinkType },
}

/// What a file must be.
#[derive(Debug, Clone, Copy)]
pub struct Requirements {
    /// What packets of the interface begin with; `None` if this is not known.
    pub link_type: Option<LinkType>,
    /// Whether truncated packets are sent as they are.
    pub truncated: bool,
    /// The number of the first packet, for errors.
    pub first: u64,
    /// The most packets and other blocks: the limit `replay_blocks`.
    pub blocks: u64,
}

/// The packets of a file.
pub fn frames(file: &[u8], required: Requirements) -> OpResult<Vec<Frame<'_>>> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    let (mut offset, mut time, mut blocks) = (0, 0, 0);
    while let Some(rest) = file.get(offset..).filter(|rest| !rest.is_empty()) {
        blocks += 1;
        OpError::within("replay_blocks", blocks, required.blocks)?;
        let (block, length) = decoder.decode(rest).map_err(|error| {
            let number = required.first.saturating_add(found.len() as u64);
            OpError::value(format!(
                "packet {number}: the capture is malformed at byte {offset}: {error}"
            ))
        })?;
        offset = offset.saturating_add(length);
        let Block::Packet(packet) = block else { continue };
        time = packet.time.unwrap_or(time);
        let other = required.link_type.filter(|expected| *expected != packet.link_type);
        let is_whole = packet.data.len() as u64 >= u64::from(packet.length);
        let refusal = if let Some(expected) = other {
            Some(Refusal::LinkType { found: packet.link_type, expected })
        } else if !is_whole && !required.truncated {
            Some(Refusal::Truncated { length: packet.length })
        } else {
            None
        };
        found.push(Frame { data: packet.data, time, refusal });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockbroker_pcapng::{Interface, Packet, PcapWriter, Section, Writer};

    fn required() -> Requirements {
        let link_type = Some(LinkType::ETHERNET);
        Requirements { link_type, truncated: false, first: 1, blocks: 100 }
    }

    fn refusals(file: &[u8], required: Requirements) -> Vec<Option<Refusal>> {
        frames(file, required).unwrap().iter().map(|frame| frame.refusal).collect()
    }

    fn message(file: &[u8], required: Requirements) -> String {
        match frames(file, required).unwrap_err() {
            OpError::Argument(_, message) => message,
            other => panic!("{other:?}"),
        }
    }

    fn pcap(packets: &[(u64, &[u8], u32)]) -> Vec<u8> {
        let mut file = Vec::new();
        let writer = PcapWriter::begin(LinkType::ETHERNET, 65_535, &mut file);
        for (time, data, length) in packets {
            writer.packet(*time, &[data], *length, &mut file).unwrap();
        }
        file
    }

    #[test]
    fn packets_of_both_formats_have_data_and_time() {
        let file = pcap(&[(7, b"one", 3), (9, b"twos", 4)]);
        let found = frames(&file, required()).unwrap();
        assert_eq!(found[0], Frame { data: b"one", time: 7, refusal: None });
        assert_eq!(found[1], Frame { data: b"twos", time: 9, refusal: None });
        assert_eq!(frames(&[], required()).unwrap(), []);
    }

    #[test]
    fn packets_of_another_link_type_and_truncated_ones_are_refused_each_by_itself() {
        let mut file = Vec::new();
        let mut writer = Writer::begin(&Section::default(), &mut file).unwrap();
        writer.interface(&Interface::new("a", LinkType::ETHERNET, 0), &mut file).unwrap();
        writer.interface(&Interface::new("b", LinkType::RAW, 0), &mut file).unwrap();
        for (interface, length) in [(0, 4), (1, 4), (0, 60), (0, 4)] {
            writer.packet(&Packet::new(interface, 1, &[b"data"], length), &mut file).unwrap();
        }
        let other = Refusal::LinkType { found: LinkType::RAW, expected: LinkType::ETHERNET };
        let (other, cut) = (Some(other), Some(Refusal::Truncated { length: 60 }));
        assert_eq!(refusals(&file, required()), [None, other, cut, None]);
        let truncated = Requirements { truncated: true, ..required() };
        assert_eq!(refusals(&file, truncated), [None, other, None, None]);
        let unknown = Requirements { link_type: None, ..required() };
        assert_eq!(refusals(&file, unknown), [None, None, cut, None]);
    }

    #[test]
    fn a_malformed_file_is_an_error_that_names_the_packet() {
        let file = pcap(&[(1, b"one", 3), (2, b"two", 3)]);
        for cut in 1..file.len() {
            // Behind the header and behind each packet the file is whole.
            let is_whole = [24, 24 + 19, 24 + 38].contains(&cut);
            assert_eq!(frames(&file[..cut], required()).is_ok(), is_whole, "{cut}");
        }
        let numbered = Requirements { first: 41, ..required() };
        let text = message(&file[..50], numbered);
        assert!(text.starts_with("packet 42: the capture is malformed at byte 43: "), "{text}");
        assert!(message(b"no capture file", required()).starts_with("packet 1: "));
    }

    #[test]
    fn a_file_with_too_many_blocks_is_refused_by_name() {
        let file = pcap(&[(1, b"one", 3), (2, b"two", 3)]);
        // The header counts.
        let exactly = Requirements { blocks: 3, ..required() };
        assert_eq!(frames(&file, exactly).unwrap().len(), 2);
        let fewer = Requirements { blocks: 2, ..required() };
        let error = frames(&file, fewer).unwrap_err();
        assert!(matches!(error, OpError::Limit { name: "replay_blocks", value: 2 }), "{error:?}");
    }
}
