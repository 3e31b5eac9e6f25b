//! Socket addresses that need no look-up: one variant for each family.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::family;

/// A Bluetooth device address in display order: `00:11:22:33:44:55` is `[0x00, 0x11, ...]`.
/// The kernel's `bdaddr_t` holds the reverse.
pub type BluetoothAddress = [u8; 6];

/// A socket address that needs no look-up. Integers are in host order.
#[expect(missing_docs, reason = "fields are named as in the kernel's structures and man pages")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `AF_UNSPEC`: dissolves a datagram socket's association (`connect(2)`).
    Unspecified,
    /// `AF_UNIX` without a name: an unbound socket, or the request to autobind (`unix(7)`).
    UnixUnnamed,
    /// `AF_UNIX` with a path in the file system: at most 107 bytes, no NUL.
    UnixPath(Vec<u8>),
    /// `AF_UNIX` in the abstract namespace: the name without its leading NUL, at most 107 bytes.
    UnixAbstract(Vec<u8>),
    /// `AF_INET`, `ip(7)`; `AF_RDS` has no structure of its own.
    Inet { host: Ipv4Addr, port: u16 },
    /// `AF_INET6`, `ipv6(7)`; `flowinfo` is at most 1048575.
    Inet6 { host: Ipv6Addr, port: u16, flowinfo: u32, scope_id: u32 },
    /// `AF_NETLINK`, `netlink(7)`: port id and multicast group mask.
    Netlink { pid: u32, groups: u32 },
    /// `AF_PACKET`, `packet(7)`; the hardware address has at most 8 bytes.
    Packet { ifindex: u32, protocol: u16, pkttype: u8, hatype: u16, addr: Vec<u8> },
    /// `AF_VSOCK`, `vsock(7)`.
    Vsock { cid: u32, port: u32 },
    /// `AF_TIPC` with a range of names (`TIPC_ADDR_NAMESEQ`, 1).
    TipcNameSeq { name_type: u32, lower: u32, upper: u32, scope: i8 },
    /// `AF_TIPC` with one name (`TIPC_ADDR_NAME`, 2).
    TipcName { name_type: u32, instance: u32, domain: u32, scope: i8 },
    /// `AF_TIPC` with a port identity (`TIPC_ADDR_ID`, 3).
    TipcId { node: u32, reference: u32, scope: i8 },
    /// `AF_BLUETOOTH`, `BTPROTO_L2CAP`.
    L2cap { bdaddr: BluetoothAddress, psm: u16, cid: u16, bdaddr_type: u8 },
    /// `AF_BLUETOOTH`, `BTPROTO_RFCOMM`.
    Rfcomm { bdaddr: BluetoothAddress, channel: u8 },
    /// `AF_BLUETOOTH`, `BTPROTO_HCI`.
    Hci { device: u16, channel: u16 },
    /// `AF_BLUETOOTH`, `BTPROTO_SCO`.
    Sco { bdaddr: BluetoothAddress },
    /// `AF_CAN` with `CAN_RAW` or `CAN_BCM`; index 0 is every interface.
    Can { ifindex: u32 },
    /// `AF_CAN` with `CAN_ISOTP`.
    CanIsotp { ifindex: u32, rx_id: u32, tx_id: u32 },
    /// `AF_CAN` with `CAN_J1939`.
    CanJ1939 { ifindex: u32, name: u64, pgn: u32, addr: u8 },
    /// `AF_ALG`: the type has at most 13 bytes, the name at most 63.
    Alg { alg_type: Vec<u8>, name: Vec<u8>, feat: u32, mask: u32 },
    /// `AF_QIPCRTR`.
    Qipcrtr { node: u32, port: u32 },
    /// Any family as raw bytes: what follows `sa_family` in the kernel's structure, at most 126 bytes.
    Opaque { family: u16, data: Vec<u8> },
}

/// An IPv6 address in the form of the C library's `inet_ntop`: unlike Rust's, it ends
/// IPv4-compatible addresses in dotted form (`::1.2.3.4`).
pub fn ipv6_text(address: Ipv6Addr) -> String {
    let segments = address.segments();
    let compatible = segments.iter().take(6).all(|segment| *segment == 0) && segments[6] != 0;
    match address.to_ipv4() {
        Some(ipv4) if compatible => format!("::{ipv4}"),
        _ => address.to_string(),
    }
}

impl Address {
    /// The address family, `sa_family`.
    pub fn family(&self) -> u16 {
        match self {
            Self::Unspecified => family::AF_UNSPEC,
            Self::UnixUnnamed | Self::UnixPath(_) | Self::UnixAbstract(_) => family::AF_UNIX,
            Self::Inet { .. } => family::AF_INET,
            Self::Inet6 { .. } => family::AF_INET6,
            Self::Netlink { .. } => family::AF_NETLINK,
            Self::Packet { .. } => family::AF_PACKET,
            Self::Vsock { .. } => family::AF_VSOCK,
            Self::TipcNameSeq { .. } | Self::TipcName { .. } | Self::TipcId { .. } => {
                family::AF_TIPC
            }
            Self::L2cap { .. } | Self::Rfcomm { .. } | Self::Hci { .. } | Self::Sco { .. } => {
                family::AF_BLUETOOTH
            }
            Self::Can { .. } | Self::CanIsotp { .. } | Self::CanJ1939 { .. } => family::AF_CAN,
            Self::Alg { .. } => family::AF_ALG,
            Self::Qipcrtr { .. } => family::AF_QIPCRTR,
            Self::Opaque { family, .. } => *family,
        }
    }
}
