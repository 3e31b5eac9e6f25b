//! A socket of the broker: creating, accepting, receiving, closing.
//!
//! The other calls are in `socket_calls.rs` and `options.rs`.

use std::fmt;
use std::os::fd::OwnedFd;

use sockbroker_proto::handle::Handle;

use super::broker::Broker;
use crate::address::Address;
use crate::constant::{Domain, Flags};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::operation::{self, NewSocket, Operation};
use crate::request::PayloadEncoding;
use crate::values::SocketSpec;

/// A socket that the broker owns, by its handle.
///
/// Calls wait as those of a native socket do, unless it is non-blocking. Threads may share it: a receive
/// that waits does not delay a send.
///
/// Dropping the socket closes the handle without waiting. The request to close is sent at once on the most
/// recently used connection, before any later call of this thread; if that is not possible without
/// waiting, it is sent with the next call. [`Socket::close`] waits and returns errors.
pub struct Socket {
    broker: Broker,
    handle: Handle,
    spec: SocketSpec,
    /// Whether dropping has to close the handle.
    open: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketSpec { domain, ty, protocol } = self.spec;
        write!(f, "Socket({}, {domain}, {ty}, {protocol})", self.handle)
    }
}

impl Socket {
    fn from_new(broker: &Broker, new: NewSocket) -> Self {
        Self { broker: broker.clone(), handle: new.handle, spec: new.spec, open: true }
    }

    /// Runs an operation that creates a socket.
    pub(super) fn create(
        broker: &Broker,
        operation: impl Operation<Output = NewSocket>,
    ) -> Result<Self> {
        Ok(Self::from_new(broker, broker.run(operation)?))
    }

    /// Runs an operation that creates two sockets.
    pub(super) fn create_pair(
        broker: &Broker,
        operation: impl Operation<Output = (NewSocket, NewSocket)>,
    ) -> Result<(Self, Self)> {
        let (left, right) = broker.run(operation)?;
        Ok((Self::from_new(broker, left), Self::from_new(broker, right)))
    }

    /// The broker that owns the socket.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The handle of the socket in the session.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Address family, type and protocol.
    pub fn spec(&self) -> SocketSpec {
        self.spec
    }

    pub(super) fn payload_encoding(&self) -> PayloadEncoding {
        self.broker.payload_encoding()
    }

    /// Whether this process opens the files of addresses: for `AF_UNIX`, on connections that can pass
    /// descriptors.
    pub(super) fn opens_files(&self) -> bool {
        self.spec.domain == Domain::UNIX && self.payload_encoding() == PayloadEncoding::Attachments
    }

    /// Waits for a connection and accepts it. Returns the new socket and the address of the peer.
    pub fn accept(&self) -> Result<(Self, Address)> {
        let (new, address) = self.broker.run(operation::accept(self.handle))?;
        Ok((Self::from_new(&self.broker, new), address))
    }

    /// Receives into `buffer` with flags. Returns what `recv(2)` returns: the number of bytes, or with
    /// [`Flags::TRUNC`] the length of the datagram. See [`Socket::recv`].
    pub fn recv_with_flags(&self, buffer: &mut [u8], flags: Flags) -> Result<usize> {
        self.broker.run(operation::recv(self.handle, buffer, flags))
    }

    /// Receives into `buffer` with flags. Returns what `recvfrom(2)` returns, and the sender's address.
    /// See [`Socket::recv_with_flags`].
    pub fn recv_from_with_flags(
        &self,
        buffer: &mut [u8],
        flags: Flags,
    ) -> Result<(usize, Address)> {
        self.broker.run(operation::recv_from(self.handle, buffer, flags))
    }

    /// Passes the real descriptor, close-on-exec, and closes the handle. The caller uses the socket
    /// natively, and the broker takes no further part. Types of `std` and tokio are made from it. The
    /// socket is non-blocking if it had a timeout.
    ///
    /// # Errors
    ///
    /// The socket is closed on an error. [`Error::Denied`] if the policy does not grant the descriptor,
    /// [`Error::Descriptor`] if the connection cannot carry one.
    pub fn into_owned_fd(mut self) -> Result<OwnedFd> {
        let detached = self.broker.run(operation::detach(self.handle));
        self.open = detached.is_err();
        detached
    }

    /// Closes the handle and returns the error of closing, if there is one.
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
