//! Bytes that the writer appends, by the draft.

use super::*;
use crate::packet::{Direction, Reception};

const TIME: u64 = 1 << 33 | 5;

/// Returns type and body of each block. Fails if the two lengths of a block differ.
fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
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

/// Returns the options of a body: codes and values. Fails without an end of the options.
fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let code = u16::from_le_bytes(bytes[..2].try_into().unwrap());
        let length = usize::from(u16::from_le_bytes(bytes[2..4].try_into().unwrap()));
        bytes = &bytes[4..];
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 0));
            return found;
        }
        found.push((code, bytes[..length].to_vec()));
        let (value, rest) = bytes.split_at(length.next_multiple_of(4));
        assert!(value[length..].iter().all(|byte| *byte == 0));
        bytes = rest;
    }
}

fn begun(snaplen: u32) -> (Writer, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
    writer.interface(&Interface::new("lo", LinkType::ETHERNET, snaplen), &mut bytes).unwrap();
    (writer, bytes)
}

#[test]
fn section_header_has_an_unknown_length_and_its_options() {
    let section = Section {
        hardware: Some("x86_64"),
        os: Some("Linux"),
        application: Some("a"),
        comment: Some("why"),
    };
    let mut bytes = Vec::new();
    Writer::begin(&section, &mut bytes).unwrap();
    let blocks = blocks(&bytes);
    let (kind, body) = &blocks[0];
    assert_eq!(*kind, 0x0A0D_0D0A);
    assert_eq!(body[..16], [[0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0], [0xFF; 8]].concat());
    let expected = [(1, &b"why"[..]), (2, b"x86_64"), (3, b"Linux"), (4, b"a")];
    assert_eq!(options(&body[16..]), expected.map(|(code, value)| (code, value.to_vec())));
}

#[test]
fn section_without_facts_has_no_options() {
    let mut bytes = Vec::new();
    Writer::begin(&Section::default(), &mut bytes).unwrap();
    assert_eq!(bytes.len(), 28);
}

#[test]
fn interface_description_has_nanoseconds_and_its_options() {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
    bytes.clear();
    let interface = Interface {
        description: Some("d"),
        filter: Some("udp port 67"),
        speed: Some(10_000_000_000),
        mac: Some([2, 0, 0, 0, 0, 1]),
        os: Some("Linux"),
        hardware: Some("veth"),
        comment: Some("c"),
        ..Interface::new("eth0", LinkType::LINUX_SLL2, 64)
    };
    assert_eq!(writer.interface(&interface, &mut bytes), Ok(0));
    assert_eq!(writer.interface(&interface, &mut bytes), Ok(1));
    let blocks = blocks(&bytes);
    let (kind, body) = &blocks[0];
    assert_eq!((*kind, &body[..8]), (1, &[20, 1, 0, 0, 64, 0, 0, 0][..]));
    let speed = 10_000_000_000_u64.to_le_bytes();
    let expected: [(u16, &[u8]); 9] = [
        (1, b"c"),
        (2, b"eth0"),
        (3, b"d"),
        (6, &[2, 0, 0, 0, 0, 1]),
        (8, &speed),
        (9, &[9]),
        (11, b"\0udp port 67"),
        (12, b"Linux"),
        (15, b"veth"),
    ];
    assert_eq!(options(&body[8..]), expected.map(|(code, value)| (code, value.to_vec())));
}

