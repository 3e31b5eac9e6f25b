//! Describes a packet on one line, as far as its headers can be decoded.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpPacketSlice, EtherType, Icmpv4Slice, Icmpv6Slice, LaxNetSlice, LaxSlicedPacket, LinkSlice,
    TcpSlice, TransportSlice, UdpSlice,
};

use super::text::mac;
use super::{dhcp, dns};

/// Describes a packet that begins with an Ethernet header.
pub(crate) fn ethernet(data: &[u8]) -> String {
    match LaxSlicedPacket::from_ethernet(data) {
        Ok(packet) => describe(&packet),
        Err(_short) => format!("{} bytes, too short for an Ethernet header", data.len()),
    }
}

/// Describes a packet without its link-layer header. `protocol` is the `EtherType` of that header.
pub(crate) fn payload(protocol: u16, data: &[u8]) -> String {
    describe(&LaxSlicedPacket::from_ether_type(EtherType(protocol), data))
}

fn describe(packet: &LaxSlicedPacket<'_>) -> String {
    let tags: Vec<_> =
        packet.vlan_ids().iter().map(|vlan| format!("vlan {} ", vlan.value())).collect();
    tags.concat()
        + &match &packet.net {
            Some(net) => network(net, packet.transport.as_ref()),
            None => link(packet),
        }
}

/// A packet that is neither IP nor ARP.
fn link(packet: &LaxSlicedPacket<'_>) -> String {
    let protocol = packet.ether_payload().map_or(0, |payload| payload.ether_type.0);
    let length = packet.ether_payload().map_or(0, |payload| payload.payload.len());
    match &packet.link {
        Some(LinkSlice::Ethernet2(header)) => {
            let (from, to) = (mac(&header.source()), mac(&header.destination()));
            format!("{from} > {to} ethertype 0x{protocol:04x} length {length}")
        }
        _ => format!("ethertype 0x{protocol:04x} length {length}"),
    }
}

fn network(net: &LaxNetSlice<'_>, transport: Option<&TransportSlice<'_>>) -> String {
    let (from, to, is_v6) = match net {
        LaxNetSlice::Ipv4(ip) => (
            ip.header().source_addr().to_string(),
            ip.header().destination_addr().to_string(),
            false,
        ),
        LaxNetSlice::Ipv6(ip) => (
            ip.header().source_addr().to_string(),
            ip.header().destination_addr().to_string(),
            true,
        ),
        LaxNetSlice::Arp(packet) => return arp(packet),
    };
    let with_port = |host: &str, port: u16| {
        if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    };
    let ends = match transport {
        Some(TransportSlice::Tcp(tcp)) => {
            (with_port(&from, tcp.source_port()), with_port(&to, tcp.destination_port()))
        }
        Some(TransportSlice::Udp(udp)) => {
            (with_port(&from, udp.source_port()), with_port(&to, udp.destination_port()))
        }
        _ => (from, to),
    };
    // The length includes bytes beyond the snapshot length.
    let length = payload_length(net);
    let what = match transport {
        Some(TransportSlice::Tcp(segment)) => tcp(segment, length),
        Some(TransportSlice::Udp(datagram)) => udp(datagram),
        Some(TransportSlice::Icmpv4(message)) => icmpv4(message),
        Some(TransportSlice::Icmpv6(message)) => icmpv6(message),
        Some(TransportSlice::Igmp(_)) => "IGMP".to_owned(),
        None => other_protocol(net, length),
    };
    format!("{} > {} {what}", ends.0, ends.1)
}

/// Returns the bytes after the IP headers, by the lengths in these headers.
fn payload_length(net: &LaxNetSlice<'_>) -> usize {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            usize::from(header.total_len()).saturating_sub(header.slice().len())
        }
        LaxNetSlice::Ipv6(ip) => {
            let extensions = ip.extensions().slice().len();
            usize::from(ip.header().payload_length()).saturating_sub(extensions)
        }
        LaxNetSlice::Arp(_) => 0,
    }
}

/// Describes an IP payload that is a fragment, is truncated, or has a protocol without a decoder.
fn other_protocol(net: &LaxNetSlice<'_>, length: usize) -> String {
    let Some(payload) = net.ip_payload_ref() else { return String::new() };
    let name = payload
        .ip_number
        .keyword_str()
        .map_or_else(|| format!("IP protocol {}", payload.ip_number.0), str::to_owned);
    let note = if payload.fragmented {
        " fragment"
    } else if payload.incomplete {
        " cut off"
    } else {
        ""
    };
    format!("{name}{note} length {length}")
}

