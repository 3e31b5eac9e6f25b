//! The addresses and interfaces of a socket, as the policy judges them.
//!
//! Each function asks the kernel again, because the holder of a copy of the descriptor can connect or bind it
//! again. The entry remembers what the kernel does not report. Interfaces are looked up on the socket itself,
//! which may belong to another network namespace than the broker. No function here changes a socket.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::slice;

use sockbroker_proto::address::{Address, InterfaceAddress};
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::{option, socket};

use crate::error::{During, OpError, OpResult};
use crate::table::ends::Bound;
use crate::table::entry::Entry;
use crate::table::rcvall::interface_at;
use sockbroker_monitor::socket_facts::{self, interface_index};
use sockbroker_policy::Permit;
use sockbroker_policy::action::Interfaces;
use sockbroker_policy::membership::Device;
use sockbroker_policy::target::SocketName;

/// The name that a socket is bound to; `None` if it is not bound.
pub fn local(entry: &Entry) -> Option<SocketName> {
    if let Some(state) = &entry.rcvall {
        return Some(SocketName::Address(state.address()));
    }
    match &entry.ends.known().bound {
        Some(Bound::File { facts, .. }) => return Some(SocketName::File(facts.clone())),
        Some(Bound::Elsewhere) => return Some(SocketName::Unknown),
        None => {}
    }
    local_address(entry).map(SocketName::Address)
}

fn local_address(entry: &Entry) -> Option<Address> {
    decode(entry, socket::local_address(entry.fd()).ok()?)
}

/// The names of the peer: the kernel's, and the one that a call of this broker connected to. The kernel reports
/// no peer after the end of a connection, although data may still be queued: then the last name counts.
pub fn peers(entry: &Entry) -> Vec<SocketName> {
    let named = socket::peer_address(entry.fd()).ok().and_then(|raw| decode(entry, raw));
    let mut known = entry.ends.known();
    match named {
        Some(address) => {
            let address = SocketName::Address(address);
            let file = known.peer.clone().filter(|peer| matches!(peer, SocketName::File(_)));
            if file.is_none() && entry.actual().has_connections() {
                known.peer = Some(address.clone());
            }
            [Some(address), file].into_iter().flatten().collect()
        }
        None if entry.actual().has_connections() => known.peer.clone().into_iter().collect(),
        None => Vec::new(),
    }
}

fn decode(entry: &Entry, address: RawAddress) -> Option<Address> {
    address.decode(entry.actual().protocol)
}

/// The destination that the kernel would use in place of an unspecified one: the loopback host, or with IPv4
/// the source or the interface's own address (`ip_route_output_key_hash_rcu`, `udpv6_sendmsg`). The kernel gets
/// it in place of the unspecified one, so that it cannot choose another.
pub fn specified(
    entry: &Entry,
    destination: Address,
    source: Option<Ipv4Addr>,
    interface: Option<u32>,
) -> OpResult<Address> {
    let mapped = |host: Ipv6Addr| host.to_ipv4_mapped().is_some_and(|host| host.is_unspecified());
    let own_host = || own_host(entry, source, interface);
    Ok(match destination {
        Address::Inet { host, port } if host.is_unspecified() => {
            Address::Inet { host: own_host()?, port }
        }
        Address::Inet6 { host, port, flowinfo, scope_id } if mapped(host) => {
            Address::Inet6 { host: own_host()?.to_ipv6_mapped(), port, flowinfo, scope_id }
        }
        Address::Inet6 { host, port, flowinfo, scope_id } if host.is_unspecified() => {
            // A socket that is bound to a v4-mapped address reaches the loopback host of IPv4.
            let host = match local_address(entry) {
                Some(Address::Inet6 { host, .. }) if host.to_ipv4_mapped().is_some() => {
                    Ipv4Addr::LOCALHOST.to_ipv6_mapped()
                }
                _ => Ipv6Addr::LOCALHOST,
            };
            Address::Inet6 { host, port, flowinfo, scope_id }
        }
        other => other,
    })
}

fn own_host(entry: &Entry, source: Option<Ipv4Addr>, named: Option<u32>) -> OpResult<Ipv4Addr> {
    let bound = match local_address(entry) {
        Some(Address::Inet { host, .. }) => Some(host),
        Some(Address::Inet6 { host, .. }) => host.to_ipv4_mapped(),
        _ => None,
    };
    let source = source.or(bound).filter(|host| !host.is_unspecified());
    if let Some(host) = source {
        return Ok(host);
    }
    let chosen = named.into_iter().chain(bound_device(entry)).chain(unicast_interface(entry));
    match chosen.into_iter().find(|index| *index != 0) {
        None => Ok(Ipv4Addr::LOCALHOST),
        Some(index) => {
            interface_name(entry, index)?;
            // An interface without an address has no such destination.
            let unreachable = |_| OpError::Os { call: "connect", errno: libc::ENETUNREACH };
            of_socket::address_of(entry.fd(), index).map_err(unreachable)
        }
    }
}

