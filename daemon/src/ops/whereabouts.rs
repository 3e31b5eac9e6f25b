//! Where a socket leads: what the policy is told of a socket before it is asked.
//!
//! The kernel is asked each time, because whoever holds a copy of the descriptor can connect or bind
//! it anew. Nothing here changes anything or tells the client.

use std::net::{Ipv4Addr, Ipv6Addr};

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::{interface, option, socket};

use super::sniffer;
use crate::policy::membership::Device;
use crate::table::entry::Entry;

/// The address that a socket is bound to, if to one.
pub fn local(entry: &Entry) -> Option<Address> {
    if let Some(state) = &entry.sniffer {
        return Some(sniffer::address(state));
    }
    decode(entry, socket::local_address(entry.fd()).ok()?)
}

/// The address that a socket is connected to, if to one.
pub fn peer(entry: &Entry) -> Option<Address> {
    decode(entry, socket::peer_address(entry.fd()).ok()?)
}

fn decode(entry: &Entry, address: RawAddress) -> Option<Address> {
    address.decode(entry.kind().proto)
}

/// Where data to this destination goes. The unspecified address stands for the loopback host, or with
/// IPv4 for the address that the socket is bound to (`ip_route_output_key_hash_rcu`, `udpv6_sendmsg`).
pub fn reached(entry: &Entry, destination: &Address) -> Option<Address> {
    let mapped = |host: Ipv6Addr| host.to_ipv4_mapped().is_some_and(|host| host.is_unspecified());
    match *destination {
        Address::Inet { host, port } if host.is_unspecified() => {
            Some(Address::Inet { host: own_host(entry), port })
        }
        Address::Inet6 { host, port, .. } if mapped(host) => {
            Some(Address::Inet { host: own_host(entry), port })
        }
        Address::Inet6 { host, port, flowinfo, scope_id } if host.is_unspecified() => {
            // A socket that is bound to a v4-mapped address reaches the loopback host of IPv4.
            let host = match local(entry) {
                Some(Address::Inet6 { host, .. }) if host.to_ipv4_mapped().is_some() => {
                    Ipv4Addr::LOCALHOST.to_ipv6_mapped()
                }
                _ => Ipv6Addr::LOCALHOST,
            };
            Some(Address::Inet6 { host, port, flowinfo, scope_id })
        }
        _ => None,
    }
}

fn own_host(entry: &Entry) -> Ipv4Addr {
    let bound = match local(entry) {
        Some(Address::Inet { host, .. }) => Some(host),
        Some(Address::Inet6 { host, .. }) => host.to_ipv4_mapped(),
        _ => None,
    };
    bound.filter(|host| !host.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST)
}

/// The interface that an address names, or for a packet socket without an address is bound to.
pub fn interface(entry: &Entry, address: Option<&Address>) -> Option<String> {
    if let Some(state) = &entry.sniffer {
        return interface_name(state.state().ifindex?);
    }
    match address {
        Some(address) => interface_name(index(address)?),
        None => interface_name(index(&local(entry)?)?),
    }
}

fn index(address: &Address) -> Option<u32> {
    match *address {
        Address::Packet { ifindex, .. }
        | Address::Can { ifindex }
        | Address::CanIsotp { ifindex, .. }
        | Address::CanJ1939 { ifindex, .. } => Some(ifindex),
        Address::Inet6 { scope_id, .. } => Some(scope_id),
        _ => None,
    }
}

/// The name of an interface; `None` for 0, which is none or all of them, and for one that is gone.
pub fn interface_name(index: u32) -> Option<String> {
    (index != 0).then(|| interface::name_of(index).ok()).flatten()
}

/// The name of the interface that has this address.
pub fn interface_of(host: Ipv4Addr) -> Option<String> {
    interface_name(interface::owner_of(host.into()).ok()??)
}

/// Whether what is sent begins with a header that the kernel would otherwise make.
pub fn own_headers(entry: &Entry) -> bool {
    let kind = entry.kind();
    let option = match (kind.kind, kind.family) {
        (libc::SOCK_RAW, libc::AF_INET) => (libc::IPPROTO_IP, libc::IP_HDRINCL),
        (libc::SOCK_RAW, libc::AF_INET6) => (libc::IPPROTO_IPV6, libc::IPV6_HDRINCL),
        _ => return false,
    };
    // A socket that does not tell is taken for one that does.
    kind.proto == libc::IPPROTO_RAW
        || option::get_int(entry.fd(), option.0, option.1).map_or(true, |on| on != 0)
}

/// The name of the interface that an option or message means.
pub fn device_name(device: &Device) -> Option<String> {
    match device {
        Device::Index(index) => interface_name(*index),
        Device::Name(name) => Some(name.clone()),
        Device::Address(host) => interface_of(*host),
    }
}
