//! `sockaddr_un` (`unix(7)`): unnamed, path or abstract, which differ in length and first byte.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use sockbroker_proto::address::Address;

use super::bytes::{Builder, Fields, until_nul};

/// The size of `sun_path`. A bound path may fill it without a NUL.
const PATH_SIZE: usize = 108;

/// Only `sa_family` (unnamed: bind picks a name), a path with its NUL, or NUL and an abstract name.
pub(super) fn encode(start: Builder, address: &Address) -> Builder {
    match address {
        Address::UnixPath(path) => {
            let path = until_nul(path);
            let nul: &[u8] = if path.is_empty() || path.len() == PATH_SIZE { b"" } else { b"\0" };
            start.put(&path).put(nul)
        }
        Address::UnixAbstract(name) => start.u8(0).put(name),
        _ => start,
    }
}

/// As in CPython, a path ends at its first NUL, and an abstract name ends with the address.
pub(super) fn decode(fields: Fields<'_>) -> Option<Address> {
    let name = fields.rest();
    match name.split_first() {
        None => Some(Address::UnixUnnamed),
        Some((0, rest)) => (rest.len() < PATH_SIZE).then(|| Address::UnixAbstract(rest.to_vec())),
        Some(_) => {
            let path = until_nul(name);
            (path.len() <= PATH_SIZE).then_some(Address::UnixPath(path))
        }
    }
}
