//! `sockaddr_tipc` (`linux/tipc.h`): three forms of address in one union.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

const TIPC_ADDR_NAMESEQ: u8 = 1;
const TIPC_ADDR_NAME: u8 = 2;
const TIPC_ADDR_ID: u8 = 3;

/// Kind, scope, then 12 bytes: type, lower, upper; or type, instance, domain; or reference, node.
pub(super) fn encode(start: Builder, address: &Address) -> Builder {
    let (kind, scope, words) = match *address {
        Address::TipcNameSeq { name_type, lower, upper, scope } => {
            (TIPC_ADDR_NAMESEQ, scope, [name_type, lower, upper])
        }
        Address::TipcName { name_type, instance, domain, scope } => {
            (TIPC_ADDR_NAME, scope, [name_type, instance, domain])
        }
        Address::TipcId { node, reference, scope } => (TIPC_ADDR_ID, scope, [reference, node, 0]),
        _ => return start,
    };
    let [a, b, c] = words;
    start.u8(kind).put(&scope.to_ne_bytes()).u32(a).u32(b).u32(c)
}

pub(super) fn decode(mut fields: Fields<'_>) -> Option<Address> {
    let kind = fields.u8()?;
    let scope = fields.take().map(i8::from_ne_bytes)?;
    let (a, b, c) = (fields.u32()?, fields.u32()?, fields.u32()?);
    match kind {
        TIPC_ADDR_NAMESEQ => Some(Address::TipcNameSeq { name_type: a, lower: b, upper: c, scope }),
        TIPC_ADDR_NAME => Some(Address::TipcName { name_type: a, instance: b, domain: c, scope }),
        TIPC_ADDR_ID => Some(Address::TipcId { node: b, reference: a, scope }),
        _ => None,
    }
}