fn tcp(segment: &TcpSlice<'_>, length: usize) -> String {
    let flags = [
        (segment.syn(), 'S'),
        (segment.fin(), 'F'),
        (segment.rst(), 'R'),
        (segment.psh(), 'P'),
        (segment.urg(), 'U'),
        (segment.ack(), '.'),
    ];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    let length = length.saturating_sub(segment.header_slice().len());
    let ack = segment.ack().then(|| format!(" ack {}", segment.acknowledgment_number()));
    let (sequence, window) = (segment.sequence_number(), segment.window_size());
    let message = over_tcp(segment).map(|message| format!(" {message}"));
    let (ack, message) = (ack.unwrap_or_default(), message.unwrap_or_default());
    format!("TCP [{flags}] seq {sequence}{ack} win {window} length {length}{message}")
}

/// A message of DNS that is a whole segment, behind its length.
fn over_tcp(segment: &TcpSlice<'_>) -> Option<String> {
    let (length, message) = segment.payload().split_first_chunk::<2>()?;
    let is_dns = dns::uses(segment.source_port(), segment.destination_port())
        && usize::from(u16::from_be_bytes(*length)) == message.len();
    is_dns.then(|| dns::describe(message)).flatten()
}

fn udp(datagram: &UdpSlice<'_>) -> String {
    let (source, destination) = (datagram.source_port(), datagram.destination_port());
    let message = if dns::uses(source, destination) {
        dns::describe(datagram.payload())
    } else if dhcp::uses(source, destination) {
        dhcp::describe(datagram.payload())
    } else {
        None
    };
    let message = message.unwrap_or_else(|| "UDP".to_owned());
    format!("{message} length {}", datagram.length().saturating_sub(8))
}

fn icmpv4(message: &Icmpv4Slice<'_>) -> String {
    let (kind, code) = (message.type_u8(), message.code_u8());
    let name = match kind {
        0 => return echo("ICMP echo reply", message.bytes5to8(), message.payload().len()),
        8 => return echo("ICMP echo request", message.bytes5to8(), message.payload().len()),
        3 => "destination unreachable",
        5 => "redirect",
        11 => "time exceeded",
        _ => "type",
    };
    format!("ICMP {name} {kind}/{code}")
}

fn icmpv6(message: &Icmpv6Slice<'_>) -> String {
    let (kind, code) = (message.type_u8(), message.code_u8());
    let name = match kind {
        128 => return echo("ICMPv6 echo request", message.bytes5to8(), message.payload().len()),
        129 => return echo("ICMPv6 echo reply", message.bytes5to8(), message.payload().len()),
        1 => "destination unreachable",
        2 => "packet too big",
        3 => "time exceeded",
        133 => "router solicitation",
        134 => "router advertisement",
        135 => "neighbour solicitation",
        136 => "neighbour advertisement",
        143 => "multicast listener report",
        _ => "type",
    };
    format!("ICMPv6 {name} {kind}/{code}")
}

fn echo(name: &str, [id_high, id_low, seq_high, seq_low]: [u8; 4], length: usize) -> String {
    let id = u16::from_be_bytes([id_high, id_low]);
    let sequence = u16::from_be_bytes([seq_high, seq_low]);
    format!("{name} id {id} seq {sequence} length {length}")
}

fn arp(packet: &ArpPacketSlice<'_>) -> String {
    let (asker, asked) = (packet.sender_protocol_addr(), packet.target_protocol_addr());
    match packet.operation().0 {
        1 => format!("ARP who has {}? tell {}", ip(asked), ip(asker)),
        2 => format!("ARP {} is at {}", ip(asker), mac(packet.sender_hw_addr())),
        other => format!("ARP operation {other}"),
    }
}

