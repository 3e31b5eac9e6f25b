//! Groups, sources and interfaces that the bytes of options and ancillary data name. The layouts are the
//! kernel's; bytes that are too short name nothing, and the kernel refuses them.

use std::net::{Ipv4Addr, Ipv6Addr};

use sockbroker_proto::address::Address;

/// How an interface is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// By its index; 0 is none.
    Index(u32),
    /// By its name.
    Name(String),
    /// By an address that it has.
    Address(Ipv4Addr),
}

/// The group that a multicast option names, and the interface.
pub fn membership(level: i32, name: i32, value: &[u8]) -> Option<(Address, Device)> {
    const SOURCES: [i32; 4] = [
        libc::IP_UNBLOCK_SOURCE,
        libc::IP_BLOCK_SOURCE,
        libc::IP_ADD_SOURCE_MEMBERSHIP,
        libc::IP_DROP_SOURCE_MEMBERSHIP,
    ];
    match (level, name) {
        // struct ip_mreq, ip_mreqn
        (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP | libc::IP_DROP_MEMBERSHIP) => {
            let by_address = four(value, 4).map(Device::Address);
            let device = number(value, 8).filter(|index| *index != 0).map(Device::Index);
            Some((inet(four(value, 0)?), device.or(by_address)?))
        }
        // struct ip_mreq_source, ip_msfilter: group, interface
        (libc::IPPROTO_IP, name) if SOURCES.contains(&name) || name == libc::IP_MSFILTER => {
            Some((inet(four(value, 0)?), Device::Address(four(value, 4)?)))
        }
        // struct ipv6_mreq
        (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP | libc::IPV6_DROP_MEMBERSHIP | 27 | 28) => {
            Some((inet6(six(value, 0)?), Device::Index(number(value, 16)?)))
        }
        // struct group_req, group_source_req: index, padding, sockaddr_storage
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, 42..=48) => {
            let group = match number(value, 8)?.to_ne_bytes() {
                [low, high, ..] if u16::from_ne_bytes([low, high]) == 2 => inet(four(value, 12)?),
                _ => inet6(six(value, 16)?),
            };
            Some((group, Device::Index(number(value, 0)?)))
        }
        _ => None,
    }
}

/// `IFNAMSIZ` less its NUL: the kernel cuts longer names off (`sock_setbindtodevice`).
const LONGEST_NAME: usize = 15;

/// The interface that an option names without a group.
pub fn device(level: i32, name: i32, value: &[u8]) -> Option<Device> {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => {
            let value = value.get(..LONGEST_NAME).unwrap_or(value);
            let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(Device::Name(String::from_utf8_lossy(name).into_owned()))
        }
        // struct in_addr, ip_mreq, ip_mreqn: an index counts before an address.
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) => {
            let index = number(value, 8).filter(|index| *index != 0).map(Device::Index);
            let place = if value.len() < 8 { 0 } else { 4 };
            let host = four(value, place).filter(|host| !host.is_unspecified());
            index.or(host.map(Device::Address))
        }
        // struct in6_pktinfo, as an option that holds for every message.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => number(value, 16).map(Device::Index),
        (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX)
        | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) => number(value, 0).map(Device::Index),
        // IP_UNICAST_IF and IPV6_UNICAST_IF have the index in network order.
        (libc::IPPROTO_IP, 50) | (libc::IPPROTO_IPV6, 76) => {
            number(value, 0).map(|index| Device::Index(u32::from_be(index)))
        }
        // struct packet_mreq
        (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP | libc::PACKET_DROP_MEMBERSHIP) => {
            number(value, 0).map(Device::Index)
        }
        _ => None,
    }
}

/// The source that `IP_PKTINFO` or `IPV6_PKTINFO` names, and the index of the interface.
pub fn packet_info(level: i32, kind: i32, data: &[u8]) -> Option<(Option<Address>, u32)> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let source = four(data, 4).filter(|host| !host.is_unspecified());
            Some((source.map(inet), number(data, 0)?))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO | libc::IPV6_2292PKTINFO) => {
            let source = six(data, 0).filter(|host| !host.is_unspecified());
            Some((source.map(inet6), number(data, 16)?))
        }
        _ => None,
    }
}

/// The source that an option chooses for what is sent later.
pub fn source(level: i32, name: i32, value: &[u8]) -> Option<Address> {
    match (level, name) {
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => packet_info(level, name, value)?.0,
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) => {
            let place = if value.len() < 8 { 0 } else { 4 };
            four(value, place).filter(|host| !host.is_unspecified()).map(inet)
        }
        _ => None,
    }
}

/// The hosts that a source route names: `IP_OPTIONS` with `LSRR` or `SSRR` (RFC 791), `IPV6_RTHDR` of type
/// 0, 2 or 4. Options and ancillary data have the same layout.
pub fn hops(level: i32, name: i32, value: &[u8]) -> Vec<Address> {
    match (level, name) {
        (libc::IPPROTO_IP, libc::IP_OPTIONS | libc::IP_RETOPTS) => route_of_options(value),
        (libc::IPPROTO_IPV6, libc::IPV6_RTHDR | libc::IPV6_2292RTHDR) => {
            // Eight bytes of header, then addresses.
            let addresses = value.get(8..).unwrap_or_default().as_chunks::<16>().0;
            addresses.iter().map(|octets| inet6((*octets).into())).collect()
        }
        _ => Vec::new(),
    }
}

