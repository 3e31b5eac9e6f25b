//! Calls about the session and the broker, and those that create sockets.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sockbroker_proto::api::broker::BrokerInfo;
use sockbroker_proto::api::session::{LimitInfo, SessionInfo};

use super::broker::Broker;
use super::socket::Socket;
use crate::address::Address;
use crate::constant::{Domain, Events, Protocol, Type};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::operation;
use crate::values::Polled;

impl Broker {
    /// The state of this session, `session.info`.
    pub fn session(&self) -> Result<SessionInfo> {
        self.run(operation::session())
    }

    /// The identity of the broker, its confinement and its policy, `broker.info`.
    pub fn info(&self) -> Result<BrokerInfo> {
        self.run(operation::broker_info())
    }

    /// Every limit of the broker, by name.
    pub fn limits(&self) -> Result<BTreeMap<String, LimitInfo>> {
        self.run(operation::limits())
    }

    /// Every constant of Python's `socket` module on the broker's platform, by name.
    pub fn constants(&self) -> Result<BTreeMap<String, i64>> {
        self.run(operation::constants())
    }

    /// The timeout of new sockets of this session; `None` waits without limit.
    pub fn default_timeout(&self) -> Result<Option<Duration>> {
        self.run(operation::default_timeout())
    }

    /// Sets the timeout of new sockets of this session. `None` waits without limit; zero does not wait.
    pub fn set_default_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        self.run(operation::set_default_timeout(timeout))
    }

    /// Creates a listening TCP socket with `SO_REUSEADDR`, like `socket.create_server` of Python. The
    /// family is that of the address; a host name means IPv4.
    ///
    /// # Errors
    ///
    /// The errors of creating, binding and listening.
    pub fn create_server(&self, address: impl Into<Address>) -> Result<Socket> {
        Socket::create(self, operation::create_server(address.into(), None))
    }

    /// Connects by TCP to the first address of a host that accepts, like `socket.create_connection` of
    /// Python.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`], or the error of the last attempt.
    pub fn create_connection(&self, address: impl Into<Address>) -> Result<Socket> {
        Socket::create(self, operation::create_connection(address.into(), None))
    }

    /// Creates two connected sockets, like `socketpair(2)`.
    pub fn socketpair(
        &self,
        domain: Domain,
        ty: Type,
        protocol: Protocol,
    ) -> Result<(Socket, Socket)> {
        Socket::create_pair(self, operation::socketpair(domain, ty, protocol))
    }

    /// Passes a socket of this process to the broker, which uses a duplicate of the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `ENOTSOCK` if it is not a socket, [`Error::Descriptor`] if the connection cannot
    /// carry descriptors.
    pub fn adopt(&self, socket: impl Into<OwnedFd>) -> Result<Socket> {
        let socket = socket.into();
        Socket::create(self, operation::adopt(&[socket.as_fd()]))
    }

    /// Waits until one of several sockets is ready, like `poll(2)`. Returns the ready sockets; none of
    /// them when the timeout expires. Without a timeout it waits without limit.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for more sockets than the limit `poll_handles`.
    pub fn poll(
        &self,
        sockets: &[(&Socket, Events)],
        timeout: Option<Duration>,
    ) -> Result<Vec<Polled>> {
        let wanted = sockets.iter().map(|(socket, events)| (socket.handle(), *events)).collect();
        let ready = self.run(operation::poll(wanted, timeout))?;
        let index = |handle| sockets.iter().position(|(socket, _)| socket.handle() == handle);
        let polled = |(handle, events)| Some(Polled { index: index(handle)?, events });
        Ok(ready.into_iter().filter_map(polled).collect())
    }
}
