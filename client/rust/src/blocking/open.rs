//! Sockets that the broker makes in one call, adopted ones, and waiting for several at once.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{Broker, Socket};
use crate::address::Address;
use crate::constant::{Domain, Events, Protocol, Type};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::message::Polled;
use crate::operation;

impl Broker {
    /// A listening TCP socket with `SO_REUSEADDR`, as `socket.create_server` makes it. The family is
    /// that of the address; a host name means IPv4.
    ///
    /// # Errors
    ///
    /// Those of creating, binding and listening.
    pub fn create_server(&self, address: impl Into<Address>) -> Result<Socket> {
        self.make(operation::create_server(address.into()))
    }

    /// A TCP connection to the first address of a host that answers, as `socket.create_connection`
    /// makes it.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`], or the error of the last attempt.
    pub fn create_connection(&self, address: impl Into<Address>) -> Result<Socket> {
        self.make(operation::create_connection(address.into()))
    }

    /// Two connected sockets, as `socketpair(2)` makes them.
    pub fn socketpair(
        &self,
        domain: Domain,
        kind: Type,
        protocol: Protocol,
    ) -> Result<(Socket, Socket)> {
        let (left, right) = self.run(operation::socketpair(domain, kind, protocol))?;
        Ok((Socket::from_new(self, left), Socket::from_new(self, right)))
    }

    /// Waits until something happens in one of several sockets, as `poll(2)` does; which of them, and
    /// what. Nothing of it when the time is over; without one it waits for ever.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for more than `poll_handles` of them.
    pub fn poll(
        &self,
        sockets: &[(&Socket, Events)],
        limit: Option<Duration>,
    ) -> Result<Vec<Polled>> {
        let fds = sockets.iter().map(|(socket, events)| (socket.handle(), *events)).collect();
        let found = self.run(operation::poll(fds, limit))?;
        let place = |handle| sockets.iter().position(|(socket, _)| socket.handle() == handle);
        let polled = |(handle, events): (_, i32)| {
            Some(Polled { index: place(handle)?, events: events.into() })
        };
        Ok(found.into_iter().filter_map(polled).collect())
    }

    /// Lends a socket of one's own to the broker, which works on a copy of the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `ENOTSOCK` if it is no socket, [`Error::Descriptor`] where the connection
    /// carries none.
    pub fn adopt(&self, socket: impl Into<OwnedFd>) -> Result<Socket> {
        let socket = socket.into();
        self.make(operation::adopt(&[socket.as_fd()]))
    }
}
