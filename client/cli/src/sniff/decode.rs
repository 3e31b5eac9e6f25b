//! Describes a packet on one line, as far as its headers can be decoded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpPacketSlice, EtherType, IpFragOffset, Ipv6ExtensionSlice, LaxIpPayloadSlice, LaxNetSlice,
    LaxSlicedPacket, LinkSlice,
};

use super::text::mac;
use super::transport;

/// IPv4, ARP and IPv6, `linux/if_ether.h`.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86DD;

/// How a packet is described.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct View {
    /// Bytes of the packet that were not captured.
    pub(crate) missing: usize,
    /// Whether flags, numbers and messages are left out.
    pub(crate) brief: bool,
}

/// The two ends of an IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The ports of TCP and UDP, source first; `None` in a fragment behind the first one.
    pub(super) ports: Option<(u16, u16)>,
    /// The name of the protocol, such as `TCP`, or its number.
    pub(super) protocol: String,
}

/// Describes a packet that begins with an Ethernet header.
pub(crate) fn ethernet(data: &[u8], view: View) -> String {
    match LaxSlicedPacket::from_ethernet(data) {
        Ok(packet) => describe(&packet, view),
        Err(_short) => format!("{} bytes, too short for an Ethernet header", data.len()),
    }
}

/// Describes a packet without its link-layer header. `protocol` is the `EtherType` of that header.
pub(crate) fn payload(protocol: u16, data: &[u8], view: View) -> String {
    describe(&LaxSlicedPacket::from_ether_type(EtherType(protocol), data), view)
}

/// The ends of a packet that begins with an Ethernet header; `None` if it is not IP.
pub(super) fn ethernet_ends(data: &[u8]) -> Option<Ends> {
    LaxSlicedPacket::from_ethernet(data).ok()?.net.as_ref().and_then(Ends::of)
}

/// Like [`ethernet_ends`], without a link-layer header.
pub(super) fn payload_ends(protocol: u16, data: &[u8]) -> Option<Ends> {
    LaxSlicedPacket::from_ether_type(EtherType(protocol), data).net.as_ref().and_then(Ends::of)
}

fn describe(packet: &LaxSlicedPacket<'_>, view: View) -> String {
    let tags: Vec<_> =
        packet.vlan_ids().iter().map(|vlan| format!("vlan {} ", vlan.value())).collect();
    tags.concat()
        + &match &packet.net {
            Some(net) => network(net, view),
            None => link(packet, view),
        }
}

/// A packet that is neither IP nor ARP, or that does not have their whole header.
fn link(packet: &LaxSlicedPacket<'_>, view: View) -> String {
    let protocol = packet.ether_payload().map_or(0, |payload| payload.ether_type.0);
    let captured = packet.ether_payload().map_or(0, |payload| payload.payload.len());
    let length = captured.saturating_add(view.missing);
    let what = match protocol {
        IPV4 if view.missing > 0 => "IPv4 cut off".to_owned(),
        IPV6 if view.missing > 0 => "IPv6 cut off".to_owned(),
        ARP if view.missing > 0 => "ARP cut off".to_owned(),
        other => format!("ethertype 0x{other:04x}"),
    };
    match &packet.link {
        Some(LinkSlice::Ethernet2(header)) => {
            let (from, to) = (mac(&header.source()), mac(&header.destination()));
            format!("{from} > {to} {what} length {length}")
        }
        _ => format!("{what} length {length}"),
    }
}

/// What a packet is of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

impl Part {
    fn of(net: &LaxNetSlice<'_>) -> Self {
        let (is_fragment, offset) = match net {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                (header.is_fragmenting_payload(), header.fragments_offset().value())
            }
            LaxNetSlice::Ipv6(ip) => {
                let fragment =
                    ip.extensions().clone().into_iter().find_map(|header| match header {
                        Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment.fragment_offset()),
                        _ => None,
                    });
                (ip.is_payload_fragmented(), fragment.map_or(0, IpFragOffset::value))
            }
            LaxNetSlice::Arp(_) => (false, 0),
        };
        match (is_fragment, offset) {
            (false, _) => Self::Whole,
            (true, 0) => Self::First,
            (true, _) => Self::Later,
        }
    }
}

