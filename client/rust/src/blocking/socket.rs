//! A socket of the broker with the vocabulary of `socket2` and `std::net`.

use std::fmt;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sockbroker_proto::handle::Handle;

use super::Broker;
use crate::address::Address;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::kind::{Domain, Protocol, Type};
use crate::message::Attributes;
use crate::operation::{self, Made};
use crate::option::{OptionType, RawValue, SocketOption};

/// The longest queue of connections that wait to be accepted, unless one says otherwise.
const BACKLOG: i32 = 128;

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

impl Socket {
    /// Makes a socket, as `socket(2)` does.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it.
    pub fn new(broker: &Broker, domain: Domain, kind: Type, protocol: Protocol) -> Result<Self> {
        broker.make(operation::socket(domain, kind, protocol))
    }

    pub(crate) fn from_made(broker: &Broker, made: Made) -> Self {
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

    /// Gives it a local address; a host name is looked up by the broker.
    pub fn bind(&self, address: impl Into<Address>) -> Result<()> {
        self.broker.run(operation::bind(self.handle, &address.into()))
    }

    /// Lets it accept connections; `backlog` of them may wait.
    pub fn listen(&self, backlog: i32) -> Result<()> {
        self.broker.run(operation::listen(self.handle, backlog))
    }

    /// Lets it accept connections, with the usual backlog of 128.
    pub fn listen_usually(&self) -> Result<()> {
        self.listen(BACKLOG)
    }

    /// Waits for a connection and takes it.
    pub fn accept(&self) -> Result<(Self, Address)> {
        let (made, address) = self.broker.run(operation::accept(self.handle))?;
        Ok((Self::from_made(&self.broker, made), address))
    }

    /// Connects, and waits until the connection stands.
    pub fn connect(&self, address: impl Into<Address>) -> Result<()> {
        self.broker.run(operation::connect(self.handle, &address.into()))
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

    /// Ends one direction, or both.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.broker.run(operation::shutdown(self.handle, operation::how(how)))
    }

    /// The local address.
    pub fn local_addr(&self) -> Result<Address> {
        self.broker.run(operation::local_addr(self.handle))
    }

    /// The address of the peer.
    pub fn peer_addr(&self) -> Result<Address> {
        self.broker.run(operation::peer_addr(self.handle))
    }

    /// Sets an option of [`crate::option`]. It takes effect after all that was sent before it.
    pub fn set_option<T: OptionType>(&self, option: SocketOption<T>, value: T) -> Result<()> {
        self.set_option_raw(option.level(), option.number(), value.into_raw())
    }

    /// Reads an option of [`crate::option`].
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if its value is of another type.
    pub fn option<T: OptionType>(&self, option: SocketOption<T>) -> Result<T> {
        self.broker.run(operation::typed_option(self.handle, option))
    }

    /// Sets any option.
    pub fn set_option_raw(&self, level: i32, number: i32, value: RawValue) -> Result<()> {
        self.broker.run(operation::set_option(self.handle, level, number, value))
    }

    /// Reads any option: an integer, or with a `length` (1 to 1024) at most so many bytes.
    pub fn option_raw(&self, level: i32, number: i32, length: Option<u32>) -> Result<RawValue> {
        self.broker.run(operation::option(self.handle, level, number, length))
    }

    /// Sets whether calls fail with `WouldBlock` rather than wait. `false` lets them wait for ever.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.set_timeout(nonblocking.then_some(Duration::ZERO))
    }

    /// Sets how long a call may wait, in the broker, before it fails with [`Error::Timeout`]: `None`
    /// for ever, zero not at all (`WouldBlock`).
    pub fn set_timeout(&self, limit: Option<Duration>) -> Result<()> {
        self.broker.run(operation::set_timeout(self.handle, limit))
    }

    /// How long a call may wait.
    pub fn timeout(&self) -> Result<Option<Duration>> {
        self.broker.run(operation::timeout(self.handle))
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

    /// A descriptor of the socket, close-on-exec; the handle stays.
    ///
    /// # Errors
    ///
    /// As for [`Socket::into_owned_fd`].
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.broker.run(operation::fileno(self.handle))
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
