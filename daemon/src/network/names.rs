//! Names in a network namespace with a name: `/etc/netns/NAME/hosts` first, then the servers of
//! `/etc/netns/NAME/resolv.conf`, as a program does that `ip netns exec NAME` starts. No name service of the machine is asked,
//! because it would answer from the broker's own network.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sockbroker_policy::Permit;
use sockbroker_policy::action::Resolve;
use sockbroker_policy::namespace::{Namespace, Other};
use sockbroker_proto::address::{Address, HostAddress};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::databases::HostEntry;
use sockbroker_sys::resolver::{self, AddressInfo, ResolverError};
use tokio::task::spawn_blocking;

use crate::error::netns::Reason;
use crate::error::{OpError, OpResult};
use crate::network::name_files::{Host, HostsFile, ResolverFile};
use crate::network::other_namespace;
use crate::network::resolve::{AddressQuery, Resolver, as_address, text};
use crate::network::stub::{Families, Missing, Open, Stub};

/// `h_errno` of `netdb.h`.
const HOST_NOT_FOUND: i32 = 1;

/// Resolves names in another network namespace than the broker's own.
pub(crate) struct Names<'a> {
    pub(crate) resolver: &'a Resolver,
    pub(crate) namespace: &'a Namespace,
    /// The folder of the files of namespaces.
    pub(crate) folder: &'a Path,
    /// Makes the sockets on which servers are asked.
    pub(crate) open: &'a Open<'a>,
}

/// The files of the namespace.
struct Files {
    hosts: HostsFile,
    /// The servers, or the path of the file that names none or does not exist.
    servers: Result<ResolverFile, PathBuf>,
}

/// A host that is not found.
struct Unanswered {
    missing: Missing,
    /// The servers that were asked, and the namespace.
    asked: String,
}

impl From<Missing> for Unanswered {
    fn from(missing: Missing) -> Self {
        Self { missing, asked: String::new() }
    }
}

