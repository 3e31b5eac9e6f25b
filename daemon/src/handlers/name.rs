//! `proto::api::name`: the resolver, and the databases of hosts, services and protocols.

use std::net::IpAddr;

use sockbroker_proto::address::{Address, AddressItem, AddressValue, family, ipv6_text};
use sockbroker_proto::api::name::{
    AddressInfo, GetaddrinfoParams, GetfqdnParams, GethostbyaddrParams, GethostbynameExParams,
    GethostbynameParams, GetnameinfoParams, GetprotobynameParams, GetservbynameParams,
    GetservbyportParams, HostEntry, NamesServer,
};
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::databases;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::parameters::{c_int, int, int_or, service};
use crate::network::host;
use crate::network::resolve::AddressQuery;
use crate::rpc::call::Call;
use sockbroker_policy::action::{Hostname, Resolve};
use sockbroker_policy::namespace::Namespace;

impl NamesServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn getaddrinfo(call: Call, params: GetaddrinfoParams) -> OpResult<Vec<AddressInfo>> {
        let GetaddrinfoParams { host, port, family, kind, proto, flags, netns } = params;
        let namespace = call.selection(netns.as_ref())?.namespace;
        let query = AddressQuery {
            host,
            service: service(port.as_ref())?,
            family: int_or(family, libc::AF_UNSPEC)?,
            kind: int_or(kind, 0)?,
            proto: int_or(proto, 0)?,
            flags: int_or(flags, 0)?,
        };
        let found = call.look_up(&namespace, query).await?;
        let infos = found.into_iter().map(|info| {
            let address = encode_resolved(info.address.decode(info.proto).as_ref());
            AddressInfo(info.family, info.kind, info.proto, info.canonical_name, address)
        });
        Ok(infos.collect())
    }

    async fn getfqdn(call: Call, params: GetfqdnParams) -> OpResult<String> {
        let GetfqdnParams { name, netns } = params;
        let namespace = call.selection(netns.as_ref())?.namespace;
        full_name(&call, &namespace, name.unwrap_or_default()).await
    }

    async fn gethostbyname(call: Call, params: GethostbynameParams) -> OpResult<String> {
        let GethostbynameParams { hostname, netns } = params;
        let namespace = call.selection(netns.as_ref())?.namespace;
        let address = ip_address(&call, &namespace, family::AF_INET, hostname).await?;
        Ok(address.to_string())
    }

    async fn gethostbyname_ex(call: Call, params: GethostbynameExParams) -> OpResult<HostEntry> {
        let GethostbynameExParams { hostname, netns } = params;
        let namespace = &call.selection(netns.as_ref())?.namespace;
        // sock_gethostbyname_ex resolves first, so that an unknown name is a gaierror.
        ip_address(&call, namespace, family::AF_INET, hostname.clone()).await?;
        let permit = call.permit_within(namespace, Resolve)?;
        let entry = match namespace {
            Namespace::Broker => call.resolver().host_by_name(permit, hostname.clone()).await?,
            Namespace::Other(_) => {
                let open = |spec| call.for_names(namespace, spec);
                call.names(namespace, &open).host_by_name(permit, &hostname).await?
            }
        };
        call.session().lookups.record(namespace, &hostname, entry.addresses.iter().map(address_of));
        Ok(host_entry(entry))
    }

    async fn gethostbyaddr(call: Call, params: GethostbyaddrParams) -> OpResult<HostEntry> {
        let GethostbyaddrParams { ip_address, netns } = params;
        let namespace = call.selection(netns.as_ref())?.namespace;
        host_by_address(&call, &namespace, ip_address).await
    }

    async fn getnameinfo(call: Call, params: GetnameinfoParams) -> OpResult<(String, String)> {
        let GetnameinfoParams { sockaddr, flags, netns } = params;
        let namespace = call.selection(netns.as_ref())?.namespace;
        name_info(&call, &namespace, &sockaddr, int(flags)?).await
    }

    async fn getprotobyname(call: Call, params: GetprotobynameParams) -> OpResult<i32> {
        let GetprotobynameParams { protocolname } = params;
        let resolver = call.resolver();
        resolver.protocol_by_name(call.permit(Resolve)?, protocolname).await
    }

    async fn getservbyname(call: Call, params: GetservbynameParams) -> OpResult<u16> {
        let GetservbynameParams { servicename, protocolname } = params;
        let resolver = call.resolver();
        resolver.service_by_name(call.permit(Resolve)?, servicename, protocolname).await
    }

    async fn getservbyport(call: Call, params: GetservbyportParams) -> OpResult<String> {
        let GetservbyportParams { port, protocolname } = params;
        let port = u16::try_from(port)
            .map_err(|_error| OpError::overflow("getservbyport: port must be 0-65535."))?;
        let resolver = call.resolver();
        resolver.service_by_port(call.permit(Resolve)?, port, protocolname).await
    }
}

/// Encodes an address of the resolver, which names no interface.
fn encode_resolved(address: Option<&Address>) -> AddressValue {
    address.map_or(AddressValue::None(()), |address| address.to_value(&|_index| String::new()))
}

/// `socket.getfqdn` of `socket.py`.
async fn full_name(call: &Call, namespace: &Namespace, name: String) -> OpResult<String> {
    let mut name = name.trim().to_owned();
    if name.is_empty() || name == "0.0.0.0" || name == "::" {
        name = host::hostname(call.permit(Hostname)?)?;
    }
    match host_by_address(call, namespace, name.clone()).await {
        Ok(HostEntry(hostname, aliases, _)) => {
            let mut names = std::iter::once(&hostname).chain(&aliases);
            Ok(names.find(|name| name.contains('.')).unwrap_or(&hostname).clone())
        }
        Err(error @ (OpError::Denied(_) | OpError::Netns { .. })) => Err(error),
        Err(_) => Ok(name),
    }
}