fn ip(address: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(address) {
        return Ipv4Addr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(address)
        .map_or_else(|_other| mac(address), |v6| Ipv6Addr::from(v6).to_string())
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};

    use super::*;

    const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    #[test]
    fn tcp_is_described_over_ipv4_and_ipv6() {
        let builder =
            PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([127, 0, 0, 1], [127, 0, 0, 2], 64);
        let builder = builder.tcp(40000, 80, 1000, 64240).syn();
        let builder = builder.options(&[TcpOptionElement::MaximumSegmentSize(1460)]).unwrap();
        let mut packet = Vec::new();
        builder.write(&mut packet, b"").unwrap();
        let line = "127.0.0.1:40000 > 127.0.0.2:80 TCP [S] seq 1000 win 64240 length 0";
        assert_eq!(ethernet(&packet), line);
        let loopback = Ipv6Addr::LOCALHOST.octets();
        let builder = PacketBuilder::ipv6(loopback, loopback, 64).tcp(1, 2, 7, 8).ack(9).psh();
        let mut packet = Vec::new();
        builder.write(&mut packet, b"hello").unwrap();
        let line = "[::1]:1 > [::1]:2 TCP [P.] seq 7 ack 9 win 8 length 5";
        assert_eq!(payload(0x86DD, &packet), line);
    }

    #[test]
    fn udp_and_icmp_echo_are_described() {
        let ip = || PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut packet = Vec::new();
        ip().udp(53, 1024).write(&mut packet, b"abc").unwrap();
        assert_eq!(ethernet(&packet), "10.0.0.1:53 > 10.0.0.2:1024 UDP length 3");
        let mut packet = Vec::new();
        ip().icmpv4_echo_request(7, 1).write(&mut packet, &[0; 56]).unwrap();
        assert_eq!(ethernet(&packet), "10.0.0.1 > 10.0.0.2 ICMP echo request id 7 seq 1 length 56");
    }

    #[test]
    fn dns_and_dhcp_are_described_by_their_ports() {
        let query = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x1c\x00\x01";
        let ip = || PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let udp = |source, destination, data: &[u8]| {
            let mut packet = Vec::new();
            ip().udp(source, destination).write(&mut packet, data).unwrap();
            payload(0x0800, &packet)
        };
        let line = "10.0.0.1:4000 > 10.0.0.2:53 DNS 7+ AAAA? x. length 19";
        assert_eq!(udp(4000, 53, query), line);
        assert_eq!(udp(4000, 54, query), "10.0.0.1:4000 > 10.0.0.2:54 UDP length 19");
        let mut request = vec![0; 240];
        request[..3].copy_from_slice(&[1, 1, 6]);
        let line = "10.0.0.1:68 > 10.0.0.2:67 BOOTP request client 00:00:00:00:00:00 xid 0x00000000 length 240";
        assert_eq!(udp(68, 67, &request), line);
        assert_eq!(udp(68, 6700, &request), "10.0.0.1:68 > 10.0.0.2:6700 UDP length 240");
        let tcp = |data: &[u8]| {
            let mut packet = Vec::new();
            ip().tcp(4000, 53, 1, 9).psh().write(&mut packet, data).unwrap();
            payload(0x0800, &packet)
        };
        let segment = [&[0, 19][..], query].concat();
        let line = "10.0.0.1:4000 > 10.0.0.2:53 TCP [P] seq 1 win 9 length 21 DNS 7+ AAAA? x.";
        assert_eq!(tcp(&segment), line);
        // Only a part of a message.
        assert!(tcp(&segment[..20]).ends_with("length 20"));
    }

    #[test]
    fn truncated_packet_is_described_as_far_as_possible() {
        let ip = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut packet = Vec::new();
        ip.tcp(1, 2, 3, 4).write(&mut packet, &[0; 1000]).unwrap();
        // The payload is cut, then the TCP header, then the IP header, then the Ethernet header.
        let lines = [100, 40, 20, 10].map(|length| ethernet(&packet[..length]));
        assert_eq!(lines[0], "10.0.0.1:1 > 10.0.0.2:2 TCP [] seq 3 win 4 length 1000");
        assert_eq!(lines[1], "10.0.0.1 > 10.0.0.2 TCP cut off length 1020");
        assert!(lines[2].contains("ethertype 0x0800"), "{}", lines[2]);
        assert!(lines[3].contains("too short"), "{}", lines[3]);
    }

    #[test]
    fn random_bytes_do_not_panic() {
        let mut seed = 1u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_ne_bytes()[3]
        };
        for protocol in [0x0800u16, 0x86DD, 0x0806, 0x8100, 0x88CC] {
            for length in 0..200 {
                let mut bytes: Vec<u8> = (0..length).map(|_| random()).collect();
                // A matching version, so that decoding continues after the first byte.
                if let Some(first) = bytes.first_mut() {
                    *first = if protocol == 0x86DD { 0x60 } else { 0x45 };
                }
                assert!(!payload(protocol, &bytes).contains('\n'));
                assert!(!ethernet(&bytes).contains('\n'));
            }
        }
    }
}
