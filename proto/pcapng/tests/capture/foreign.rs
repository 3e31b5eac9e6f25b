//! Files as other programs write them.

use sockbroker_pcapng::{
    Block, ByteOrder, Direction, LinkType, PacketFlags, Process, Reader, Reception,
};

use crate::builder::{self, Part, STATISTICS, block, interface, packet, section};
use crate::read_each;

const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

/// A file with every option that the reader knows.
fn file_with_all_options(order: ByteOrder) -> Vec<u8> {
    let header = [
        Part::U32(0x1A2B_3C4D),
        Part::U16(1),
        Part::U16(0),
        Part::U64(1234),
        Part::Text(1, b"remark"),
        Part::Text(2, b"mips"),
        Part::Text(3, b"OpenWrt"),
        Part::Text(4, b"dumpcap"),
        Part::End,
    ];
    let options = [
        Part::Text(2, b"br-lan"),
        Part::Text(3, b"bridge"),
        Part::Text(6, &[2, 0, 0, 0, 0, 9]),
        Part::Number(8, 1_000_000_000),
        Part::Text(9, &[9]),
        Part::Text(11, b"\0arp"),
        Part::Text(12, b"Linux 6.1"),
        Part::Text(15, b"switch"),
        Part::End,
    ];
    let flags = builder::u32_bytes(order, 0b01101);
    let process = [builder::u32_bytes(order, 300), builder::u32_bytes(order, 301)].concat();
    let packet_options = [
        Part::Text(1, b"odd"),
        Part::Text(2, &flags),
        Part::Number(4, 5),
        Part::Text(8, &process),
        Part::End,
    ];
    let counters = [
        Part::U32(0),
        Part::Time(1 << 34),
        Part::Text(2, &builder::body(order, &[Part::Time(1 << 33)])),
        Part::Text(3, &builder::body(order, &[Part::Time(1 << 34)])),
        Part::Number(4, 10),
        Part::Number(5, 11),
        Part::Number(6, 12),
        Part::Number(7, 13),
        Part::Number(8, 14),
        Part::Text(1, b"end"),
    ];
    [
        block(order, builder::SECTION, &header),
        interface(order, &options),
        packet(order, 0, 1 << 33, b"abcde", &packet_options),
        block(order, STATISTICS, &counters),
    ]
    .concat()
}

#[test]
fn both_byte_orders_are_read_with_all_options() {
    for order in ORDERS {
        let file = file_with_all_options(order);
        let mut reader = Reader::new(&file[..]);
        let Some(Block::Section(section)) = reader.next_block().unwrap() else {
            panic!("{order:?}")
        };
        assert_eq!(section.order, order);
        assert_eq!(section.hardware, Some(&b"mips"[..]));
        assert_eq!(section.os, Some(&b"OpenWrt"[..]));
        assert_eq!(section.application, Some(&b"dumpcap"[..]));
        assert_eq!(section.comment, Some(&b"remark"[..]));
        let Some(Block::Interface(found)) = reader.next_block().unwrap() else { panic!() };
        assert_eq!((found.number, found.link_type, found.snaplen), (0, LinkType::ETHERNET, 0));
        assert_eq!((found.name, found.description), (Some(&b"br-lan"[..]), Some(&b"bridge"[..])));
        assert_eq!((found.mac, found.speed), (Some([2, 0, 0, 0, 0, 9]), Some(1_000_000_000)));
        assert_eq!((found.filter, found.os), (Some(&b"arp"[..]), Some(&b"Linux 6.1"[..])));
        assert_eq!((found.hardware, found.comment), (Some(&b"switch"[..]), None));
        let Some(Block::Packet(found)) = reader.next_block().unwrap() else { panic!() };
        assert_eq!((found.time, found.data, found.length), (Some(1 << 33), &b"abcde"[..], 105));
        let flags = PacketFlags::new(Direction::Inbound, Reception::Broadcast);
        assert_eq!((found.flags, found.dropped), (Some(flags), Some(5)));
        assert_eq!(found.process, Some(Process { process: 300, thread: 301 }));
        assert_eq!(found.comment, Some(&b"odd"[..]));
        let Some(Block::Statistics(found)) = reader.next_block().unwrap() else { panic!() };
        assert_eq!((found.interface, found.time), (0, 1 << 34));
        assert_eq!((found.start, found.end), (Some(1 << 33), Some(1 << 34)));
        assert_eq!((found.received, found.dropped, found.accepted), (Some(10), Some(11), Some(12)));
        assert_eq!((found.os_dropped, found.delivered), (Some(13), Some(14)));
        assert_eq!(found.comment, Some(&b"end"[..]));
        assert!(reader.next_block().unwrap().is_none());
    }
}

