//! `sockaddr_in` and `sockaddr_in6` (`ip(7)`, `ipv6(7)`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::{Ipv4Addr, Ipv6Addr};

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

/// Port (network order), address, 8 zeros: 16 bytes.
pub(super) fn encode_v4(start: Builder, host: Ipv4Addr, port: u16) -> Builder {
    start.be16(port).put(&host.octets()).pad_to(16)
}

/// Port and flow information (network order), address, scope (host order): 28 bytes.
pub(super) fn encode_v6(
    start: Builder,
    host: Ipv6Addr,
    port: u16,
    flowinfo: u32,
    scope_id: u32,
) -> Builder {
    start.be16(port).be32(flowinfo).put(&host.octets()).u32(scope_id)
}

pub(super) fn decode_v4(mut fields: Fields<'_>) -> Option<Address> {
    let port = fields.be16()?;
    let host = Ipv4Addr::from(fields.take::<4>()?);
    Some(Address::Inet { host, port })
}

/// Accepts also the 24 bytes of RFC 2133, without a scope, as the kernel does (`SIN6_LEN_RFC2133`).
pub(super) fn decode_v6(mut fields: Fields<'_>) -> Option<Address> {
    let port = fields.be16()?;
    let flowinfo = fields.be32()?;
    let host = Ipv6Addr::from(fields.take::<16>()?);
    let scope_id = fields.u32().unwrap_or(0);
    Some(Address::Inet6 { host, port, flowinfo, scope_id })
}
