//! Facts of the link layer that decide how a packet is printed.

use sockbroker_pcapng::{Direction, LinkType, PacketFlags, Reception};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of the headers of cooked captures, versions 1 and 2, and where the protocol stands in them.
const SLL: (usize, usize) = (16, 14);
const SLL2: (usize, usize) = (20, 0);
/// IPv4 and IPv6, `linux/if_ether.h`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

/// What the bytes of a packet begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// An Ethernet header.
    Ethernet(&'a [u8]),
    /// A payload with this `EtherType`, behind a header of the link layer that is not decoded.
    Payload(u16, &'a [u8]),
    /// A header without a decoder.
    Unknown(LinkType, &'a [u8]),
}

impl<'a> Start<'a> {
    pub(super) fn of(link_type: LinkType, data: &'a [u8]) -> Self {
        let cooked = |(length, at): (usize, usize)| {
            let protocol = data.get(at..).and_then(|rest| rest.first_chunk().copied());
            let protocol = u16::from_be_bytes(protocol.unwrap_or_default());
            Self::Payload(protocol, data.get(length..).unwrap_or_default())
        };
        match link_type {
            LinkType::ETHERNET => Self::Ethernet(data),
            LinkType::RAW => {
                let version = data.first().map(|first| first >> 4);
                Self::Payload(if version == Some(6) { IPV6 } else { IPV4 }, data)
            }
            LinkType::LINUX_SLL => cooked(SLL),
            LinkType::LINUX_SLL2 => cooked(SLL2),
            other => Self::Unknown(other, data),
        }
    }

    /// What follows the header of the link layer, if it is decoded.
    pub(super) fn payload(self) -> &'a [u8] {
        match self {
            Self::Ethernet(frame) => frame.get(ETHERNET..).unwrap_or_default(),
            Self::Payload(_, data) | Self::Unknown(_, data) => data,
        }
    }
}

/// The link types that have a name.
const NAMED: [LinkType; 8] = [
    LinkType::ETHERNET,
    LinkType::RAW,
    LinkType::IEEE802_11,
    LinkType::LINUX_SLL,
    LinkType::IEEE802_11_RADIOTAP,
    LinkType::CAN_SOCKETCAN,
    LinkType::NETLINK,
    LinkType::LINUX_SLL2,
];

/// The link type with this name; letters of either case.
pub(super) fn by_name(name: &str) -> Option<LinkType> {
    NAMED.into_iter().find(|link_type| {
        let described = describe(*link_type);
        described.split(' ').next().is_some_and(|known| known.eq_ignore_ascii_case(name))
    })
}

/// The name and the description of a link type, as `tcpdump -L` prints them.
pub(super) fn describe(link_type: LinkType) -> String {
    match link_type {
        LinkType::ETHERNET => "EN10MB (Ethernet)".to_owned(),
        LinkType::RAW => "RAW (Raw IP)".to_owned(),
        LinkType::IEEE802_11 => "IEEE802_11 (802.11)".to_owned(),
        LinkType::IEEE802_11_RADIOTAP => {
            "IEEE802_11_RADIO (802.11 plus radiotap header)".to_owned()
        }
        LinkType::CAN_SOCKETCAN => "CAN_SOCKETCAN (CAN-bus with SocketCAN headers)".to_owned(),
        LinkType::NETLINK => "NETLINK (Linux netlink)".to_owned(),
        LinkType::LINUX_SLL => "LINUX_SLL (Linux cooked v1)".to_owned(),
        LinkType::LINUX_SLL2 => "LINUX_SLL2 (Linux cooked v2)".to_owned(),
        LinkType(number) => number.to_string(),
    }
}

/// The word for the direction of a packet: that of lines, of `-Q`, and of the clients.
pub(super) fn direction(flags: PacketFlags) -> Option<&'static str> {
    match flags.direction() {
        Direction::Inbound => Some("in"),
        Direction::Outbound => Some("out"),
        Direction::Unknown => None,
    }
}

/// The word for how a packet was received.
pub(super) fn reception(flags: PacketFlags) -> Option<&'static str> {
    match flags.reception() {
        Reception::Unicast => Some("unicast"),
        Reception::Broadcast => Some("broadcast"),
        Reception::Multicast => Some("multicast"),
        Reception::Promiscuous => Some("promiscuous"),
        Reception::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_types_are_found_by_the_names_that_are_printed() {
        assert_eq!(by_name("EN10MB"), Some(LinkType::ETHERNET));
        assert_eq!(by_name("linux_sll2"), Some(LinkType::LINUX_SLL2));
        assert_eq!(by_name("Ethernet"), None);
        for link_type in NAMED {
            let described = describe(link_type);
            let (name, _) = described.split_once(" (").unwrap();
            assert_eq!(by_name(name), Some(link_type), "{described}");
        }
    }
}
