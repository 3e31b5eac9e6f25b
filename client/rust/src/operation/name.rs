//! Names: the resolver, the databases of services and protocols, interfaces.

use serde::Serialize;
use sockbroker_proto::api::name::{AddressInfo as InfoOnWire, HostEntry};

use super::{attributes, operation, value};
use crate::address::Address;
use crate::error::Result;
use crate::message::{AddressHints, AddressInfo, Host};
use crate::request::Call;
use crate::wire::response::Response;

operation!(getaddrinfo(host: Option<&'a str>, port: Option<u16>, hints: AddressHints) -> Vec<AddressInfo>:
"socket.getaddrinfo",
(host, port, hints.domain, hints.kind, hints.protocol, hints.flags),
|response: &mut Response<'_>| {
    let found: Vec<InfoOnWire> = response.value()?;
    Ok(found.into_iter().map(info).collect())
});
operation!(getnameinfo(address: Address, flags: i32) -> (String, String):
    "socket.getnameinfo", (address, flags), value);
operation!(getfqdn(name: Option<&'a str>) -> String: "socket.getfqdn", (name,), value);
operation!(gethostbyname(name: &'a str) -> String: "socket.gethostbyname", (name,), value);
operation!(gethostbyname_ex(name: &'a str) -> Host: "socket.gethostbyname_ex", (name,), host);
operation!(gethostbyaddr(address: &'a str) -> Host: "socket.gethostbyaddr", (address,), host);
operation!(getprotobyname(name: &'a str) -> i32: "socket.getprotobyname", (name,), value);
operation!(getservbyname(name: &'a str, protocol: Option<&'a str>) -> u16:
    "socket.getservbyname", (name, protocol), value);
operation!(getservbyport(port: u16, protocol: Option<&'a str>) -> String:
    "socket.getservbyport", (port, protocol), value);
operation!(gethostname() -> String: "socket.gethostname", (), value);
operation!(if_nameindex() -> Vec<(u32, String)>: "socket.if_nameindex", (), value);
operation!(if_nametoindex(name: &'a str) -> u32: "socket.if_nametoindex", (name,), value);
operation!(if_indextoname(index: u32) -> String: "socket.if_indextoname", (index,), value);

fn info(InfoOnWire(family, kind, proto, canonical_name, address): InfoOnWire) -> AddressInfo {
    let attributes = attributes(family, kind, proto);
    AddressInfo { attributes, canonical_name, address: address.into() }
}

fn host(response: &mut Response<'_>) -> Result<Host> {
    let HostEntry(name, aliases, addresses) = response.value()?;
    Ok(Host { name, aliases, addresses })
}
