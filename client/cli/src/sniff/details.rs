//! The headers of a packet in detail, for `-e` and `-v`.

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket};

use super::link::Start;
use super::text::mac;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// The header of the link layer, as `tcpdump -e` prints it. `None` if it is not decoded.
pub(super) fn link(start: Start<'_>, length: u32) -> Option<String> {
    let (addresses, protocol) = match start {
        Start::Ethernet(frame) => {
            let header = frame.first_chunk::<ETHERNET>()?;
            let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, p0, p1] = *header;
            let (to, from) = (mac(&[d0, d1, d2, d3, d4, d5]), mac(&[s0, s1, s2, s3, s4, s5]));
            (format!("{from} > {to}, "), u16::from_be_bytes([p0, p1]))
        }
        Start::Payload(protocol, _) => (String::new(), protocol),
        Start::Unknown(..) => return None,
    };
    let name = match protocol {
        0x0800 => "IPv4",
        0x0806 => "ARP",
        0x86DD => "IPv6",
        0x8100 => "802.1Q",
        0x88A8 => "802.1Q-QinQ",
        _ => "Unknown",
    };
    Some(format!("{addresses}ethertype {name} (0x{protocol:04x}), length {length}: "))
}

/// The header of the network layer. `None` if it is not IP.
pub(super) fn network(start: Start<'_>) -> Option<String> {
    let packet = match start {
        Start::Ethernet(frame) => LaxSlicedPacket::from_ethernet(frame).ok()?,
        Start::Payload(protocol, payload) => {
            LaxSlicedPacket::from_ether_type(EtherType(protocol), payload)
        }
        Start::Unknown(..) => return None,
    };
    match packet.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let flags = match (header.dont_fragment(), header.more_fragments()) {
                (true, true) => "DF, MF",
                (true, false) => "DF",
                (false, true) => "MF",
                (false, false) => "none",
            };
            // The first byte behind the version and the length.
            let service = header.dcp().value() << 2 | header.ecn().value();
            Some(format!(
                " (tos 0x{service:x}, ttl {}, id {}, offset {}, flags [{flags}], length {})",
                header.ttl(),
                header.identification(),
                u32::from(header.fragments_offset().value()) * 8,
                header.total_len(),
            ))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some(format!(
                " (hop limit {}, flow label 0x{:05x}, payload length {})",
                header.hop_limit(),
                header.flow_label().value(),
                header.payload_length(),
            ))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use sockbroker_pcapng::LinkType;

    use super::*;

    #[test]
    fn headers_of_ethernet_and_ip_are_described() {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(53, 1024)
            .write(&mut packet, b"abc")
            .unwrap();
        let start = Start::of(LinkType::ETHERNET, &packet);
        assert_eq!(
            link(start, 45).unwrap(),
            "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype IPv4 (0x0800), length 45: "
        );
        let ip = network(start).unwrap();
        assert_eq!(ip, " (tos 0x0, ttl 64, id 0, offset 0, flags [DF], length 31)");
        let raw = Start::of(LinkType::RAW, &packet[14..]);
        assert_eq!(link(raw, 31).unwrap(), "ethertype IPv4 (0x0800), length 31: ");
        assert_eq!(network(raw).unwrap(), ip);
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0; 16], [1; 16], 7).udp(1, 2).write(&mut packet, b"").unwrap();
        let raw = Start::of(LinkType::RAW, &packet);
        assert_eq!(network(raw).unwrap(), " (hop limit 7, flow label 0x00000, payload length 8)");
        for unknown in [Start::of(LinkType(147), &packet), Start::of(LinkType::ETHERNET, &[1; 13])]
        {
            assert_eq!((link(unknown, 1), network(unknown)), (None, None));
        }
    }
}