/// `LSRR` and `SSRR` among the options of an IPv4 header: type, length, pointer, addresses.
fn route_of_options(mut options: &[u8]) -> Vec<Address> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const ROUTES: [u8; 2] = [131, 137];
    let mut hops = Vec::new();
    while let Some((kind, rest)) = options.split_first() {
        if *kind == END {
            break;
        }
        if *kind == NOTHING {
            options = rest;
            continue;
        }
        // The kernel refuses a length that is impossible.
        let Some(length) = rest.first().map(|length| usize::from(*length)) else { break };
        if ROUTES.contains(kind) {
            let addresses = options.get(3..length).unwrap_or_default().as_chunks::<4>().0;
            hops.extend(addresses.iter().map(|octets| inet((*octets).into())));
        }
        options = options.get(length.max(2)..).unwrap_or_default();
    }
    hops
}

/// Source, destination and route of a packet that begins with its own IP header; `None` where it is too
/// short for one, which the kernel refuses.
pub fn header(family: i32, data: &[u8]) -> Option<(Address, Address, Vec<Address>)> {
    if family == libc::AF_INET6 {
        let hops = route_of_extensions((*data.get(6)?).into(), data.get(40..).unwrap_or_default());
        return Some((inet6(six(data, 8)?), inet6(six(data, 24)?), hops));
    }
    let length = usize::from(data.first()? & 0x0f) * 4;
    let options = data.get(20..length).unwrap_or_default();
    Some((inet(four(data, 12)?), inet(four(data, 16)?), route_of_options(options)))
}

/// Whether a protocol of IPv6 is an extension header that a routing header can follow (RFC 8200).
pub fn is_extension(protocol: i32) -> bool {
    let skipped = [libc::IPPROTO_HOPOPTS, libc::IPPROTO_FRAGMENT, libc::IPPROTO_DSTOPTS];
    protocol == libc::IPPROTO_ROUTING || skipped.contains(&protocol)
}

/// The hosts that routing headers name in data that begins with an extension header of this protocol.
pub fn route_of_extensions(mut protocol: i32, mut data: &[u8]) -> Vec<Address> {
    let mut found = Vec::new();
    while is_extension(protocol)
        && let [next, length, ..] = *data
    {
        let length = match protocol {
            libc::IPPROTO_FRAGMENT => 8,
            _ => (usize::from(length) + 1) * 8,
        };
        if protocol == libc::IPPROTO_ROUTING {
            let header = data.get(..length).unwrap_or(data);
            found.extend(hops(libc::IPPROTO_IPV6, libc::IPV6_RTHDR, header));
        }
        protocol = next.into();
        data = data.get(length..).unwrap_or_default();
    }
    found
}

fn inet(host: Ipv4Addr) -> Address {
    Address::Inet { host, port: 0 }
}

fn inet6(host: Ipv6Addr) -> Address {
    Address::Inet6 { host, port: 0, flowinfo: 0, scope_id: 0 }
}

fn four(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn six(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| u32::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    #[test]
    fn the_group_is_found_in_every_form_of_a_join() {
        let own = [10, 0, 0, 1];
        let short = [&GROUP.octets()[..], &own].concat();
        let by_address = Device::Address(own.into());
        assert_eq!(
            membership(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &short),
            Some((inet(GROUP), by_address.clone()))
        );
        let long = [&short[..], &7_u32.to_ne_bytes()].concat();
        assert_eq!(
            membership(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &long),
            Some((inet(GROUP), Device::Index(7)))
        );
        let six: Ipv6Addr = "ff02::1234".parse().unwrap();
        let request = [&six.octets()[..], &3_u32.to_ne_bytes()].concat();
        assert_eq!(
            membership(libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request),
            Some((inet6(six), Device::Index(3)))
        );
        let general =
            [&5_u32.to_ne_bytes()[..], &[0; 4], &2_u16.to_ne_bytes(), &[0; 2], &GROUP.octets()];
        assert_eq!(
            membership(libc::IPPROTO_IP, 42, &general.concat()),
            Some((inet(GROUP), Device::Index(5)))
        );
        assert_eq!(membership(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &own), None);
    }

    #[test]
    fn sources_and_devices_are_found() {
        let info = [&4_u32.to_ne_bytes()[..], &[10, 0, 0, 9], &[0; 4]].concat();
        assert_eq!(
            packet_info(libc::IPPROTO_IP, libc::IP_PKTINFO, &info),
            Some((Some(inet([10, 0, 0, 9].into())), 4))
        );
        assert_eq!(packet_info(libc::IPPROTO_IP, libc::IP_TTL, &info), None);
        assert_eq!(
            device(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"eth0\0rest"),
            Some(Device::Name("eth0".to_owned()))
        );
    }
}
