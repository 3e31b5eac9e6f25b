//! A capture with everything that the writer can write.

use sockbroker_pcapng::{
    Direction, Interface, LinkType, Packet, PacketFlags, PcapWriter, Process, Reception, Section,
    Statistics, Writer,
};

/// Nanoseconds since 1970, with a fraction that floating-point numbers do not keep.
pub(super) const START: u64 = 1_700_000_000_123_456_789;
pub(super) const SNAPLEN: u32 = 64;

/// Time, captured bytes in parts, and length on the wire.
type Sent = (u64, Vec<Vec<u8>>, u32);

/// Times, parts of the captured bytes, and lengths on the wire.
pub(super) fn packets() -> Vec<Sent> {
    let frame = |vlan: &[u8], payload: u8| {
        let udp = [0x11, 0x22, 0, 67, 0, 8 + payload, 0, 0];
        let ip = [0x45, 0, 0, 28 + payload, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let rest = [&[8, 0][..], &ip, &udp, &vec![0x61; usize::from(payload)]].concat();
        let addresses = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]].concat();
        vec![addresses, vlan.to_vec(), rest]
    };
    let mut cut = frame(&[], 200);
    cut[2].truncate(52);
    vec![
        (START, frame(&[], 5), 47),
        (START + 1, frame(&[0x81, 0, 0, 100], 6), 52),
        (START + 1_000_000_007, cut, 242),
    ]
}

pub(super) const FLAGS: [(Direction, Reception); 3] = [
    (Direction::Outbound, Reception::Unspecified),
    (Direction::Inbound, Reception::Unicast),
    (Direction::Inbound, Reception::Broadcast),
];

/// Two interfaces of one link type, so that tcpdump reads it. The last packet belongs to the second.
pub(super) fn pcapng() -> Vec<u8> {
    let mut file = Vec::new();
    let section = Section {
        hardware: Some("x86_64"),
        os: Some("Linux 6.1"),
        application: Some("sockbroker"),
        comment: Some("a section"),
    };
    let mut writer = Writer::begin(&section, &mut file).unwrap();
    let first = Interface {
        description: Some("the first"),
        filter: Some("udp port 67"),
        speed: Some(1_000_000_000),
        mac: Some([2, 0, 0, 0, 0, 1]),
        os: Some("Linux 6.1"),
        hardware: Some("veth"),
        comment: Some("an interface"),
        ..Interface::new("eth0", LinkType::ETHERNET, SNAPLEN + 4)
    };
    writer.interface(&first, &mut file).unwrap();
    let second = Interface::new("eth1", LinkType::ETHERNET, SNAPLEN + 4);
    writer.interface(&second, &mut file).unwrap();
    for (index, (time, parts, length)) in packets().into_iter().enumerate() {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let packet = Packet {
            flags: Some(PacketFlags::new(FLAGS[index].0, FLAGS[index].1)),
            dropped: if index == 1 { 7 } else { 0 },
            process: (index == 0).then_some(Process { process: 300, thread: 301 }),
            comment: (index == 2).then_some("cut off"),
            ..Packet::new(u32::from(index == 2), time, &parts, length)
        };
        writer.packet(&packet, &mut file).unwrap();
    }
    for interface in 0..2 {
        let statistics = Statistics {
            interface,
            time: START + 2_000_000_000,
            start: Some(START),
            end: Some(START + 2_000_000_000),
            received: Some(9),
            dropped: Some(7),
            accepted: Some(9),
            os_dropped: None,
            delivered: Some(2),
            comment: Some("stopped by the client"),
        };
        writer.statistics(&statistics, &mut file).unwrap();
    }
    file
}

pub(super) fn pcap() -> Vec<u8> {
    let mut file = Vec::new();
    let writer = PcapWriter::begin(LinkType::ETHERNET, SNAPLEN + 4, &mut file);
    for (time, parts, length) in packets() {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        writer.packet(time, &parts, length, &mut file).unwrap();
    }
    file
}
