//! Seeds of the target `pcapng`: whole files of both formats and byte orders, and damaged ones.

use sockbroker_pcapng::{
    Direction, Interface, LinkType, Packet, PacketFlags, PcapWriter, Process, Reception, Section,
    Statistics, Writer,
};

use crate::Seed;

pub(crate) fn whole() -> Vec<Seed> {
    let mut pcap = Vec::new();
    let writer = PcapWriter::begin(LinkType::RAW, 64, &mut pcap);
    writer.packet(1_700_000_000_000_000_007, &[b"packet"], 60, &mut pcap).unwrap();
    vec![
        ("written", written()),
        ("pcap", pcap),
        ("pcap-big-endian", big_endian_pcap()),
        ("big-endian", big_endian()),
        ("two-sections", [written(), big_endian()].concat()),
        ("simple-packet", [section(), interface(&[]), block(3, &[4, 0x6162_6364])].concat()),
        ("obsolete-packet", [section(), interface(&[]), block(2, &old_packet())].concat()),
        ("unknown-block", [section(), block(0x4000_0BAD, &[32_473, 7])].concat()),
        ("picoseconds", [section(), interface(&[0x0001_0009, 12]), packet(0, 4)].concat()),
    ]
}

pub(crate) fn damaged() -> Vec<Seed> {
    let start = [section(), interface(&[])].concat();
    let after = |bytes: Vec<u8>| [start.clone(), bytes].concat();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    vec![
        ("damaged-length-huge", after(words(&[6, u32::MAX, 0, 0]))),
        ("damaged-length-zero", after(words(&[6, 0, 0, 0]))),
        ("damaged-trailer", after(words(&[7, 16, 0, 0]))),
        ("damaged-cut-off", written()[..200].to_vec()),
        ("damaged-interface", after(packet(3, 4))),
        ("damaged-captured", after(packet(0, 4000))),
        ("damaged-option", [section(), interface(&[0xFFFF_0002, 0])].concat()),
        ("damaged-time", [section(), interface(&[0x0001_0009, 0]), packet(0, 4)].concat()),
    ]
}

/// Everything that the writer can write.
fn written() -> Vec<u8> {
    let mut file = Vec::new();
    let section = Section { os: Some("Linux"), comment: Some("a"), ..Section::default() };
    let mut writer = Writer::begin(&section, &mut file).unwrap();
    let interface = Interface {
        filter: Some("udp"),
        speed: Some(1),
        mac: Some([2; 6]),
        ..Interface::new("eth0", LinkType::ETHERNET, 64)
    };
    writer.interface(&interface, &mut file).unwrap();
    let packet = Packet {
        flags: Some(PacketFlags::new(Direction::Inbound, Reception::Unicast)),
        dropped: 7,
        process: Some(Process { process: 300, thread: 301 }),
        comment: Some("c"),
        ..Packet::new(0, 1_700_000_000_000_000_007, &[b"packet"], 60)
    };
    writer.packet(&packet, &mut file).unwrap();
    let statistics = Statistics { start: Some(1), dropped: Some(7), ..Statistics::default() };
    writer.statistics(&statistics, &mut file).unwrap();
    file
}

/// A little-endian block of words.
fn block(kind: u32, body: &[u32]) -> Vec<u8> {
    let length = u32::try_from(body.len() * 4 + 12).unwrap();
    let words = [&[kind, length][..], body, &[length]].concat();
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn section() -> Vec<u8> {
    block(0x0A0D_0D0A, &[0x1A2B_3C4D, 1, u32::MAX, u32::MAX])
}

fn interface(options: &[u32]) -> Vec<u8> {
    block(1, &[&[1, 0][..], options].concat())
}

fn packet(interface: u32, captured: u32) -> Vec<u8> {
    block(6, &[interface, 7, 7, captured, 60, 0x6162_6364])
}

fn old_packet() -> Vec<u32> {
    vec![0x0005_0000, 0, 7, 4, 60, 0x6162_6364]
}

/// The blocks of words in the other byte order.
fn big_endian() -> Vec<u8> {
    let section = block(0x0A0D_0D0A, &[0x1A2B_3C4D, 0x0001_0000, u32::MAX, u32::MAX]);
    let interface = block(1, &[0x0001_0000, 0, 0x0009_0001, 0x0900_0000]);
    let blocks = [section, interface, packet(0, 4)].concat();
    blocks.chunks(4).flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>()).collect()
}

fn big_endian_pcap() -> Vec<u8> {
    let words = [0xA1B2_C3D4, 0x0002_0004, 0, 0, 64, 1, 5, 7, 4, 60, 0x6162_6364];
    words.iter().flat_map(|word: &u32| word.to_be_bytes()).collect()
}
