//! A socket of the broker with the vocabulary of `socket2` and `std::net`.

use std::fmt;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sockbroker_proto::api::option::IoctlArgument;
use sockbroker_proto::handle::Handle;

use super::Broker;
use crate::address::Address;
use crate::constant::{Domain, Flags, Protocol, Type};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::face::socket_methods;
use crate::message::{Attributes, Message};
use crate::operation::{self, NewSocket};
use crate::option::{self, OptionType, RawValue, SocketOption};
use crate::request::PayloadEncoding;

/// A socket that the broker owns, by its handle.
///
/// Calls wait as those of a native socket do, unless it is set not to. Threads may share it: a
/// receive that waits does not hold up a send.
///
/// Dropping it closes the handle without waiting for an answer: the request to close leaves at once
/// on the connection that was used last, before any later call of this thread; if the broker takes
/// nothing just then, it leaves with the next call. [`Socket::close`] waits and tells errors.
pub struct Socket {
    broker: Broker,
    handle: Handle,
    attributes: Attributes,
    /// Whether the handle is still to be closed.
    open: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attributes { domain, kind, protocol } = self.attributes;
        write!(f, "Socket({}, {domain}, {kind}, {protocol})", self.handle)
    }
}

socket_methods!(blocking Socket);

impl Socket {
    /// Makes a socket, as `socket(2)` does.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it.
    pub fn new(broker: &Broker, domain: Domain, kind: Type, protocol: Protocol) -> Result<Self> {
        broker.make(operation::socket(domain, kind, protocol))
    }

    pub(crate) fn from_new(broker: &Broker, made: NewSocket) -> Self {
        Self {
            broker: broker.clone(),
            handle: made.handle,
            attributes: made.attributes,
            open: true,
        }
    }

    /// The broker that owns it.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its handle in the session.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Family, type and protocol.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Whether this process opens the files that addresses name: those of `AF_UNIX`, where descriptors
    /// can be passed.
    pub(super) fn opens_files(&self) -> bool {
        self.attributes.domain == Domain::UNIX
            && self.payload_encoding() == PayloadEncoding::Attachments
    }

    /// How payload goes, and whether files of addresses are opened here.
    fn route(&self) -> (PayloadEncoding, bool) {
        (self.payload_encoding(), self.opens_files())
    }

    pub(crate) fn payload_encoding(&self) -> PayloadEncoding {
        self.broker.payload_encoding()
    }

    /// A stream takes as much as it likes; a datagram is sent whole or not at all.
    fn piece<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        operation::piece(self.attributes.kind, data)
    }

    /// Waits for a connection and takes it.
    pub fn accept(&self) -> Result<(Self, Address)> {
        let (made, address) = self.broker.run(operation::accept(self.handle))?;
        Ok((Self::from_new(&self.broker, made), address))
    }

    /// Connects within a time; the socket's timeout is afterwards what it was.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the time is over.
    pub fn connect_timeout(&self, address: impl Into<Address>, limit: Duration) -> Result<()> {
        let before = self.timeout()?;
        self.set_timeout(Some(limit))?;
        let result = self.connect(address);
        self.set_timeout(before)?;
        result
    }

    /// A second handle for the same socket.
    pub fn try_clone(&self) -> Result<Self> {
        self.broker.make(operation::dup(self.handle))
    }

    /// The real descriptor, close-on-exec; the handle is gone. Whoever holds it uses the socket
    /// natively, and the broker takes no further part. It is non-blocking if the socket had a
    /// timeout.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant the hand-over, [`Error::Descriptor`] where the
    /// connection carries none. The socket is closed then.
    pub fn into_owned_fd(mut self) -> Result<OwnedFd> {
        let detached = self.broker.run(operation::detach(self.handle));
        self.open = detached.is_err();
        detached
    }

    /// Closes the handle, and tells how that went.
    pub fn close(mut self) -> Result<()> {
        self.open = false;
        self.broker.run(operation::close(self.handle))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.open {
            self.broker.close_without_waiting(self.handle);
        }
    }
}
