//! What a message is made of: what of it names its source, its destination and its way.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::iter;

use sockbroker_proto::address::Address;

use sockbroker_policy::action::Send;
use sockbroker_policy::membership::{header, packet_info, route_of_extensions};
use sockbroker_policy::target::SocketName;

/// What a message is made of, as far as rules look at it.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    /// `MSG_*`.
    pub(super) flags: i32,
    /// Level, type and bytes of its ancillary data.
    pub(super) ancillary: Vec<(i32, i32, &'a [u8])>,
    /// The data; `None` where it cannot be seen.
    pub(super) data: Option<&'a [u8]>,
}

impl<'a> Contents<'a> {
    /// Data alone.
    pub(super) fn of(data: &'a [u8], flags: i32) -> Self {
        Self { flags, ancillary: Vec::new(), data: Some(data) }
    }
}

/// What one item of ancillary data names of a message's source.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) source: Option<Address>,
    pub(super) interface: u32,
}

impl Named {
    pub(super) fn of(level: i32, kind: i32, data: &[u8]) -> Option<Self> {
        packet_info(level, kind, data).map(|(source, interface)| Self { source, interface })
    }
}

/// Adds the ends that a packet's own header names. Of data that cannot be seen nobody knows them.
pub(super) fn add_header(request: &mut Send, data: Option<&[u8]>) {
    match data.map(|data| header(request.socket.domain, data)) {
        Some(Some((source, destination, route))) => {
            if !is_unspecified(&source) {
                request.locals.push(SocketName::Address(source));
            }
            let ends = iter::once(destination).chain(route);
            request.remotes.extend(ends.map(SocketName::Address));
        }
        // Too short for a header: the kernel refuses it.
        Some(None) => {}
        None => {
            request.locals.push(SocketName::Unknown);
            request.remotes.push(SocketName::Unknown);
        }
    }
}

/// Adds the hosts that data names on its way where it begins with an extension header of IPv6: its first bytes
/// are what the kernel would call the header of the socket's protocol.
pub(super) fn add_route(request: &mut Send, data: Option<&[u8]>) {
    if !request.socket.sends_extensions() {
        return;
    }
    match data {
        Some(data) => {
            let route = route_of_extensions(request.socket.protocol, data);
            request.remotes.extend(route.into_iter().map(SocketName::Address));
        }
        None => request.remotes.push(SocketName::Unknown),
    }
}

fn is_unspecified(address: &Address) -> bool {
    match address {
        Address::Inet { host, .. } => host.is_unspecified(),
        Address::Inet6 { host, .. } => host.is_unspecified(),
        _ => false,
    }
}
