//! Calls of the resolver, of the databases of protocols and services, and about interface names.
//!
//! All of them run in the broker, with its configuration and its network. [`Broker::namespace`] is for other networks.

use super::broker::Broker;
use crate::address::Address;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::operation;
use crate::values::{AddressHints, AddressInfo, Host};

impl Broker {
    /// Resolves a host and a port, like `getaddrinfo(3)`. Without a host the result is the loopback
    /// address, or with `AI_PASSIVE` the wildcard address.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`] with an `EAI_*` code.
    pub fn getaddrinfo(
        &self,
        host: Option<&str>,
        port: Option<u16>,
        hints: AddressHints,
    ) -> Result<Vec<AddressInfo>> {
        self.run(operation::getaddrinfo(host, port, hints, None))
    }

    /// The host and the service of an address as text, like `getnameinfo(3)`. `flags` are `NI_*`, such as
    /// `NI_NUMERICHOST` (1) and `NI_NUMERICSERV` (2).
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`] with an `EAI_*` code.
    pub fn getnameinfo(&self, address: Address, flags: i32) -> Result<(String, String)> {
        self.run(operation::getnameinfo(address, flags, None))
    }

    /// The fully qualified name of a host; without a name, that of the broker's host.
    pub fn getfqdn(&self, name: Option<&str>) -> Result<String> {
        self.run(operation::getfqdn(name, None))
    }

    /// One IPv4 address of a host, as text.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`].
    pub fn gethostbyname(&self, name: &str) -> Result<String> {
        self.run(operation::gethostbyname(name, None))
    }

    /// The names and IPv4 addresses of a host.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`].
    pub fn gethostbyname_ex(&self, name: &str) -> Result<Host> {
        self.run(operation::gethostbyname_ex(name, None))
    }

    /// The names and addresses of the host with this address.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`].
    pub fn gethostbyaddr(&self, address: &str) -> Result<Host> {
        self.run(operation::gethostbyaddr(address, None))
    }

    /// The number of a protocol, such as 6 for `tcp`.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] without a number if the protocol is unknown.
    pub fn getprotobyname(&self, name: &str) -> Result<i32> {
        self.run(operation::getprotobyname(name))
    }

    /// The port of a service in host byte order; without a protocol, of the first one that has the service.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] without a number if the service is unknown.
    pub fn getservbyname(&self, name: &str, protocol: Option<&str>) -> Result<u16> {
        self.run(operation::getservbyname(name, protocol))
    }

    /// The service at a port in host byte order; without a protocol, of the first one that has the port.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] without a number if no service is known for the port.
    pub fn getservbyport(&self, port: u16, protocol: Option<&str>) -> Result<String> {
        self.run(operation::getservbyport(port, protocol))
    }

    /// The name of the broker's host.
    pub fn gethostname(&self) -> Result<String> {
        self.run(operation::gethostname())
    }

    /// The index and the name of each interface.
    pub fn if_nameindex(&self) -> Result<Vec<(u32, String)>> {
        self.run(operation::if_nameindex(None))
    }

    /// The index of an interface.
    pub fn if_nametoindex(&self, name: &str) -> Result<u32> {
        self.run(operation::if_nametoindex(name, None))
    }

    /// The name of an interface.
    pub fn if_indextoname(&self, index: u32) -> Result<String> {
        self.run(operation::if_indextoname(index, None))
    }
}
