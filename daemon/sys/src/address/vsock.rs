//! `sockaddr_vm` (`vsock(7)`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

/// Two reserved bytes, port, context id, flags and padding: 16 bytes.
pub(super) fn encode(start: Builder, cid: u32, port: u32) -> Builder {
    start.u16(0).u32(port).u32(cid).pad_to(16)
}

pub(super) fn decode(mut fields: Fields<'_>) -> Option<Address> {
    fields.u16()?;
    let port = fields.u32()?;
    let cid = fields.u32()?;
    Some(Address::Vsock { cid, port })
}
