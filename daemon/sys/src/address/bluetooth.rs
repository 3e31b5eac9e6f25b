//! `sockaddr_l2`, `sockaddr_rc`, `sockaddr_hci` and `sockaddr_sco` (`net/bluetooth/*.h` of Linux).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::{Address, BluetoothAddress};

use super::bytes::{Builder, Fields};

const BTPROTO_L2CAP: i32 = 0;
const BTPROTO_HCI: i32 = 1;
const BTPROTO_SCO: i32 = 2;
const BTPROTO_RFCOMM: i32 = 3;

/// The sizes include trailing padding: L2CAP 14, RFCOMM 10, HCI 6, SCO 8. PSM and CID are
/// little-endian, HCI's numbers in host order, device addresses reversed.
pub(super) fn encode(start: Builder, address: &Address) -> Builder {
    match *address {
        Address::L2cap { bdaddr, psm, cid, bdaddr_type } => {
            start.le16(psm).put(&reversed(bdaddr)).le16(cid).u8(bdaddr_type).pad_to(14)
        }
        Address::Rfcomm { bdaddr, channel } => start.put(&reversed(bdaddr)).u8(channel).pad_to(10),
        Address::Hci { device, channel } => start.u16(device).u16(channel),
        Address::Sco { bdaddr } => start.put(&reversed(bdaddr)),
        _ => start,
    }
}

pub(super) fn decode(mut fields: Fields<'_>, proto: i32) -> Option<Address> {
    match proto {
        BTPROTO_L2CAP => {
            let psm = fields.le16()?;
            let bdaddr = reversed(fields.take()?);
            Some(Address::L2cap { bdaddr, psm, cid: fields.le16()?, bdaddr_type: fields.u8()? })
        }
        BTPROTO_HCI => Some(Address::Hci { device: fields.u16()?, channel: fields.u16()? }),
        BTPROTO_SCO => Some(Address::Sco { bdaddr: reversed(fields.take()?) }),
        BTPROTO_RFCOMM => {
            let bdaddr = reversed(fields.take()?);
            Some(Address::Rfcomm { bdaddr, channel: fields.u8()? })
        }
        _ => None,
    }
}

fn reversed(mut address: BluetoothAddress) -> BluetoothAddress {
    address.reverse();
    address
}
