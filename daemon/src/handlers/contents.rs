//! The contents of a message: the addresses and interfaces that its data and its ancillary data name.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::iter;

use sockbroker_proto::address::Address;

use sockbroker_policy::action::{MessageContents, Send};
use sockbroker_policy::membership::{header, packet_info, route_of_extensions};
use sockbroker_policy::target::SocketName;

/// What a call sends.
#[derive(Debug)]
pub(super) enum Payload {
    /// A message.
    Message(MessageContents),
    /// A file. The broker does not read its contents, so netlink messages in it are unknown.
    File,
}

impl Payload {
    /// A message of one buffer, without ancillary data.
    pub(super) fn of(data: bytes::Bytes, flags: i32) -> Self {
        Self::Message(MessageContents { buffers: vec![data], ancillary: Vec::new(), flags })
    }

    /// The data in one piece; `None` for a file.
    pub(super) fn data(&self) -> Option<bytes::Bytes> {
        match self {
            Self::Message(MessageContents { buffers, .. }) => Some(match buffers.as_slice() {
                [data] => data.clone(),
                parts => parts.concat().into(),
            }),
            Self::File => None,
        }
    }

    pub(super) fn into_contents(self) -> MessageContents {
        match self {
            Self::Message(contents) => contents,
            Self::File => MessageContents::default(),
        }
    }
}

/// The sizes and flags of a receiving call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The most bytes of each message.
    pub(super) length: usize,
    /// The most bytes of ancillary data of each message.
    pub(super) ancillary: usize,
    /// `MSG_*`.
    pub(super) flags: i32,
}

/// The source address and the interface that one item of ancillary data names.
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

/// Adds the source and the destinations in the header of a packet. They are unknown for a file.
pub(super) fn add_header(request: &mut Send, data: Option<&[u8]>) {
    match data.map(|data| header(request.socket.domain, data)) {
        Some(Some((source, destination, route))) => {
            if !is_unspecified(&source) {
                request.locals.push(SocketName::Address(source));
            }
            let ends = iter::once(destination).chain(route);
            request.remotes.extend(ends.map(SocketName::Address));
        }
        // The data is too short for a header. The kernel refuses it.
        Some(None) => {}
        None => {
            request.locals.push(SocketName::Unknown);
            request.remotes.push(SocketName::Unknown);
        }
    }
}

/// Adds the hosts of a source route, where the data begins with an extension header of IPv6. The protocol of the
/// socket is the type of that header.
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