/// Returns interface, time and data of each packet.
fn packets(file: &[u8]) -> Vec<(u32, Option<u64>, Vec<u8>)> {
    let mut found = Vec::new();
    read_each(file, |block| {
        if let Block::Packet(packet) = block {
            found.push((packet.interface, packet.time, packet.data.to_vec()));
        }
    })
    .unwrap();
    found
}

#[test]
fn sections_have_their_own_byte_order_and_interfaces() {
    let mut file = Vec::new();
    for (order, seconds) in [(ByteOrder::Big, 1), (ByteOrder::Little, 2), (ByteOrder::Big, 3)] {
        file.extend(section(order));
        file.extend(interface(order, &[Part::Text(9, &[0])]));
        file.extend(packet(order, 0, seconds, b"x", &[]));
    }
    let expected = [1, 2, 3].map(|seconds| (0, Some(seconds * 1_000_000_000), b"x".to_vec()));
    assert_eq!(packets(&file), expected);
    // The second section does not have the interface of the first.
    let order = ByteOrder::Little;
    let file =
        [section(order), interface(order, &[]), section(order), packet(order, 0, 1, b"x", &[])];
    let error = read_each(&file.concat(), |_| ()).unwrap_err();
    assert!(
        error.contains("interface 0 is not described: the section has 0 interfaces"),
        "{error}"
    );
}

#[test]
fn interfaces_have_their_own_clock_and_may_appear_at_any_time() {
    let order = ByteOrder::Little;
    let offset = (-10i64).cast_unsigned();
    let file = [
        section(order),
        interface(order, &[]),
        packet(order, 0, 1_500_000, b"a", &[]),
        interface(order, &[Part::Text(9, &[0x8A]), Part::End]),
        packet(order, 1, 1536, b"b", &[]),
        interface(order, &[Part::Text(9, &[3]), Part::Number(14, offset)]),
        packet(order, 2, 12_000, b"c", &[]),
        packet(order, 0, 2_000_000, b"d", &[]),
    ];
    let second = 1_000_000_000;
    let expected = [
        (0, Some(1_500_000_000), b"a".to_vec()),
        (1, Some(1_500_000_000), b"b".to_vec()),
        (2, Some(2 * second), b"c".to_vec()),
        (0, Some(2 * second), b"d".to_vec()),
    ];
    assert_eq!(packets(&file.concat()), expected);
}

#[test]
fn unknown_blocks_and_options_are_skipped() {
    for order in ORDERS {
        let unknown = Part::Text(0x7777, b"unknown option");
        let end = Part::Text(0, b"an end with a value");
        let file = [
            section(order),
            // Name resolution, systemd journal, custom blocks, and a block of the local range.
            block(order, 4, &[Part::Bytes(b"names")]),
            block(order, 9, &[Part::Bytes(b"__REALTIME_TIMESTAMP=0\n")]),
            block(order, 0x0BAD, &[Part::U32(32_473), Part::Bytes(b"custom")]),
            block(order, 0x4000_0BAD, &[Part::U32(32_473)]),
            block(order, 0x8000_0001, &[]),
            interface(order, &[unknown.clone(), Part::Text(2, b"eth0"), Part::End]),
            packet(order, 0, 1, b"a", &[unknown, end]),
        ];
        let (mut kinds, mut name) = (Vec::new(), Vec::new());
        read_each(&file.concat(), |block| match block {
            Block::Other { kind, .. } => kinds.push(*kind),
            Block::Interface(interface) => name = interface.name.unwrap().to_vec(),
            Block::Section(_) | Block::Packet(_) | Block::Statistics(_) => (),
        })
        .unwrap();
        assert_eq!(kinds, [4, 9, 0x0BAD, 0x4000_0BAD, 0x8000_0001]);
        assert_eq!(name, b"eth0");
        assert_eq!(packets(&file.concat()), [(0, Some(1_000), b"a".to_vec())]);
    }
}

