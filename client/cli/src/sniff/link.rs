//! Facts of the link layer that decide how a packet is printed and written.

use sockbroker_pcapng::{Direction, LinkType, PacketFlags, Reception};

/// The header that the packets of a capture begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkHeader {
    /// An Ethernet header.
    Ethernet,
    /// The header of a cooked capture, version 2.
    Cooked,
}

impl LinkHeader {
    pub(super) fn link_type(self) -> LinkType {
        match self {
            Self::Ethernet => LinkType::ETHERNET,
            Self::Cooked => LinkType::LINUX_SLL2,
        }
    }
}

/// The type of a packet (`sll_pkttype` of `packet(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketType {
    /// Received, for this host.
    Unicast,
    /// Received, for all hosts of the link.
    Broadcast,
    /// Received, for a multicast group.
    Multicast,
    /// For another host, captured in promiscuous mode.
    Promiscuous,
    /// Sent by this host.
    Outgoing,
}

impl PacketType {
    /// Converts `sll_pkttype`.
    pub(super) fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Broadcast,
            2 => Self::Multicast,
            3 => Self::Promiscuous,
            4 => Self::Outgoing,
            _ => Self::Unicast,
        }
    }

    pub(super) fn flags(self) -> PacketFlags {
        let inbound = |reception| PacketFlags::new(Direction::Inbound, reception);
        match self {
            Self::Unicast => inbound(Reception::Unicast),
            Self::Broadcast => inbound(Reception::Broadcast),
            Self::Multicast => inbound(Reception::Multicast),
            Self::Promiscuous => inbound(Reception::Promiscuous),
            Self::Outgoing => PacketFlags::new(Direction::Outbound, Reception::Unspecified),
        }
    }

    /// The word for `direction` in the JSON output.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Promiscuous => "promiscuous",
            Self::Outgoing => "outgoing",
        }
    }
}
