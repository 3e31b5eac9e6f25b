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
    pub async fn getaddrinfo(
        &self,
        host: Option<&str>,
        port: Option<u16>,
        hints: AddressHints,
    ) -> Result<Vec<AddressInfo>> {
        self.run(operation::getaddrinfo(host, port, hints, None)).await
    }

    /// The host and the service of an address as text, like `getnameinfo(3)`. `flags` are `NI_*`, such as
    /// `NI_NUMERICHOST` (1) and `NI_NUMERICSERV` (2).
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`] with an `EAI_*` code.
    pub async fn getnameinfo(&self, address: Address, flags: i32) -> Result<(String, String)> {
        self.run(operation::getnameinfo(address, flags, None)).await
    }

    /// The fully qualified name of a host; without a name, that of the broker's host.
    pub async fn getfqdn(&self, name: Option<&str>) -> Result<String> {
        self.run(operation::getfqdn(name, None)).await
    }

    /// One IPv4 address of a host, as text.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`].
    pub async fn gethostbyname(&self, name: &str) -> Result<String> {
        self.run(operation::gethostbyname(name, None)).await
    }

    /// The names and IPv4 addresses of a host.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`].
    pub async fn gethostbyname_ex(&self, name: &str) -> Result<Host> {
        self.run(operation::gethostbyname_ex(name, None)).await
    }

    /// The names and addresses of the host with this address.
    ///
    /// # Errors
    ///
    /// [`Error::Resolver`].
    pub async fn gethostbyaddr(&self, address: &str) -> Result<Host> {
        self.run(operation::gethostbyaddr(address, None)).await
    }

    /// The number of a protocol, such as 6 for `tcp`.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] without a number if the protocol is unknown.
    pub async fn getprotobyname(&self, name: &str) -> Result<i32> {
        self.run(operation::getprotobyname(name)).await
    }

    /// The port of a service in host byte order; without a protocol, of the first one that has the service.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] without a number if the service is unknown.
    pub async fn getservbyname(&self, name: &str, protocol: Option<&str>) -> Result<u16> {
        self.run(operation::getservbyname(name, protocol)).await
    }

    /// The service at a port in host byte order; without a protocol, of the first one that has the port.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] without a number if no service is known for the port.
    pub async fn getservbyport(&self, port: u16, protocol: Option<&str>) -> Result<String> {
        self.run(operation::getservbyport(port, protocol)).await
    }

    /// The name of the broker's host.
    pub async fn gethostname(&self) -> Result<String> {
        self.run(operation::gethostname()).await
    }

    /// The index and the name of each interface.
    pub async fn if_nameindex(&self) -> Result<Vec<(u32, String)>> {
        self.run(operation::if_nameindex(None)).await
    }

    /// The index of an interface.
    pub async fn if_nametoindex(&self, name: &str) -> Result<u32> {
        self.run(operation::if_nametoindex(name, None)).await
    }

    /// The name of an interface.
    pub async fn if_indextoname(&self, index: u32) -> Result<String> {
        self.run(operation::if_indextoname(index, None)).await
    }
}