#[test]
fn packet_has_time_lengths_data_and_options() {
    let (writer, mut bytes) = begun(100);
    bytes.clear();
    let packet = Packet {
        flags: Some(PacketFlags::new(Direction::Inbound, Reception::Broadcast)),
        dropped: 7,
        process: Some(Process { process: 300, thread: 301 }),
        comment: Some("first"),
        ..Packet::new(0, TIME, &[b"abc", b"", b"de"], 60)
    };
    writer.packet(&packet, &mut bytes).unwrap();
    assert_eq!(packet.block_bytes(), bytes.len());
    let blocks = blocks(&bytes);
    let (kind, body) = &blocks[0];
    let words: Vec<_> = body[..20].chunks(4).map(<[u8]>::to_vec).collect();
    assert_eq!(*kind, 6);
    assert_eq!(words, [0u32, 2, 5, 5, 60].map(|word| word.to_le_bytes().to_vec()));
    assert_eq!(body[20..28], *b"abcde\0\0\0");
    let process = [300u32.to_le_bytes(), 301u32.to_le_bytes()].concat();
    let expected: [(u16, &[u8]); 4] =
        [(1, b"first"), (2, &[0b1101, 0, 0, 0]), (4, &7u64.to_le_bytes()), (8, &process)];
    assert_eq!(options(&body[28..]), expected.map(|(code, value)| (code, value.to_vec())));
}

#[test]
fn blocks_are_aligned_for_packets_of_every_length() {
    let (writer, mut bytes) = begun(0);
    for length in 0..=9 {
        bytes.clear();
        let data = [&[7; 9][..length]];
        let packet = Packet::new(0, 0, &data, 9);
        writer.packet(&packet, &mut bytes).unwrap();
        assert_eq!(packet.block_bytes(), bytes.len());
        let blocks = blocks(&bytes);
        assert_eq!(blocks[0].1[20..20 + length], *data[0]);
        // Without options.
        assert_eq!(blocks[0].1.len(), 20 + length.next_multiple_of(4));
    }
}

#[test]
fn packets_are_written_without_allocation_into_a_sufficient_buffer() {
    let (writer, _) = begun(0);
    let packet = Packet { dropped: 1, ..Packet::new(0, TIME, &[&[1; 70]], 70) };
    let mut bytes = Vec::with_capacity(packet.block_bytes() * 100);
    let (place, capacity) = (bytes.as_ptr(), bytes.capacity());
    for _ in 0..100 {
        writer.packet(&packet, &mut bytes).unwrap();
    }
    assert_eq!((bytes.as_ptr(), bytes.capacity(), bytes.len()), (place, capacity, capacity));
}

#[test]
fn statistics_have_the_counters_that_are_known() {
    let (writer, mut bytes) = begun(0);
    bytes.clear();
    let statistics = Statistics {
        time: TIME,
        start: Some(1 << 32),
        end: Some(TIME),
        received: Some(3),
        dropped: Some(1),
        accepted: Some(4),
        os_dropped: Some(5),
        delivered: Some(2),
        comment: Some("the interface is gone"),
        ..Statistics::default()
    };
    writer.statistics(&statistics, &mut bytes).unwrap();
    let few = Statistics { received: Some(3), ..Statistics::default() };
    writer.statistics(&few, &mut bytes).unwrap();
    let blocks = blocks(&bytes);
    let (kind, body) = &blocks[0];
    assert_eq!((*kind, &body[..12]), (5, &[0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0][..]));
    let number = |number: u64| number.to_le_bytes().to_vec();
    let expected = [
        (1, b"the interface is gone".to_vec()),
        (2, vec![1, 0, 0, 0, 0, 0, 0, 0]),
        (3, vec![2, 0, 0, 0, 5, 0, 0, 0]),
        (4, number(3)),
        (5, number(1)),
        (6, number(4)),
        (7, number(5)),
        (8, number(2)),
    ];
    assert_eq!(options(&body[12..]), expected);
    assert_eq!(options(&blocks[1].1[12..]), [(4, number(3))]);
}

