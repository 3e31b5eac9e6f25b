//! Results and parameters that have more than one part: messages, specifications, resolver entries.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::address::Address;
use crate::constant::{Domain, Events, Flags, Protocol, Type};

/// `SOL_SOCKET`.
pub(crate) const SOL_SOCKET: i64 = 1;
/// `SCM_RIGHTS`.
pub(crate) const SCM_RIGHTS: i64 = 1;

/// A received message with its ancillary data.
#[derive(Debug)]
pub struct Message {
    /// The data.
    pub data: Vec<u8>,
    /// What `recvmsg(2)` returned. It is more than the length of `data` if [`Flags::TRUNC`] was given and
    /// the datagram did not fit.
    pub length: usize,
    /// Whether this is the end of the stream. It is `false` for an empty datagram.
    pub end: bool,
    /// The ancillary data, in order.
    pub ancillary: Vec<Ancillary>,
    /// `msg_flags`, such as [`Flags::TRUNC`].
    pub flags: Flags,
    /// The sender; [`Address::none`] if the socket does not report one.
    pub address: Address,
}

/// An item of received ancillary data, `cmsg(3)`.
#[derive(Debug)]
pub enum Ancillary {
    /// Descriptors (`SCM_RIGHTS`), close-on-exec.
    Descriptors(Vec<OwnedFd>),
    /// An item of another type.
    Data {
        /// `cmsg_level`, such as `SOL_SOCKET` (1).
        level: i32,
        /// `cmsg_type`, such as `SCM_CREDENTIALS` (2).
        ty: i32,
        /// The data in the kernel's layout and host byte order.
        data: Vec<u8>,
    },
}

/// An item of ancillary data to send, `cmsg(3)`.
#[derive(Debug, Clone, Copy)]
pub enum OutgoingAncillary<'a> {
    /// Descriptors (`SCM_RIGHTS`): at most 253 in one message.
    Descriptors(&'a [BorrowedFd<'a>]),
    /// An item of another type.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        ty: i32,
        /// The data in the kernel's layout and host byte order.
        data: &'a [u8],
    },
}

/// Address family, type and protocol of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSpec {
    /// The address family.
    pub domain: Domain,
    /// The type, without flags.
    pub ty: Type,
    /// The protocol.
    pub protocol: Protocol,
}

impl SocketSpec {
    pub(crate) fn from_numbers(domain: i32, ty: i32, protocol: i32) -> Self {
        Self { domain: domain.into(), ty: ty.into(), protocol: protocol.into() }
    }
}

/// One result of `getaddrinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInfo {
    /// The socket to create for the address.
    pub spec: SocketSpec,
    /// The canonical name if `AI_CANONNAME` was given, otherwise empty.
    pub canonical_name: String,
    /// The address.
    pub address: Address,
}

/// Restrictions for `getaddrinfo`. The default has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressHints {
    /// Return only addresses of this family.
    pub domain: Option<Domain>,
    /// Return only addresses for sockets of this type.
    pub ty: Option<Type>,
    /// Return only addresses for sockets of this protocol.
    pub protocol: Option<Protocol>,
    /// `AI_*` flags, such as `AI_PASSIVE` (1), `AI_CANONNAME` (2), `AI_NUMERICHOST` (4).
    pub flags: i32,
}

/// An entry of the host database, `struct hostent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The official name.
    pub name: String,
    /// The alternative names.
    pub aliases: Vec<String>,
    /// The addresses, as text.
    pub addresses: Vec<String>,
}

/// A socket that is ready, as `poll` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polled {
    /// The index of the socket in the list that was given.
    pub index: usize,
    /// The events that happened.
    pub events: Events,
}