/// The names of the interfaces that a destination and the socket refer to, each once. `named` are indexes from
/// ancillary data.
pub fn interfaces(
    entry: &Entry,
    destination: Option<&Address>,
    named: &[u32],
) -> OpResult<Vec<String>> {
    if let Some(state) = &entry.rcvall {
        let index = state.state().ifindex;
        return names(entry, index.into_iter().collect());
    }
    let actual = entry.actual();
    let mut indexes: Vec<u32> = named.to_vec();
    indexes.extend(destination.and_then(interface_index));
    if destination.is_none() && ![libc::AF_INET, libc::AF_INET6].contains(&actual.domain) {
        indexes.extend(local_address(entry).as_ref().and_then(interface_index));
    }
    if [libc::AF_INET, libc::AF_INET6].contains(&actual.domain) {
        let choices = entry.ends.known().choices;
        indexes.extend(bound_device(entry));
        indexes.push(choices.packet_interface);
        if is_multicast(destination) != Some(false) {
            indexes.push(choices.multicast_interface);
            let get = |(level, name)| option::get_int(entry.fd(), level, name).ok();
            let six = (actual.domain == libc::AF_INET6)
                .then(|| get((libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF)));
            indexes.extend(six.flatten().map(i32::cast_unsigned));
            // The kernel chooses the interface of a multicast source by its address.
            if let Some(source) = choices.multicast_source {
                indexes.extend(owners(entry, source)?);
            }
        }
        if is_multicast(destination) != Some(true) {
            indexes.extend(unicast_interface(entry));
        }
    }
    indexes.retain(|index| *index != 0);
    indexes.sort_unstable();
    indexes.dedup();
    names(entry, indexes)
}

/// The source addresses that options of the socket choose for a destination.
pub fn chosen_sources(entry: &Entry, destination: Option<&Address>) -> Vec<SocketName> {
    let choices = entry.ends.known().choices;
    let multicast = choices.multicast_source.filter(|_| is_multicast(destination) != Some(false));
    let multicast = multicast.map(|host| Address::Inet { host, port: 0 });
    let packet = choices.packet_source;
    let packet = packet.map(|host| Address::Inet6 { host, port: 0, flowinfo: 0, scope_id: 0 });
    multicast.into_iter().chain(packet).map(SocketName::Address).collect()
}

/// Whether a destination is a multicast group; `None` for an unknown destination.
fn is_multicast(destination: Option<&Address>) -> Option<bool> {
    destination.map(|destination| match destination {
        Address::Inet { host, .. } => host.is_multicast(),
        Address::Inet6 { host, .. } => host.to_canonical().is_multicast(),
        _ => false,
    })
}

/// The interface that `SO_BINDTODEVICE` binds the socket to.
fn bound_device(entry: &Entry) -> Option<u32> {
    socket_facts::bound_device(entry.fd())
}

fn unicast_interface(entry: &Entry) -> Vec<u32> {
    socket_facts::unicast_interfaces(entry.fd(), entry.actual().domain)
}

/// The interface that an address names.
pub fn interface(entry: &Entry, address: &Address) -> OpResult<Option<String>> {
    if let Some(state) = &entry.rcvall {
        let index = state.state().ifindex;
        return index.map_or(Ok(None), |index| interface_name(entry, index));
    }
    interface_index(address).map_or(Ok(None), |index| interface_name(entry, index))
}

/// The interface that a packet socket captures from: the one it is bound to.
pub fn captured(entry: &Entry) -> Option<String> {
    let index = match &entry.rcvall {
        Some(state) => state.state().ifindex,
        None => local_address(entry).as_ref().and_then(interface_index),
    };
    interface_name(entry, index?).ok().flatten()
}

/// The name of an interface in the socket's own network; `None` for 0, which means none or all of them.
/// `ENODEV` for an interface that does not exist: no rule could judge it.
fn interface_name(entry: &Entry, index: u32) -> OpResult<Option<String>> {
    socket_facts::interface_name(entry.fd(), index).during("if_indextoname")
}

fn names(entry: &Entry, indexes: Vec<u32>) -> OpResult<Vec<String>> {
    socket_facts::interface_names(entry.fd(), indexes).during("if_indextoname")
}

/// The name of the interface that has this address, as the emulation of `SIO_RCVALL` chooses it.
pub fn interface_of(entry: &Entry, host: Ipv4Addr) -> Option<String> {
    let owner = interface_at(entry.fd(), host).ok()??;
    interface_name(entry, owner).ok().flatten()
}

/// The interface's name in an address for the client; empty for an interface that no longer exists, as in
/// CPython.
pub fn name_in_address(entry: &Entry, index: u32) -> String {
    interface_name(entry, index).ok().flatten().unwrap_or_default()
}

/// Puts the index of the named interface into an address of the client.
pub fn interface_address(
    permit: Permit<Interfaces>,
    entry: &Entry,
    address: InterfaceAddress,
) -> OpResult<Address> {
    let Interfaces = permit.into_request();
    let index = of_socket::index_of(entry.fd(), &address.name).during("if_nametoindex");
    let index = index.map_err(|error| error.naming_interfaces(slice::from_ref(&address.name)))?;
    Ok(address.with_index(index))
}

/// The hosts of a source route that options set for all messages: `IP_OPTIONS`, `IPV6_RTHDR`.
pub fn route(entry: &Entry) -> Vec<Address> {
    socket_facts::route(entry.fd(), entry.actual().domain)
}

/// Whether a packet socket has a protocol, and therefore captures on the interface it is bound to.
pub fn captures(entry: &Entry) -> bool {
    let has = |address| matches!(address, Address::Packet { protocol, .. } if protocol != 0);
    entry.actual().protocol != 0 || local_address(entry).is_some_and(has)
}

/// Whether the data of each message begins with an IP header, which the kernel would otherwise make.
pub fn own_headers(entry: &Entry) -> bool {
    socket_facts::own_headers(entry.fd(), entry.actual())
}

/// The names of the interfaces that the value of an option refers to.
pub fn devices(entry: &Entry, device: &Device) -> OpResult<Vec<String>> {
    socket_facts::devices(entry.fd(), device).during("setsockopt")
}

fn owners(entry: &Entry, host: Ipv4Addr) -> OpResult<Vec<u32>> {
    socket_facts::owners(entry.fd(), host).during("setsockopt")
}
