//! `sockaddr_ll` (`packet(7)`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields};

/// The size of `sll_addr`. Longer hardware addresses (`InfiniBand`) extend beyond the structure.
const HARDWARE_SIZE: usize = 8;

/// Protocol (network order), index, ARP type, packet type, address length, address: 20 bytes.
pub(super) fn encode(
    start: Builder,
    ifindex: u32,
    protocol: u16,
    pkttype: u8,
    hatype: u16,
    addr: &[u8],
) -> Builder {
    let addr = addr.get(..HARDWARE_SIZE).unwrap_or(addr);
    let length = u8::try_from(addr.len()).unwrap_or(0);
    start.be16(protocol).u32(ifindex).u16(hatype).u8(pkttype).u8(length).put(addr).pad_to(20)
}

/// Truncates the hardware address to 8 bytes, which can be sent back.
pub(super) fn decode(mut fields: Fields<'_>) -> Option<Address> {
    let protocol = fields.be16()?;
    let ifindex = fields.u32()?;
    let hatype = fields.u16()?;
    let pkttype = fields.u8()?;
    let length = usize::from(fields.u8()?).min(HARDWARE_SIZE);
    let addr = fields.rest().get(..length)?.to_vec();
    Some(Address::Packet { ifindex, protocol, pkttype, hatype, addr })
}
