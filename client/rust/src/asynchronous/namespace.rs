//! Sockets, names, interfaces and captures in other network namespaces than that of the broker.

use std::os::fd::OwnedFd;

use sockbroker_proto::api::delegation::Program;

use super::broker::Broker;
use super::capture::Capture;
use super::socket::Socket;
use crate::address::Address;
use crate::capture::CaptureRequest;
use crate::constant::{Domain, Protocol, Type};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::netns::Netns;
use crate::operation;
use crate::values::{AddressHints, AddressInfo, Host};

/// A network namespace, in which the broker makes sockets and looks up names.
///
/// Each method has the errors of the method of [`Broker`] or [`Socket`] with its name, [`Error::Denied`] if no rule with
/// `netns` grants the call, and [`Error::Os`] if the namespace does not exist. Host names are looked up by the files of
/// `/etc/netns/NAME`: for [`Netns::caller`], and without such files, an address is needed in place of a name.
#[derive(Debug, Clone)]
pub struct Namespace {
    broker: Broker,
    netns: Netns,
}

impl Broker {
    /// A network namespace other than that of the broker. No call is made.
    pub fn namespace(&self, netns: impl Into<Netns>) -> Namespace {
        Namespace { broker: self.clone(), netns: netns.into() }
    }
}

impl Namespace {
    /// Which namespace this is.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// [`Socket::new`] in this namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `EAFNOSUPPORT` for `AF_UNIX`, whose addresses do not depend on it.
    pub async fn socket(&self, domain: Domain, ty: Type, protocol: Protocol) -> Result<Socket> {
        let created = operation::socket_within(domain, ty, protocol, &self.netns);
        Socket::create(&self.broker, created).await
    }

    /// [`Broker::create_server`] in this namespace.
    pub async fn create_server(&self, address: impl Into<Address>) -> Result<Socket> {
        let created = operation::create_server(address.into(), Some(&self.netns));
        Socket::create(&self.broker, created).await
    }

    /// [`Broker::create_connection`] in this namespace.
    pub async fn create_connection(&self, address: impl Into<Address>) -> Result<Socket> {
        let created = operation::create_connection(address.into(), Some(&self.netns));
        Socket::create(&self.broker, created).await
    }

    /// [`Broker::delegate`] in this namespace.
    pub async fn delegate(
        &self,
        domain: Domain,
        ty: Type,
        protocol: Protocol,
        program: Option<Program>,
    ) -> Result<OwnedFd> {
        let netns = Some(&self.netns);
        self.broker.run(operation::delegate(domain, ty, protocol, program, netns)).await
    }

    /// [`Broker::capture`] in this namespace, which replaces that of the request.
    pub async fn capture(&self, request: CaptureRequest) -> Result<Capture> {
        let request = CaptureRequest { netns: Some(self.netns.clone()), ..request };
        self.broker.capture(&request).await
    }

    /// [`Broker::getaddrinfo`] in this namespace.
    pub async fn getaddrinfo(
        &self,
        host: Option<&str>,
        port: Option<u16>,
        hints: AddressHints,
    ) -> Result<Vec<AddressInfo>> {
        let netns = Some(&self.netns);
        self.broker.run(operation::getaddrinfo(host, port, hints, netns)).await
    }

    /// [`Broker::getnameinfo`] in this namespace.
    pub async fn getnameinfo(&self, address: Address, flags: i32) -> Result<(String, String)> {
        self.broker.run(operation::getnameinfo(address, flags, Some(&self.netns))).await
    }

    /// [`Broker::getfqdn`] in this namespace.
    pub async fn getfqdn(&self, name: Option<&str>) -> Result<String> {
        self.broker.run(operation::getfqdn(name, Some(&self.netns))).await
    }

    /// [`Broker::gethostbyname`] in this namespace.
    pub async fn gethostbyname(&self, name: &str) -> Result<String> {
        self.broker.run(operation::gethostbyname(name, Some(&self.netns))).await
    }

    /// [`Broker::gethostbyname_ex`] in this namespace.
    pub async fn gethostbyname_ex(&self, name: &str) -> Result<Host> {
        self.broker.run(operation::gethostbyname_ex(name, Some(&self.netns))).await
    }

    /// [`Broker::gethostbyaddr`] in this namespace.
    pub async fn gethostbyaddr(&self, address: &str) -> Result<Host> {
        self.broker.run(operation::gethostbyaddr(address, Some(&self.netns))).await
    }

    /// [`Broker::if_nameindex`] in this namespace.
    pub async fn if_nameindex(&self) -> Result<Vec<(u32, String)>> {
        self.broker.run(operation::if_nameindex(Some(&self.netns))).await
    }

    /// [`Broker::if_nametoindex`] in this namespace.
    pub async fn if_nametoindex(&self, name: &str) -> Result<u32> {
        self.broker.run(operation::if_nametoindex(name, Some(&self.netns))).await
    }

    /// [`Broker::if_indextoname`] in this namespace.
    pub async fn if_indextoname(&self, index: u32) -> Result<String> {
        self.broker.run(operation::if_indextoname(index, Some(&self.netns))).await
    }
}
