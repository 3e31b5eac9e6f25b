//! The resolver, the databases of protocols and services, and interface names.

use sockbroker_proto::api::name::{AddressInfo as WireAddressInfo, HostEntry};

use super::call::{Call, Operation, json};
use crate::address::Address;
use crate::error::Result;
use crate::values::{AddressHints, AddressInfo, Host, SocketSpec};
use crate::wire::response::Response;

pub(crate) fn getaddrinfo(
    host: Option<&str>,
    port: Option<u16>,
    hints: AddressHints,
) -> impl Operation<Output = Vec<AddressInfo>> {
    let params = (host, port, hints.domain, hints.ty, hints.protocol, hints.flags);
    Call::new("socket.getaddrinfo", params, address_infos)
}

pub(crate) fn getaddrinfo_within(
    host: Option<&str>,
    port: Option<u16>,
    hints: AddressHints,
    netns: &str,
) -> impl Operation<Output = Vec<AddressInfo>> {
    let params = (host, port, hints.domain, hints.ty, hints.protocol, hints.flags, netns);
    Call::new("socket.getaddrinfo", params, address_infos)
}

pub(crate) fn getnameinfo(
    address: Address,
    flags: i32,
) -> impl Operation<Output = (String, String)> {
    Call::new("socket.getnameinfo", (address, flags), json)
}

pub(crate) fn getfqdn(name: Option<&str>) -> impl Operation<Output = String> {
    Call::new("socket.getfqdn", (name,), json)
}

pub(crate) fn gethostbyname(name: &str) -> impl Operation<Output = String> {
    Call::new("socket.gethostbyname", (name,), json)
}

pub(crate) fn gethostbyname_ex(name: &str) -> impl Operation<Output = Host> {
    Call::new("socket.gethostbyname_ex", (name,), host)
}

pub(crate) fn gethostbyaddr(address: &str) -> impl Operation<Output = Host> {
    Call::new("socket.gethostbyaddr", (address,), host)
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

pub(crate) fn if_nameindex() -> impl Operation<Output = Vec<(u32, String)>> {
    Call::new("socket.if_nameindex", (), json)
}

pub(crate) fn if_nametoindex(name: &str) -> impl Operation<Output = u32> {
    Call::new("socket.if_nametoindex", (name,), json)
}

pub(crate) fn if_indextoname(index: u32) -> impl Operation<Output = String> {
    Call::new("socket.if_indextoname", (index,), json)
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
