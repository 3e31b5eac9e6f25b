//! `sockaddr_nl` (`netlink(7)`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

/// Two bytes of padding, port id, groups: 12 bytes.
pub(super) fn encode(start: Builder, pid: u32, groups: u32) -> Builder {
    start.u16(0).u32(pid).u32(groups)
}

pub(super) fn decode(mut fields: Fields<'_>) -> Option<Address> {
    fields.u16()?;
    Some(Address::Netlink { pid: fields.u32()?, groups: fields.u32()? })
}