impl Ends {
    fn of(net: &LaxNetSlice<'_>) -> Option<Self> {
        let (source, destination): (IpAddr, IpAddr) = match net {
            LaxNetSlice::Ipv4(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            LaxNetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let payload = net.ip_payload_ref()?;
        let number = payload.ip_number;
        let first = (Part::of(net) != Part::Later).then_some(payload.payload);
        let ports = first.and_then(|bytes| transport::ports(number, bytes));
        let named = number.keyword_str().map(str::to_owned);
        let protocol = named.unwrap_or_else(|| format!("IP protocol {}", number.0));
        Some(Self { source, destination, ports, protocol })
    }

    /// Both ends as text, with their ports.
    fn text(&self) -> (String, String) {
        let end = |host: IpAddr, port: Option<u16>| match (host, port) {
            (host, None) => host.to_string(),
            (IpAddr::V4(host), Some(port)) => format!("{host}:{port}"),
            (IpAddr::V6(host), Some(port)) => format!("[{host}]:{port}"),
        };
        let (source, destination) = self.ports.unzip();
        (end(self.source, source), end(self.destination, destination))
    }
}

fn network(net: &LaxNetSlice<'_>, view: View) -> String {
    if let LaxNetSlice::Arp(packet) = net {
        return arp(packet);
    }
    let (Some(ends), Some(payload)) = (Ends::of(net), net.ip_payload_ref()) else {
        return String::new();
    };
    let (from, to) = ends.text();
    let length = payload_length(net, payload, view);
    let LaxIpPayloadSlice { ip_number, payload, .. } = payload;
    let protocol = &ends.protocol;
    let what = match Part::of(net) {
        Part::Whole => transport::describe(*ip_number, payload, length, view.brief),
        Part::First => {
            let what = transport::describe(*ip_number, payload, length, view.brief);
            what.map(|what| format!("{what} (first fragment)"))
        }
        Part::Later => Some(format!("{protocol} fragment length {length}")),
    };
    let what = what.unwrap_or_else(|| {
        let note = if payload.len() < length { " cut off" } else { "" };
        format!("{protocol}{note} length {length}")
    });
    format!("{from} > {to} {what}")
}

/// Returns the bytes after the IP headers, by the lengths in these headers: they include bytes that were not captured. A
/// header of a packet that the interface divides later can have no length.
fn payload_length(net: &LaxNetSlice<'_>, payload: &LaxIpPayloadSlice<'_>, view: View) -> usize {
    let (all, headers) = match net {
        LaxNetSlice::Ipv4(ip) => (usize::from(ip.header().total_len()), ip.header().slice().len()),
        LaxNetSlice::Ipv6(ip) => {
            (usize::from(ip.header().payload_length()), ip.extensions().slice().len())
        }
        LaxNetSlice::Arp(_) => (0, 0),
    };
    if all == 0 {
        return payload.payload.len().saturating_add(view.missing);
    }
    all.saturating_sub(headers)
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

    const WHOLE: View = View { missing: 0, brief: false };
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
        assert_eq!(ethernet(&packet, WHOLE), line);
        let loopback = Ipv6Addr::LOCALHOST.octets();
        let builder = PacketBuilder::ipv6(loopback, loopback, 64).tcp(1, 2, 7, 8).ack(9).psh();
        let mut packet = Vec::new();
        builder.write(&mut packet, b"hello").unwrap();
        let line = "[::1]:1 > [::1]:2 TCP [P.] seq 7 ack 9 win 8 length 5";
        assert_eq!(payload(0x86DD, &packet, WHOLE), line);
    }

    #[test]
    fn udp_and_icmp_echo_are_described() {
        let ip = || PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut packet = Vec::new();
        ip().udp(53, 1024).write(&mut packet, b"abc").unwrap();
        assert_eq!(ethernet(&packet, WHOLE), "10.0.0.1:53 > 10.0.0.2:1024 UDP length 3");
        let mut packet = Vec::new();
        ip().icmpv4_echo_request(7, 1).write(&mut packet, &[0; 56]).unwrap();
        assert_eq!(
            ethernet(&packet, WHOLE),
            "10.0.0.1 > 10.0.0.2 ICMP echo request id 7 seq 1 length 64"
        );
    }

    #[test]
    fn dns_and_dhcp_are_described_by_their_ports() {
        let query = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x1c\x00\x01";
        let ip = || PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let udp = |source, destination, data: &[u8]| {
            let mut packet = Vec::new();
            ip().udp(source, destination).write(&mut packet, data).unwrap();
            payload(0x0800, &packet, WHOLE)
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
            payload(0x0800, &packet, WHOLE)
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
        // The payload is cut, then the TCP header, its ports, the IP header, and the Ethernet header.
        let cut = |length: usize| {
            let view = View { missing: packet.len() - length, brief: false };
            ethernet(&packet[..length], view)
        };
        let lines = [100, 40, 36, 20, 10].map(cut);
        assert_eq!(lines[0], "10.0.0.1:1 > 10.0.0.2:2 TCP [] seq 3 win 4 length 1000");
        assert_eq!(lines[1], "10.0.0.1:1 > 10.0.0.2:2 TCP cut off length 1020");
        assert_eq!(lines[2], "10.0.0.1 > 10.0.0.2 TCP cut off length 1020");
        assert!(lines[3].ends_with("00:02 IPv4 cut off length 1040"), "{}", lines[3]);
        assert!(lines[4].contains("too short"), "{}", lines[4]);
    }

    #[test]
    fn lengths_are_those_of_the_wire() {
        let ip = || PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let cut = |packet: &[u8], length: usize| {
            let view = View { missing: packet.len() - length, brief: false };
            payload(0x0800, &packet[..length], view)
        };
        let mut ping = Vec::new();
        ip().icmpv4_echo_request(7, 1).write(&mut ping, &[0; 56]).unwrap();
        assert_eq!(cut(&ping, 82), cut(&ping, 84));
        assert!(cut(&ping, 26).ends_with("ICMP echo request cut off length 64"));
        assert!(cut(&ping, 21).ends_with("ICMP cut off length 64"));
        let mut syn = Vec::new();
        let options = [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::Noop];
        let builder = ip().tcp(1000, 80, 1, 2).syn().options(&options).unwrap();
        builder.write(&mut syn, b"").unwrap();
        // Its options are cut.
        assert_eq!(cut(&syn, 42), "10.0.0.1:1000 > 10.0.0.2:80 TCP [S] seq 1 win 2 length 0");
        // An interface that divides segments itself gets them without a length.
        let mut large = Vec::new();
        ip().tcp(1, 2, 3, 4).write(&mut large, &[0; 100]).unwrap();
        large[2..4].fill(0);
        assert!(cut(&large, 60).ends_with("TCP [] seq 3 win 4 length 100"), "{}", cut(&large, 60));
    }

    #[test]
    fn first_fragment_has_ports() {
        let mut packet = Vec::new();
        let ip = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        ip.udp(1000, 2000).write(&mut packet, &[0; 1472]).unwrap();
        // More fragments follow; the datagram has 3000 bytes.
        packet[6..8].copy_from_slice(&[0x20, 0]);
        packet[24..26].copy_from_slice(&3008u16.to_be_bytes());
        let line = "10.0.0.1:1000 > 10.0.0.2:2000 UDP length 3000 (first fragment)";
        assert_eq!(payload(0x0800, &packet, WHOLE), line);
        packet[6..8].copy_from_slice(&[0x20, 185]);
        let line = "10.0.0.1 > 10.0.0.2 UDP fragment length 1480";
        assert_eq!(payload(0x0800, &packet, WHOLE), line);
        // An extension header of IPv6: the protocol, the offset with the bit for more, and a number.
        let mut packet = Vec::new();
        let ip = PacketBuilder::ipv6([0; 16], [1; 16], 64);
        ip.udp(1000, 2000).write(&mut packet, &[0; 8]).unwrap();
        packet[5] += 8;
        packet[6] = 44;
        for (offset, end) in
            [(1, ":2000 UDP length 8 (first fragment)"), (9, " UDP fragment length 16")]
        {
            let mut fragment = packet.clone();
            fragment.splice(40..40, [17, 0, 0, offset, 0, 0, 0, 7]);
            let line = payload(0x86DD, &fragment, WHOLE);
            assert!(line.ends_with(end), "{line}");
        }
    }

    #[test]
    fn brief_lines_have_lengths_only() {
        let view = View { missing: 0, brief: true };
        let ip = || PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut packet = Vec::new();
        ip().tcp(1, 2, 3, 4).write(&mut packet, b"abc").unwrap();
        assert_eq!(payload(0x0800, &packet, view), "10.0.0.1:1 > 10.0.0.2:2 TCP length 3");
        let mut packet = Vec::new();
        ip().udp(1, 53).write(&mut packet, &[0; 12]).unwrap();
        assert_eq!(payload(0x0800, &packet, view), "10.0.0.1:1 > 10.0.0.2:53 UDP length 12");
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
                assert!(!payload(protocol, &bytes, WHOLE).contains('\n'));
                assert!(!ethernet(&bytes, WHOLE).contains('\n'));
            }
        }
    }
}
