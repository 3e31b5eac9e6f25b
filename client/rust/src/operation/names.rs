//! The resolver, the databases of protocols and services, and interface names.

use sockbroker_proto::api::name::{AddressInfo as WireAddressInfo, HostEntry};

use super::call::{Call, Operation, json};
use crate::address::Address;
use crate::error::Result;
use crate::netns::Netns;
use crate::values::{AddressHints, AddressInfo, Host, SocketSpec};
use crate::wire::response::Response;

pub(crate) fn getaddrinfo(
    host: Option<&str>,
    port: Option<u16>,
    hints: AddressHints,
    netns: Option<&Netns>,
) -> impl Operation<Output = Vec<AddressInfo>> {
    let AddressHints { domain, ty, protocol, flags } = hints;
    let params = |netns| (host, port, domain, ty, protocol, flags, netns);
    Call::in_netns("socket.getaddrinfo", netns, params, address_infos)
}

pub(crate) fn getnameinfo(
    address: Address,
    flags: i32,
    netns: Option<&Netns>,
) -> impl Operation<Output = (String, String)> {
    Call::in_netns("socket.getnameinfo", netns, |netns| (address, flags, netns), json)
}

pub(crate) fn getfqdn(
    name: Option<&str>,
    netns: Option<&Netns>,
) -> impl Operation<Output = String> {
    Call::in_netns("socket.getfqdn", netns, |netns| (name, netns), json)
}

pub(crate) fn gethostbyname(name: &str, netns: Option<&Netns>) -> impl Operation<Output = String> {
    Call::in_netns("socket.gethostbyname", netns, |netns| (name, netns), json)
}

pub(crate) fn gethostbyname_ex(name: &str, netns: Option<&Netns>) -> impl Operation<Output = Host> {
    Call::in_netns("socket.gethostbyname_ex", netns, |netns| (name, netns), host)
}

pub(crate) fn gethostbyaddr(address: &str, netns: Option<&Netns>) -> impl Operation<Output = Host> {
    Call::in_netns("socket.gethostbyaddr", netns, |netns| (address, netns), host)
}

pub(crate) fn getprotobyname(name: &str) -> impl Operation<Output = i32> {
    Call::new("socket.getprotobyname", (name,), json)
}

pub(crate) fn getservbyname(name: &str, protocol: Option<&str>) -> impl Operation<Output = u16> {
    Call::new("socket.getservbyname", (name, protocol), json)
}

pub(crate) fn getservbyport(port: u16, protocol: Option<&str>) -> impl Operation<Output = String> {
    Call::new("socket.getservbyport", (port, protocol), json)
}

pub(crate) fn gethostname() -> impl Operation<Output = String> {
    Call::new("socket.gethostname", (), json)
}

pub(crate) fn if_nameindex(netns: Option<&Netns>) -> impl Operation<Output = Vec<(u32, String)>> {
    Call::in_netns("socket.if_nameindex", netns, |netns| (netns,), json)
}

pub(crate) fn if_nametoindex(name: &str, netns: Option<&Netns>) -> impl Operation<Output = u32> {
    Call::in_netns("socket.if_nametoindex", netns, |netns| (name, netns), json)
}

pub(crate) fn if_indextoname(index: u32, netns: Option<&Netns>) -> impl Operation<Output = String> {
    Call::in_netns("socket.if_indextoname", netns, |netns| (index, netns), json)
}

fn address_infos(response: &mut Response<'_>) -> Result<Vec<AddressInfo>> {
    let infos: Vec<WireAddressInfo> = response.value()?;
    let info = |WireAddressInfo(family, ty, protocol, canonical_name, address)| {
        let spec = SocketSpec::from_numbers(family, ty, protocol);
        AddressInfo { spec, canonical_name, address: address.into() }
    };
    Ok(infos.into_iter().map(info).collect())
}

fn host(response: &mut Response<'_>) -> Result<Host> {
    let HostEntry(name, aliases, addresses) = response.value()?;
    Ok(Host { name, aliases, addresses })
}
