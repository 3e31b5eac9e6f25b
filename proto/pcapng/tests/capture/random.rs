//! What the writer writes is what the reader reads, for random captures; and random bytes do not disturb the reader.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sockbroker_pcapng::{
    Block, Decoder, Interface, LinkType, Packet, PacketFlags, Process, Reader, Section, Statistics,
    Writer,
};

#[derive(Debug, Clone)]
struct Sent {
    interface: u32,
    time: u64,
    parts: Vec<Vec<u8>>,
    cut: u32,
    flags: Option<u32>,
    dropped: u64,
    process: Option<(u32, u32)>,
    comment: Option<String>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let parts = vec(vec(any::<u8>(), 0..40), 0..4);
    let facts = (option::of(any::<u32>()), prop_oneof![Just(0), any::<u64>()]);
    let texts = (option::of(any::<(u32, u32)>()), option::of(".{0,12}"));
    (0..3u32, any::<u64>(), parts, 0..1000u32, facts, texts).prop_map(
        |(interface, time, parts, cut, (flags, dropped), (process, comment))| Sent {
            interface,
            time,
            parts,
            cut,
            flags,
            dropped,
            process,
            comment,
        },
    )
}

const LINKS: [LinkType; 3] = [LinkType::ETHERNET, LinkType::RAW, LinkType::LINUX_SLL2];

/// A capture of three interfaces, with statistics after each packet.
fn write(packets: &[Sent]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::begin(&Section::default(), &mut file).unwrap();
    for link in LINKS {
        writer.interface(&Interface::new("eth0", link, 262_144), &mut file).unwrap();
    }
    for sent in packets {
        let parts: Vec<&[u8]> = sent.parts.iter().map(Vec::as_slice).collect();
        let captured = u32::try_from(sent.parts.concat().len()).unwrap();
        let packet = Packet {
            flags: sent.flags.map(PacketFlags),
            dropped: sent.dropped,
            process: sent.process.map(|(process, thread)| Process { process, thread }),
            comment: sent.comment.as_deref(),
            ..Packet::new(sent.interface, sent.time, &parts, captured + sent.cut)
        };
        let before = file.len();
        writer.packet(&packet, &mut file).unwrap();
        assert_eq!(file.len() - before, packet.block_bytes());
        let statistics = Statistics {
            interface: sent.interface,
            time: sent.time,
            start: Some(sent.time),
            dropped: Some(sent.dropped),
            comment: sent.comment.as_deref(),
            ..Statistics::default()
        };
        writer.statistics(&statistics, &mut file).unwrap();
    }
    file
}

proptest! {
    #[test]
    fn written_packets_are_read(packets in vec(sent(), 0..20)) {
        let file = write(&packets);
        let mut reader = Reader::new(&file[..]);
        for _ in 0..4 {
            prop_assert!(reader.next_block().unwrap().is_some());
        }
        for sent in &packets {
            let Some(Block::Packet(found)) = reader.next_block().unwrap() else { panic!() };
            prop_assert_eq!(found.interface, sent.interface);
            prop_assert_eq!(found.link_type, LINKS[sent.interface as usize]);
            prop_assert_eq!(found.time, Some(sent.time));
            prop_assert_eq!(found.data, sent.parts.concat());
            prop_assert_eq!(found.length as usize, found.data.len() + sent.cut as usize);
            prop_assert_eq!(found.flags, sent.flags.map(PacketFlags));
            prop_assert_eq!(found.dropped.unwrap_or_default(), sent.dropped);
            let process = sent.process.map(|(process, thread)| Process { process, thread });
            prop_assert_eq!(found.process, process);
            prop_assert_eq!(found.comment, sent.comment.as_deref().map(str::as_bytes));
            let Some(Block::Statistics(found)) = reader.next_block().unwrap() else { panic!() };
            prop_assert_eq!((found.interface, found.time), (sent.interface, sent.time));
            prop_assert_eq!((found.start, found.dropped), (Some(sent.time), Some(sent.dropped)));
            prop_assert_eq!(found.comment, sent.comment.as_deref().map(str::as_bytes));
        }
        prop_assert!(reader.next_block().unwrap().is_none());
    }

    /// Changed bytes lead to other blocks or an error, never to a panic, and the reader always ends.
    #[test]
    fn changed_bytes_do_not_disturb_the_reader(
        packets in vec(sent(), 0..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = write(&packets);
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let mut reader = Reader::new(&file[..]);
        while let Ok(Some(_)) = reader.next_block() {}
    }

    /// The decoder needs as many bytes as it says, and no more.
    #[test]
    fn decoder_needs_what_it_reports(packets in vec(sent(), 0..4)) {
        let file = write(&packets);
        let mut decoder = Decoder::new();
        let mut rest = &file[..];
        while !rest.is_empty() {
            let mut present = 0;
            while decoder.required(&rest[..present]).unwrap() > present {
                prop_assert!(decoder.decode(&rest[..present]).is_err());
                present += 1;
            }
            let (_, length) = decoder.decode(&rest[..present]).unwrap();
            prop_assert_eq!(length, present);
            rest = &rest[length..];
        }
    }
}
