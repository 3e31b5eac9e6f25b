//! Writes an address as CPython's `makesockaddr` does (`Modules/socketmodule.c`).

use super::resolved::{Address, BluetoothAddress, ipv6_text};
use super::value::{AddressItem, AddressValue, BytesValue, OpaqueValue};
use crate::bytes::encode_base64;
use crate::constant::Constant;

impl Address {
    /// The JSON form. `interface_name` returns the name of an interface index; an empty name
    /// means that the interface no longer exists, as in CPython.
    pub fn to_value(&self, interface_name: &dyn Fn(u32) -> String) -> AddressValue {
        match self {
            // For a socket without a name some families return a whole struct sockaddr of zeros.
            Self::Unspecified => AddressValue::Opaque(OpaqueValue {
                family: Constant(0),
                base64: encode_base64(&[0; 14]),
            }),
            Self::UnixUnnamed => AddressValue::Text(String::new()),
            Self::UnixPath(path) => match std::str::from_utf8(path) {
                Ok(text) => AddressValue::Text(text.to_owned()),
                Err(_) => bytes(path),
            },
            Self::UnixAbstract(name) => bytes(&[b"\0", name.as_slice()].concat()),
            Self::Inet { host, port } => tuple([text(&host.to_string()), number(*port)]),
            Self::Inet6 { host, port, flowinfo, scope_id } => tuple([
                text(&ipv6_text(*host)),
                number(*port),
                number(*flowinfo),
                number(*scope_id),
            ]),
            Self::Netlink { pid, groups } => tuple([number(*pid), number(*groups)]),
            Self::Packet { ifindex, protocol, pkttype, hatype, addr } => tuple([
                text(&interface_name(*ifindex)),
                number(*protocol),
                number(*pkttype),
                number(*hatype),
                text(&encode_base64(addr)),
            ]),
            Self::Vsock { cid, port } => tuple([number(*cid), number(*port)]),
            Self::Can { .. } | Self::CanIsotp { .. } | Self::CanJ1939 { .. } => {
                self.can_value(interface_name)
            }
            Self::Alg { alg_type, name, .. } => tuple([lossy(alg_type), lossy(name)]),
            Self::Qipcrtr { node, port } => tuple([number(*node), number(*port)]),
            Self::Opaque { family, data } => AddressValue::Opaque(OpaqueValue {
                family: Constant(i64::from(*family)),
                base64: encode_base64(data),
            }),
            Self::TipcNameSeq { .. } | Self::TipcName { .. } | Self::TipcId { .. } => {
                self.tipc_value()
            }
            Self::L2cap { .. } | Self::Rfcomm { .. } | Self::Hci { .. } | Self::Sco { .. } => {
                self.bluetooth_value()
            }
        }
    }

    /// `(interface,)`, ISO-TP `(interface, rx_addr, tx_addr)`, J1939 `(interface, name, pgn, addr)`.
    fn can_value(&self, interface_name: &dyn Fn(u32) -> String) -> AddressValue {
        match self {
            Self::Can { ifindex } => tuple([text(&interface_name(*ifindex))]),
            Self::CanIsotp { ifindex, rx_id, tx_id } => {
                tuple([text(&interface_name(*ifindex)), number(*rx_id), number(*tx_id)])
            }
            Self::CanJ1939 { ifindex, name, pgn, addr } => {
                tuple([text(&interface_name(*ifindex)), wide(*name), number(*pgn), number(*addr)])
            }
            _ => AddressValue::None(()),
        }
    }

    /// `(addr_type, v1, v2, v3, scope)`.
    fn tipc_value(&self) -> AddressValue {
        let (kind, a, b, c, scope) = match *self {
            Self::TipcNameSeq { name_type, lower, upper, scope } => {
                (1u8, name_type, lower, upper, scope)
            }
            Self::TipcName { name_type, instance, domain, scope } => {
                (2, name_type, instance, domain, scope)
            }
            Self::TipcId { node, reference, scope } => (3, node, reference, 0, scope),
            _ => return AddressValue::None(()),
        };
        tuple([number(kind), number(a), number(b), number(c), number(scope)])
    }

    /// The longer form of L2CAP and HCI's channel are those of Python 3.14.
    fn bluetooth_value(&self) -> AddressValue {
        match self {
            // For a connection by service the kernel also reports the channel that it chose.
            Self::L2cap { bdaddr, psm, cid, bdaddr_type: 0 } if *cid == 0 || *psm != 0 => {
                tuple([text(&bluetooth_text(*bdaddr)), number(*psm)])
            }
            Self::L2cap { bdaddr, psm, cid, bdaddr_type } => tuple([
                text(&bluetooth_text(*bdaddr)),
                number(*psm),
                number(*cid),
                number(*bdaddr_type),
            ]),
            Self::Rfcomm { bdaddr, channel } => {
                tuple([text(&bluetooth_text(*bdaddr)), number(*channel)])
            }
            Self::Hci { device, channel: 0 } => AddressValue::Number(i64::from(*device)),
            Self::Hci { device, channel } => tuple([number(*device), number(*channel)]),
            Self::Sco { bdaddr } => AddressValue::Text(bluetooth_text(*bdaddr)),
            _ => AddressValue::None(()),
        }
    }
}

fn bluetooth_text(address: BluetoothAddress) -> String {
    address.map(|byte| format!("{byte:02X}")).join(":")
}

fn tuple<const N: usize>(items: [AddressItem; N]) -> AddressValue {
    AddressValue::Tuple(items.into())
}

fn number(value: impl Into<i64>) -> AddressItem {
    AddressItem::Number(value.into())
}

/// Integers above 2^53 are decimal text, because JSON implementations do not keep them exact.
fn wide(value: u64) -> AddressItem {
    match i64::try_from(value) {
        Ok(small) if small <= 1 << 53 => AddressItem::Number(small),
        _ => AddressItem::Text(value.to_string()),
    }
}

fn text(value: &str) -> AddressItem {
    AddressItem::Text(value.to_owned())
}

fn lossy(value: &[u8]) -> AddressItem {
    match std::str::from_utf8(value) {
        Ok(value) => text(value),
        Err(_) => AddressItem::Bytes(BytesValue { base64: encode_base64(value) }),
    }
}

fn bytes(value: &[u8]) -> AddressValue {
    AddressValue::Bytes(BytesValue { base64: encode_base64(value) })
}
