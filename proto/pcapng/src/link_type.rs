//! What the bytes of a packet begin with.

/// A link type: the header that packets begin with (`LINKTYPE_` in <https://www.tcpdump.org/linktypes.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkType(pub u16);

impl LinkType {
    /// `LINKTYPE_ETHERNET`: an Ethernet header.
    pub const ETHERNET: Self = Self(1);
    /// `LINKTYPE_RAW`: an IPv4 or IPv6 header.
    pub const RAW: Self = Self(101);
    /// `LINKTYPE_IEEE802_11`: an IEEE 802.11 header.
    pub const IEEE802_11: Self = Self(105);
    /// `LINKTYPE_LINUX_SLL`: the header of a cooked capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// `LINKTYPE_IEEE802_11_RADIOTAP`: a radiotap header and an IEEE 802.11 header.
    pub const IEEE802_11_RADIOTAP: Self = Self(127);
    /// `LINKTYPE_CAN_SOCKETCAN`: a CAN frame.
    pub const CAN_SOCKETCAN: Self = Self(227);
    /// `LINKTYPE_NETLINK`: a netlink message behind a cooked header.
    pub const NETLINK: Self = Self(253);
    /// `LINKTYPE_LINUX_SLL2`: the header of a cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
}