async fn host_by_address(call: &Call, namespace: &Namespace, name: String) -> OpResult<HostEntry> {
    let address = ip_address(call, namespace, family::AF_UNSPEC, name).await?;
    let permit = call.permit_within(namespace, Resolve)?;
    let entry = match namespace {
        Namespace::Broker => call.resolver().host_by_address(permit, address).await?,
        Namespace::Other(_) => {
            let open = |spec| call.for_names(namespace, spec);
            call.names(namespace, &open).host_by_address(permit, address).await?
        }
    };
    Ok(host_entry(entry))
}

fn host_entry(entry: databases::HostEntry) -> HostEntry {
    let addresses = entry.addresses.iter().map(ip_text).collect();
    HostEntry(entry.name, entry.aliases, addresses)
}

fn address_of(address: &IpAddr) -> Address {
    match *address {
        IpAddr::V4(host) => Address::Inet { host, port: 0 },
        IpAddr::V6(host) => Address::Inet6 { host, port: 0, flowinfo: 0, scope_id: 0 },
    }
}

fn ip_text(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => ipv6_text(*address),
    }
}

/// `setipaddr` of `socketmodule.c`: parses a literal, or returns the first address of a name.
async fn ip_address(
    call: &Call,
    namespace: &Namespace,
    family: u16,
    host: String,
) -> OpResult<IpAddr> {
    let port_zero = vec![AddressItem::Text(host.clone()), AddressItem::Number(0)];
    let literal = host.parse::<IpAddr>().ok();
    match (family, literal) {
        (family::AF_UNSPEC, Some(address)) => return Ok(address),
        (family::AF_INET, Some(address)) if address.is_ipv4() => return Ok(address),
        _ => {}
    }
    let found = if family == family::AF_UNSPEC && !host.is_empty() && host != "<broadcast>" {
        let query = AddressQuery { host: Some(host), ..AddressQuery::default() };
        let found = call.look_up(namespace, query).await?;
        found.first().and_then(|info| info.address.decode(0))
    } else {
        let spec = sockbroker_proto::socket_spec::SocketSpec {
            domain: libc::AF_INET,
            ty: libc::SOCK_STREAM,
            protocol: 0,
        };
        Some(call.address(spec, &AddressValue::Tuple(port_zero), None, Some(namespace)).await?)
    };
    match found {
        Some(Address::Inet { host, .. }) => Ok(host.into()),
        Some(Address::Inet6 { host, .. }) => Ok(host.into()),
        _ => Err(OpError::Plain("unsupported address family".to_owned())),
    }
}

/// `socket.getnameinfo`: the host must be numeric, and the length of the tuple must fit its family.
async fn name_info(
    call: &Call,
    namespace: &Namespace,
    sockaddr: &AddressValue,
    flags: i32,
) -> OpResult<(String, String)> {
    let wrong = || OpError::type_error("getnameinfo() argument 1 must be a tuple");
    let AddressValue::Tuple(items) = sockaddr else {
        return Err(wrong());
    };
    let port = items.get(1).and_then(AddressItem::integer);
    let (Some(AddressItem::Text(host)), Some(port)) = (items.first(), port) else {
        return Err(OpError::type_error("illegal sockaddr argument: [host, port, ...]"));
    };
    if items.len() > 4 {
        return Err(wrong());
    }
    // As the formats `i` and `I` of CPython: `i` checks the range, `I` takes the low bits.
    let port = c_int(i64::try_from(port).unwrap_or(if port < 0 { i64::MIN } else { i64::MAX }))?;
    let word = |namespace: usize| match items.get(namespace).map(AddressItem::integer) {
        None => Ok(0),
        Some(Some(number)) => Ok(u32::try_from(number & i128::from(u32::MAX)).unwrap_or_default()),
        Some(None) => Err(wrong()),
    };
    let flowinfo = Some(word(2)?).filter(|flowinfo| *flowinfo <= 0xf_ffff);
    let flowinfo =
        flowinfo.ok_or_else(|| OpError::overflow("getnameinfo(): flowinfo must be 0-1048575."))?;
    let scope_id = word(3)?;
    let query = AddressQuery {
        host: Some(host.clone()),
        service: Some(port.to_string()),
        kind: libc::SOCK_DGRAM,
        flags: libc::AI_NUMERICHOST,
        ..AddressQuery::default()
    };
    let found = call.look_up(namespace, query).await?;
    let [only] = found.as_slice() else {
        return Err(OpError::Plain("sockaddr resolved to multiple addresses".to_owned()));
    };
    let address = match only.address.decode(0) {
        Some(Address::Inet6 { host, port, .. }) => {
            Address::Inet6 { host, port, flowinfo, scope_id }
        }
        Some(Address::Inet { .. }) if items.len() != 2 => {
            return Err(OpError::Plain("IPv4 sockaddr must be 2 tuple".to_owned()));
        }
        Some(address) => address,
        None => return Err(wrong()),
    };
    let (permit, address) = (call.permit_within(namespace, Resolve)?, RawAddress::encode(&address));
    match namespace {
        Namespace::Broker => call.resolver().name_info(permit, address, flags).await,
        Namespace::Other(_) => {
            let open = |spec| call.for_names(namespace, spec);
            call.names(namespace, &open).name_info(permit, address, flags).await
        }
    }
}
