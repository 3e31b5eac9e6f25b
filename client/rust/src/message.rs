//! Messages with ancillary data, and the other results that have more than one part.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::address::Address;
use crate::constant::{Domain, Events, Flags, Protocol, Type};

/// `SOL_SOCKET`.
pub(crate) const SOL_SOCKET: i64 = 1;
/// `SCM_RIGHTS`.
pub(crate) const SCM_RIGHTS: i64 = 1;

/// A message that was received, with its ancillary data.
#[derive(Debug)]
pub struct Message {
    /// The data.
    pub data: Vec<u8>,
    /// What `recvmsg(2)` returned: more than `data` holds where [`Flags::TRUNC`] asked for the true
    /// length.
    pub length: usize,
    /// Whether this is the end of the stream. An empty datagram has no data and is no end.
    pub end: bool,
    /// What came beside the data, in order.
    pub ancillary: Vec<Ancillary>,
    /// `msg_flags`, such as [`Flags::TRUNC`].
    pub flags: Flags,
    /// The sender; [`Address::none`] where the socket tells none.
    pub address: Address,
}

/// Something that came beside data, `cmsg(3)`.
#[derive(Debug)]
pub enum Ancillary {
    /// Descriptors (`SCM_RIGHTS`), close-on-exec.
    Descriptors(Vec<OwnedFd>),
    /// Anything else.
    Data {
        /// `cmsg_level`, such as `SOL_SOCKET` (1).
        level: i32,
        /// `cmsg_type`, such as `SCM_CREDENTIALS` (2).
        kind: i32,
        /// The data in the kernel's layout and host order.
        data: Vec<u8>,
    },
}

/// Something to send beside data.
#[derive(Debug, Clone, Copy)]
pub enum OutgoingAncillary<'a> {
    /// Descriptors (`SCM_RIGHTS`): at most 253.
    Descriptors(&'a [BorrowedFd<'a>]),
    /// Anything else.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
        /// The data in the kernel's layout and host order.
        data: &'a [u8],
    },
}

/// What a socket is made of, as the broker tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The family.
    pub domain: Domain,
    /// The type, without flags.
    pub kind: Type,
    /// The protocol.
    pub protocol: Protocol,
}

/// One result of `getaddrinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInfo {
    /// What a socket for the address has to be.
    pub attributes: Attributes,
    /// The canonical name, where it was asked for.
    pub canonical_name: String,
    /// The address.
    pub address: Address,
}

/// What to look for with `getaddrinfo`; everything may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressHints {
    /// Only addresses of this family.
    pub domain: Option<Domain>,
    /// Only addresses for sockets of this type.
    pub kind: Option<Type>,
    /// Only addresses for sockets of this protocol.
    pub protocol: Option<Protocol>,
    /// `AI_*`, such as `AI_PASSIVE` (1), `AI_CANONNAME` (2), `AI_NUMERICHOST` (4).
    pub flags: i32,
}

/// A host of the resolver's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its primary name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// Its addresses, as text.
    pub addresses: Vec<String>,
}

/// A socket in which something happened, by its place among those that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polled {
    /// The place.
    pub index: usize,
    /// What happened.
    pub events: Events,
}