#[test]
fn what_readers_refuse_is_refused_and_appends_nothing() {
    let (mut writer, mut bytes) = begun(4);
    let before = bytes.clone();
    let packet = |interface, data, length| Packet::new(interface, 0, data, length);
    let mut refused = |packet: Packet<'_>| writer.packet(&packet, &mut bytes).unwrap_err();
    let longer = WriteError::LongerThanSnaplen { captured: 5, snaplen: 4 };
    assert_eq!(refused(packet(0, &[b"ab", b"cde"], 9)), longer);
    let longer = WriteError::LongerThanPacket { captured: 3, length: 2 };
    assert_eq!(refused(packet(0, &[b"abc"], 2)), longer);
    let unknown = WriteError::UnknownInterface { interface: 1, interfaces: 1 };
    assert_eq!(refused(packet(1, &[b"abc"], 3)), unknown);
    let statistics = Statistics { interface: 1, ..Statistics::default() };
    assert_eq!(writer.statistics(&statistics, &mut bytes), Err(unknown));
    let text = "x".repeat(65_536);
    let interface = Interface { filter: Some(&text[1..]), ..Interface::new("a", LinkType::RAW, 0) };
    let too_long = WriteError::OptionTooLong { code: 11, bytes: 65_536 };
    assert_eq!(writer.interface(&interface, &mut bytes), Err(too_long));
    assert_eq!(bytes, before);
    // The refused interface has no number.
    let interface = Interface { filter: Some(&text[2..]), ..interface };
    assert_eq!(writer.interface(&interface, &mut bytes), Ok(1));
}

#[test]
fn longest_block_is_written_and_a_longer_one_refused() {
    let (writer, mut bytes) = begun(0);
    bytes.clear();
    let data = vec![1; MAX_BLOCK_BYTES - 32 + 1];
    let length = u32::try_from(data.len()).unwrap();
    let too_long = WriteError::BlockTooLong { bytes: MAX_BLOCK_BYTES + 4 };
    assert_eq!(writer.packet(&Packet::new(0, 0, &[&data], length), &mut bytes), Err(too_long));
    assert_eq!(bytes.len(), 0);
    writer.packet(&Packet::new(0, 0, &[&data[1..]], length), &mut bytes).unwrap();
    assert_eq!(bytes.len(), MAX_BLOCK_BYTES);
}

#[test]
fn section_has_a_limited_number_of_interfaces() {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&Section::default(), &mut bytes).unwrap();
    let interface = Interface { name: None, ..Interface::new("", LinkType::RAW, 0) };
    for _ in 0..MAX_INTERFACES {
        writer.interface(&interface, &mut bytes).unwrap();
    }
    let before = bytes.len();
    assert_eq!(writer.interface(&interface, &mut bytes), Err(WriteError::TooManyInterfaces));
    assert_eq!(bytes.len(), before);
}

#[test]
fn packets_without_a_comment_are_written_as_by_the_general_function() {
    let (writer, _) = begun(0);
    let (flags, process) = (Some(PacketFlags(9)), Some(Process { process: 7, thread: 8 }));
    let bytes = [1, 2, 3, 4, 5, 6, 7];
    for length in 0..bytes.len() {
        let (one, other) = bytes[..length].split_at(length / 2);
        let data = [one, other];
        let plain = Packet::new(0, TIME, &data, 100);
        for packet in [
            plain,
            Packet { flags, ..plain },
            Packet { flags, dropped: 1 << 40, ..plain },
            Packet { flags, dropped: 2, process, ..plain },
            Packet { process, ..plain },
        ] {
            let mut fixed = [0; 20];
            put(&mut fixed, 4, &time_bytes(TIME));
            put(&mut fixed, 12, &u32::try_from(length).unwrap().to_le_bytes());
            put(&mut fixed, 16, &100_u32.to_le_bytes());
            let mut expected = Vec::new();
            block(ENHANCED_PACKET, &fixed, &data, length, &packet.options(), &mut expected)
                .unwrap();
            let mut written = Vec::new();
            writer.packet(&packet, &mut written).unwrap();
            assert_eq!(written, expected, "{packet:?}");
            assert_eq!(written.len(), packet.block_bytes());
        }
    }
}
