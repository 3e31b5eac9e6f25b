//! Names: the resolver and the databases, outside the event loop.
//!
//! The C library's calls block and cannot be cancelled, so they run on a limited number of blocking threads.
//! The thread of a cancelled call runs to its end.

use std::ffi::CString;
use std::net::IpAddr;
use std::sync::Arc;

use sockbroker_proto::address::{Address, HostAddress};
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::databases::{self, HostEntry};
use sockbroker_sys::resolver::{self, AddressInfo, ResolverError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{OpError, OpResult};
use crate::quota::User;
use sockbroker_policy::Permit;
use sockbroker_policy::action::Resolve;

/// Resolves names in the broker's network namespace, with a limit on look-ups at a time, in all and for each user. Further
/// ones wait in order.
#[derive(Debug, Clone)]
pub struct Resolver {
    jobs: Arc<Semaphore>,
    own: Option<Arc<Semaphore>>,
}

/// The arguments of `getaddrinfo(3)`.
#[derive(Debug, Clone, Default)]
pub struct AddressQuery {
    pub host: Option<String>,
    /// A service name or a port number.
    pub service: Option<String>,
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub kind: i32,
    /// `IPPROTO_*`.
    pub proto: i32,
    /// `AI_*`.
    pub flags: i32,
}

impl Resolver {
    /// A resolver with at most `jobs` concurrent look-ups.
    pub fn new(jobs: usize) -> Self {
        Self { jobs: Arc::new(Semaphore::new(jobs)), own: None }
    }

    /// The same resolver with the limit of one user as well.
    #[must_use]
    pub fn of(&self, user: &User) -> Self {
        Self { own: Some(user.lookups.clone()), ..self.clone() }
    }

    /// Waits until a further look-up is within the limits. It is counted until the result is dropped.
    pub(crate) async fn turn(&self) -> OpResult<Turn> {
        let closed = |_| OpError::Session("the broker is shutting down");
        // The user's own limit first: a call that waits for it takes no place of others.
        let own = match &self.own {
            Some(own) => Some(own.clone().acquire_owned().await.map_err(closed)?),
            None => None,
        };
        Ok(Turn { _own: own, _all: self.jobs.clone().acquire_owned().await.map_err(closed)? })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, ResolverError> + Send + 'static,
    ) -> OpResult<T> {
        let turn = self.turn().await?;
        let job = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            job()
        });
        match job.await {
            Ok(result) => Ok(result?),
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        }
    }

    /// `getaddrinfo(3)`.
    pub async fn address_info(
        &self,
        permit: Permit<Resolve>,
        query: AddressQuery,
    ) -> OpResult<Vec<AddressInfo>> {
        let Resolve = permit.into_request();
        let host = query.host.map(|host| text(host, "host name")).transpose()?;
        let service = query.service.map(|service| text(service, "service")).transpose()?;
        let AddressQuery { family, kind, proto, flags, .. } = query;
        self.run(move || {
            let (host, service) = (host.as_deref(), service.as_deref());
            resolver::address_info(host, service, family, kind, proto, flags)
        })
        .await
    }

    /// `getnameinfo(3)`: host and service.
    pub async fn name_info(
        &self,
        permit: Permit<Resolve>,
        address: RawAddress,
        flags: i32,
    ) -> OpResult<(String, String)> {
        let Resolve = permit.into_request();
        self.run(move || resolver::name_info(&address, flags)).await
    }

    /// `gethostbyname(3)`.
    pub async fn host_by_name(&self, permit: Permit<Resolve>, name: String) -> OpResult<HostEntry> {
        let Resolve = permit.into_request();
        let name = text(name, "host name")?;
        self.run(move || databases::host_by_name(&name)).await
    }

    /// `gethostbyaddr(3)`.
    pub async fn host_by_address(
        &self,
        permit: Permit<Resolve>,
        address: IpAddr,
    ) -> OpResult<HostEntry> {
        let Resolve = permit.into_request();
        self.run(move || databases::host_by_address(address)).await
    }

    /// `getservbyname(3)`.
    pub async fn service_by_name(
        &self,
        permit: Permit<Resolve>,
        name: String,
        protocol: Option<String>,
    ) -> OpResult<u16> {
        let Resolve = permit.into_request();
        let name = text(name, "service name")?;
        let protocol = protocol.map(|protocol| text(protocol, "protocol name")).transpose()?;
        self.run(move || Ok(databases::service_by_name(&name, protocol.as_deref())))
            .await?
            .ok_or_else(|| OpError::Plain("service/proto not found".to_owned()))
    }

    /// `getservbyport(3)`, with the port in host order.
    pub async fn service_by_port(
        &self,
        permit: Permit<Resolve>,
        port: u16,
        protocol: Option<String>,
    ) -> OpResult<String> {
        let Resolve = permit.into_request();
        let protocol = protocol.map(|protocol| text(protocol, "protocol name")).transpose()?;
        self.run(move || Ok(databases::service_by_port(port, protocol.as_deref())))
            .await?
            .ok_or_else(|| OpError::Plain("port/proto not found".to_owned()))
    }

    /// `getprotobyname(3)`.
    pub async fn protocol_by_name(&self, permit: Permit<Resolve>, name: String) -> OpResult<i32> {
        let Resolve = permit.into_request();
        let name = text(name, "protocol name")?;
        self.run(move || Ok(databases::protocol_by_name(&name)))
            .await?
            .ok_or_else(|| OpError::Plain("protocol not found".to_owned()))
    }

    /// The address of a host name: the first of the family, as in CPython's `setipaddr`.
    pub async fn address(&self, permit: Permit<Resolve>, host: HostAddress) -> OpResult<Address> {
        let family = i32::from(host.family);
        let query =
            AddressQuery { host: Some(host.host.clone()), family, ..AddressQuery::default() };
        let found = self.address_info(permit, query).await?;
        as_address(&host, found.first())
    }
}

/// A look-up in progress.
#[derive(Debug)]
pub(crate) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

/// The address of the first result, with the port of the query.
pub(super) fn as_address(host: &HostAddress, first: Option<&AddressInfo>) -> OpResult<Address> {
    match first.and_then(|info| info.address.decode(0)) {
        Some(Address::Inet { host: address, .. }) => {
            Ok(Address::Inet { host: address, port: host.port })
        }
        // A zone in the host (fe80::1%eth0) is resolved and dropped: the scope of the tuple is used.
        Some(Address::Inet6 { host: address, .. }) => Ok(Address::Inet6 {
            host: address,
            port: host.port,
            flowinfo: host.flowinfo,
            scope_id: host.scope_id,
        }),
        _ => Err(OpError::Plain("address family mismatched".to_owned())),
    }
}

pub(super) fn text(value: String, what: &str) -> OpResult<CString> {
    CString::new(value)
        .map_err(|_error| OpError::value(format!("embedded null character in {what}")))
}
