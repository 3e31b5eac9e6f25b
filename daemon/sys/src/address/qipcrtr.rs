//! `sockaddr_qrtr` (`linux/qrtr.h`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

/// Two bytes of padding, node, port: 12 bytes.
pub(super) fn encode(start: Builder, node: u32, port: u32) -> Builder {
    start.u16(0).u32(node).u32(port)
}

pub(super) fn decode(mut fields: Fields<'_>) -> Option<Address> {
    fields.u16()?;
    Some(Address::Qipcrtr { node: fields.u32()?, port: fields.u32()? })
}