impl Names<'_> {
    /// `getaddrinfo(3)`. Only names of hosts are looked up in the namespace: the rest is the same everywhere.
    pub(crate) async fn address_info(
        &self,
        permit: Permit<Resolve>,
        query: AddressQuery,
    ) -> OpResult<Vec<AddressInfo>> {
        let Resolve = permit.into_request();
        let _turn = self.resolver.turn().await?;
        let by_number = match numeric(query.clone()).await {
            Err(ResolverError::Gai(libc::EAI_NONAME)) => None,
            result => Some(result?),
        };
        let name = query.host.as_deref().filter(|host| !host.is_empty());
        let is_name = query.flags & libc::AI_NUMERICHOST == 0;
        let (Some(name), None) = (name.filter(|_| is_name), &by_number) else {
            return by_number.ok_or(ResolverError::Gai(libc::EAI_NONAME).into());
        };
        let families = Families {
            inet: [libc::AF_UNSPEC, libc::AF_INET].contains(&query.family),
            inet6: [libc::AF_UNSPEC, libc::AF_INET6].contains(&query.family),
        };
        let found = self.host(name, families).await?.map_err(|without| match without.missing {
            Missing::Name => OpError::Gai(libc::EAI_NONAME),
            Missing::Data => OpError::Gai(libc::EAI_NODATA),
            Missing::Server => OpError::NameServers { of_host: false, asked: without.asked },
        })?;
        let mut infos = Vec::new();
        for address in found.addresses {
            let host = Some(address.to_string());
            let flags = query.flags & !(libc::AI_CANONNAME | libc::AI_ADDRCONFIG);
            infos.extend(numeric(AddressQuery { host, flags, ..query.clone() }).await?);
        }
        if query.flags & libc::AI_CANONNAME != 0
            && let Some(first) = infos.first_mut()
        {
            first.canonical_name = found.name;
        }
        Ok(infos)
    }

    /// The address of a host name, as [`Resolver::address`].
    pub(crate) async fn address(
        &self,
        permit: Permit<Resolve>,
        host: HostAddress,
    ) -> OpResult<Address> {
        let family = i32::from(host.family);
        let query =
            AddressQuery { host: Some(host.host.clone()), family, ..AddressQuery::default() };
        let found = self.address_info(permit, query).await?;
        as_address(&host, found.first())
    }

    /// `gethostbyname(3)`.
    pub(crate) async fn host_by_name(
        &self,
        permit: Permit<Resolve>,
        name: &str,
    ) -> OpResult<HostEntry> {
        let Resolve = permit.into_request();
        let _turn = self.resolver.turn().await?;
        let families = Families { inet: true, inet6: false };
        let found = match name.parse::<IpAddr>() {
            Ok(address) => {
                Ok(Host { name: name.to_owned(), addresses: vec![address], ..Host::default() })
            }
            Err(_) => self.host(name, families).await?,
        };
        let Host { name, aliases, addresses } = found.map_err(not_found)?;
        Ok(HostEntry { name, aliases, addresses })
    }

    /// `gethostbyaddr(3)`.
    pub(crate) async fn host_by_address(
        &self,
        permit: Permit<Resolve>,
        address: IpAddr,
    ) -> OpResult<HostEntry> {
        let Resolve = permit.into_request();
        let _turn = self.resolver.turn().await?;
        let found = self.reverse(address).await?.map_err(not_found)?;
        Ok(HostEntry { name: found.name, aliases: found.aliases, addresses: vec![address] })
    }

    /// `getnameinfo(3)`.
    pub(crate) async fn name_info(
        &self,
        permit: Permit<Resolve>,
        address: RawAddress,
        flags: i32,
    ) -> OpResult<(String, String)> {
        let Resolve = permit.into_request();
        let _turn = self.resolver.turn().await?;
        let ip = match address.decode(0) {
            Some(Address::Inet { host, .. }) => Some(IpAddr::V4(host)),
            Some(Address::Inet6 { host, .. }) => Some(IpAddr::V6(host)),
            _ => None,
        };
        let numeric = move || {
            resolver::name_info(&address, flags & !libc::NI_NAMEREQD | libc::NI_NUMERICHOST)
        };
        let (host, service) = blocking(numeric).await?;
        if flags & libc::NI_NUMERICHOST != 0 {
            return Ok((host, service));
        }
        let found = match ip {
            Some(ip) => self.reverse(ip).await?,
            None => Err(Missing::Name.into()),
        };
        match found {
            Ok(found) => Ok((found.name, service)),
            Err(Unanswered { missing: Missing::Server, asked })
                if flags & libc::NI_NAMEREQD != 0 =>
            {
                Err(OpError::NameServers { of_host: false, asked })
            }
            Err(_) if flags & libc::NI_NAMEREQD != 0 => {
                Err(ResolverError::Gai(libc::EAI_NONAME).into())
            }
            Err(_) => Ok((host, service)),
        }
    }

    async fn host(&self, name: &str, families: Families) -> OpResult<Result<Host, Unanswered>> {
        let files = self.files().await?;
        let is_wanted = |address: &IpAddr| {
            if address.is_ipv4() { families.inet } else { families.inet6 }
        };
        if let Some(mut host) = files.hosts.by_name(name) {
            host.addresses.retain(is_wanted);
            let is_empty = host.addresses.is_empty();
            return Ok(if is_empty { Err(Missing::Data.into()) } else { Ok(host) });
        }
        let file = &self.servers(files)?;
        let found = Stub { file, open: self.open }.by_name(name, families).await?;
        let found = found.map_err(|missing| self.unanswered(missing, file));
        Ok(found.map(|host| self.ordered(host)))
    }

    fn servers(&self, files: Files) -> OpResult<ResolverFile> {
        files.servers.map_err(|path| self.error(Reason::NoServers(path)))
    }

    fn unanswered(&self, missing: Missing, file: &ResolverFile) -> Unanswered {
        let servers: Vec<_> = file.servers.iter().map(|server| server.ip().to_string()).collect();
        let namespace = self.namespace.words().unwrap_or_default();
        Unanswered { missing, asked: format!("{} {namespace}", servers.join(", ")) }
    }

    /// Puts IPv6 addresses last if there is no route to the first of them (RFC 6724, rule 1).
    fn ordered(&self, mut host: Host) -> Host {
        let first = host.addresses.first().filter(|address| address.is_ipv6());
        let is_reached = |address: IpAddr| {
            let spec = SocketSpec { domain: libc::AF_INET6, ty: libc::SOCK_DGRAM, protocol: 0 };
            let socket: Result<OwnedFd, _> = (self.open)(spec);
            let socket = socket.map(std::net::UdpSocket::from);
            socket.is_ok_and(|socket| socket.connect(SocketAddr::new(address, 53)).is_ok())
        };
        if first.is_some_and(|address| !is_reached(*address)) {
            host.addresses.sort_by_key(IpAddr::is_ipv6);
        }
        host
    }

    async fn reverse(&self, address: IpAddr) -> OpResult<Result<Host, Unanswered>> {
        let files = self.files().await?;
        if let Some(host) = files.hosts.by_address(address) {
            return Ok(Ok(host));
        }
        let file = &self.servers(files)?;
        let found = Stub { file, open: self.open }.by_address(address).await?;
        let found = found.map_err(|missing| self.unanswered(missing, file));
        Ok(found.map(|name| Host { name, aliases: Vec::new(), addresses: vec![address] }))
    }

    /// Reads the files for each look-up: they are short.
    async fn files(&self) -> OpResult<Files> {
        let Namespace::Other(Other { name: Some(name), .. }) = self.namespace else {
            return Err(self.error(Reason::HostName));
        };
        let (folder, name): (PathBuf, Arc<str>) = (self.folder.to_owned(), name.clone());
        let read = move || -> Result<Files, (PathBuf, io::Error)> {
            let folder = folder.join(&*name);
            let path = folder.join("hosts");
            let hosts = HostsFile::read(&path).map_err(|error| (path, error))?;
            let path = folder.join("resolv.conf");
            let servers = match ResolverFile::read(&path) {
                Ok(file) if !file.servers.is_empty() => Ok(file),
                Ok(_) => Err(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(path),
                Err(error) => return Err((path, error)),
            };
            Ok(Files { hosts, servers })
        };
        match spawn_blocking(read).await {
            Ok(files) => files.map_err(|(path, error)| {
                self.error(Reason::Files(path, error.raw_os_error().unwrap_or(libc::EIO)))
            }),
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        }
    }

    fn error(&self, reason: Reason) -> OpError {
        other_namespace::error("getaddrinfo", self.namespace, reason)
    }
}

fn not_found(without: Unanswered) -> OpError {
    match without.missing {
        Missing::Name | Missing::Data => OpError::Host(HOST_NOT_FOUND),
        Missing::Server => OpError::NameServers { of_host: true, asked: without.asked },
    }
}

/// `getaddrinfo(3)` for numbers, which asks no name service but that of services.
async fn numeric(query: AddressQuery) -> Result<Vec<AddressInfo>, ResolverError> {
    let AddressQuery { host, service, family, kind, proto, flags } = query;
    let c_text = |value: Option<String>, what| value.map(|value| text(value, what)).transpose();
    let (host, service): (Option<CString>, Option<CString>) =
        match (c_text(host, "host name"), c_text(service, "service")) {
            (Ok(host), Ok(service)) => (host, service),
            _ => return Err(ResolverError::System(io::ErrorKind::InvalidInput.into())),
        };
    let flags = flags & !libc::AI_ADDRCONFIG | libc::AI_NUMERICHOST;
    blocking(move || {
        resolver::address_info(host.as_deref(), service.as_deref(), family, kind, proto, flags)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ResolverError> + Send + 'static,
) -> Result<T, ResolverError> {
    match spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
    }
}
