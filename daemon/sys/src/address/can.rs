//! `sockaddr_can` (`linux/can.h`): an interface, and a union whose variant depends on the protocol.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

const CAN_ISOTP: i32 = 6;
const CAN_J1939: i32 = 7;

/// Two bytes of padding, index, union: always the whole 24 bytes.
pub(super) fn encode(start: Builder, address: &Address) -> Builder {
    let start = start.u16(0);
    let built = match *address {
        Address::CanIsotp { ifindex, rx_id, tx_id } => start.u32(ifindex).u32(rx_id).u32(tx_id),
        Address::CanJ1939 { ifindex, name, pgn, addr } => {
            start.u32(ifindex).u64(name).u32(pgn).u8(addr)
        }
        Address::Can { ifindex } => start.u32(ifindex),
        _ => start,
    };
    built.pad_to(24)
}

/// The kernel returns only the part that the protocol uses: 8 bytes for `CAN_RAW`, 16 for `CAN_ISOTP`.
pub(super) fn decode(mut fields: Fields<'_>, proto: i32) -> Option<Address> {
    fields.u16()?;
    let ifindex = fields.u32()?;
    match proto {
        CAN_ISOTP => {
            Some(Address::CanIsotp { ifindex, rx_id: fields.u32()?, tx_id: fields.u32()? })
        }
        CAN_J1939 => {
            let (name, pgn) = (fields.u64()?, fields.u32()?);
            Some(Address::CanJ1939 { ifindex, name, pgn, addr: fields.u8()? })
        }
        _ => Some(Address::Can { ifindex }),
    }
}
