//! What a message is made of: what of it names its source, its destination and its way.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::iter;

use sockbroker_proto::address::Address;

use sockbroker_policy::action::{MessageContents, Send};
use sockbroker_policy::membership::{header, packet_info, route_of_extensions};
use sockbroker_policy::target::SocketName;

/// What is sent.
#[derive(Debug)]
pub(super) enum Payload {
    /// A message.
    Message(MessageContents),
    /// A file, whose contents nobody sees: netlink messages in it are unknown.
    File,
}

impl Payload {
    /// Data alone.
    pub(super) fn of(data: bytes::Bytes, flags: i32) -> Self {
        Self::Message(MessageContents { buffers: vec![data], ancillary: Vec::new(), flags })
    }

    /// The data in one piece, where it can be seen.
    pub(super) fn data(&self) -> Option<bytes::Bytes> {
        match self {
            Self::Message(MessageContents { buffers, .. }) => Some(match buffers.as_slice() {
                [data] => data.clone(),
                parts => parts.concat().into(),
            }),
            Self::File => None,
        }
    }

    /// What the request carries of it.
    pub(super) fn into_contents(self) -> MessageContents {
        match self {
            Self::Message(contents) => contents,
            Self::File => MessageContents::default(),
        }
    }
}

/// What a receiving call asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The most bytes of each message.
    pub(super) length: usize,
    /// The most bytes of its ancillary data.
    pub(super) ancillary: usize,
    /// `MSG_*`.
    pub(super) flags: i32,
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