#[test]
fn options_may_have_neither_an_end_nor_padding() {
    let order = ByteOrder::Little;
    // The last option is not padded, and the block is as long as it says.
    let mut data = builder::body(order, &[Part::U32(0), Part::Time(7), Part::U32(1), Part::U32(1)]);
    data.extend(*b"x\0\0\0");
    data.extend(builder::body(order, &[Part::Text(1, b"four")]));
    let file = [
        section(order),
        interface(order, &[Part::Text(2, b"eth0")]),
        block(order, builder::PACKET, &[Part::Bytes(&data)]),
    ];
    assert_eq!(packets(&file.concat()), [(0, Some(7_000), b"x".to_vec())]);
}

#[test]
fn first_comment_is_kept_and_a_filter_that_is_not_a_text_is_not() {
    let order = ByteOrder::Little;
    let options = [Part::Text(11, b"\x01bytecode"), Part::Text(1, b"a"), Part::Text(1, b"b")];
    let file = [section(order), interface(order, &options)];
    let mut found = None;
    read_each(&file.concat(), |block| {
        if let Block::Interface(interface) = block {
            found = Some((interface.filter.is_some(), interface.comment.unwrap().to_vec()));
        }
    })
    .unwrap();
    assert_eq!(found, Some((false, b"a".to_vec())));
}

#[test]
fn simple_packets_have_the_first_interface_and_its_snapshot_length() {
    for order in ORDERS {
        let described =
            block(order, builder::INTERFACE, &[Part::U16(101), Part::U16(0), Part::U32(4)]);
        let file = [
            section(order),
            described,
            block(order, 3, &[Part::U32(3), Part::Bytes(b"abc")]),
            block(order, 3, &[Part::U32(60), Part::Bytes(b"abcd")]),
        ];
        let mut found = Vec::new();
        read_each(&file.concat(), |block| {
            if let Block::Packet(packet) = block {
                assert_eq!((packet.time, packet.link_type), (None, LinkType::RAW));
                found.push((packet.data.to_vec(), packet.length));
            }
        })
        .unwrap();
        assert_eq!(found, [(b"abc".to_vec(), 3), (b"abcd".to_vec(), 60)]);
    }
}

#[test]
fn obsolete_packets_have_drops_in_their_header() {
    for order in ORDERS {
        let old = |dropped| {
            let fixed = [
                Part::U16(0),
                Part::U16(dropped),
                Part::Time(5),
                Part::U32(3),
                Part::U32(60),
                Part::Bytes(b"abc"),
            ];
            block(order, 2, &fixed)
        };
        let file = [section(order), interface(order, &[]), old(7), old(u16::MAX)];
        let mut found = Vec::new();
        read_each(&file.concat(), |block| {
            if let Block::Packet(packet) = block {
                assert_eq!((packet.time, packet.data), (Some(5_000), &b"abc"[..]));
                found.push(packet.dropped);
            }
        })
        .unwrap();
        assert_eq!(found, [Some(7), None]);
    }
}

#[test]
fn pcap_of_either_order_and_resolution_is_read() {
    for order in ORDERS {
        for (magic, unit) in [(0xA1B2_C3D4, 1_000), (0xA1B2_3C4D, 1)] {
            let header = [
                Part::U32(magic),
                Part::U16(2),
                Part::U16(4),
                Part::U64(0),
                Part::U32(65_535),
                // The upper half says that frames have a checksum of four bytes.
                Part::U32(0x4400_0071),
            ];
            let record = |seconds, fraction, data: &[u8]| {
                let length = u32::try_from(data.len()).unwrap();
                let fields = [seconds, fraction, length, length + 9].map(Part::U32);
                [&builder::body(order, &fields), data].concat()
            };
            let file = [
                builder::body(order, &header),
                record(1, 5, b"abc"),
                record(u32::MAX, 7, b""),
                record(3, 999_999, b"abcdefgh"),
            ]
            .concat();
            let expected = [
                (0, Some(1_000_000_000 + 5 * unit), b"abc".to_vec()),
                (0, Some(u64::from(u32::MAX) * 1_000_000_000 + 7 * unit), Vec::new()),
                (0, Some(3_000_000_000 + 999_999 * unit), b"abcdefgh".to_vec()),
            ];
            assert_eq!(packets(&file), expected);
            let mut described = None;
            read_each(&file, |block| {
                if let Block::Interface(interface) = block {
                    described = Some((interface.link_type, interface.snaplen));
                }
            })
            .unwrap();
            assert_eq!(described, Some((LinkType::LINUX_SLL, 65_535)));
        }
    }
}

#[test]
fn empty_file_is_an_empty_capture() {
    assert_eq!(packets(b""), []);
}
