//! `sockaddr_alg` (`linux/if_alg.h`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields, until_nul};

const TYPE_SIZE: usize = 14;
const NAME_SIZE: usize = 64;

/// Type, features, mask, name: 88 bytes, both texts with at least one NUL.
pub(super) fn encode(start: Builder, kind: &[u8], name: &[u8], feat: u32, mask: u32) -> Builder {
    start.text(kind, TYPE_SIZE).u32(feat).u32(mask).text(name, NAME_SIZE)
}

/// As the kernel's `alg_bind`, which writes a NUL at the end of either text. The kernel also accepts names that
/// extend beyond the structure; those have no JSON form.
pub(super) fn decode(mut fields: Fields<'_>) -> Option<Address> {
    let (kind, _nul) = (fields.take::<{ TYPE_SIZE - 1 }>()?, fields.u8()?);
    let (feat, mask) = (fields.u32()?, fields.u32()?);
    let (name, _nul) = (fields.take::<{ NAME_SIZE - 1 }>()?, fields.u8()?);
    let (alg_type, name) = (until_nul(&kind), until_nul(&name));
    fields.rest().is_empty().then_some(Address::Alg { alg_type, name, feat, mask })
}
