//! What the kernel reports about a socket, as far as the policy judges it. Interfaces are looked up on the socket
//! itself, which may belong to another network namespace than the process.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use sockbroker_policy::membership::{Device, hops};
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::namespace::{self, NetworkNamespace};
use sockbroker_sys::{option, socket};

/// `IP_UNICAST_IF` and `IPV6_UNICAST_IF` of the kernel's `in.h` and `in6.h`: an index in network order.
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;

/// A socket that reports about itself. The kernel does for a descriptor; the fuzzer has sockets that report anything.
pub trait KernelSocket: Copy {
    fn spec(self) -> io::Result<SocketSpec>;
    /// The cookie of its network namespace.
    fn network(self) -> io::Result<u64>;
    /// The user who owns its network namespace (`NetworkNamespace::owner`).
    fn network_owner(self) -> io::Result<Option<u32>>;
    fn local_address(self) -> io::Result<RawAddress>;
    fn peer_address(self) -> io::Result<RawAddress>;
    /// The value of an integer option, in host order.
    fn int_option(self, level: i32, name: i32) -> io::Result<i32>;
    /// The value of an option, at most `longest` bytes of it.
    fn bytes_option(self, level: i32, name: i32, longest: u32) -> io::Result<Vec<u8>>;
    /// The index and the name of every interface that the socket can use.
    fn interfaces(self) -> io::Result<Vec<(u32, String)>>;
    fn interface_name(self, index: u32) -> io::Result<String>;
    fn interface_index(self, name: &str) -> io::Result<u32>;
    /// The indexes of the interfaces that have this address.
    fn interfaces_of(self, host: Ipv4Addr) -> io::Result<Vec<u32>>;
}

impl KernelSocket for BorrowedFd<'_> {
    fn spec(self) -> io::Result<SocketSpec> {
        socket::spec_of(self)
    }

    fn network(self) -> io::Result<u64> {
        namespace::cookie(self)
    }

    fn network_owner(self) -> io::Result<Option<u32>> {
        NetworkNamespace::of_socket(self)?.owner()
    }

    fn local_address(self) -> io::Result<RawAddress> {
        socket::local_address(self)
    }

    fn peer_address(self) -> io::Result<RawAddress> {
        socket::peer_address(self)
    }

    fn int_option(self, level: i32, name: i32) -> io::Result<i32> {
        option::get_int(self, level, name)
    }

    fn bytes_option(self, level: i32, name: i32, longest: u32) -> io::Result<Vec<u8>> {
        option::get_bytes(self, level, name, longest)
    }

    fn interfaces(self) -> io::Result<Vec<(u32, String)>> {
        of_socket::list(self)
    }

    fn interface_name(self, index: u32) -> io::Result<String> {
        of_socket::name_of(self, index)
    }

    fn interface_index(self, name: &str) -> io::Result<u32> {
        of_socket::index_of(self, name)
    }

    fn interfaces_of(self, host: Ipv4Addr) -> io::Result<Vec<u32>> {
        of_socket::owners_of(self, host)
    }
}

/// The name of an interface; `None` for 0, which means none or all of them. `ENODEV` for an interface that does
/// not exist: no rule could judge it.
pub fn interface_name(socket: impl KernelSocket, index: u32) -> io::Result<Option<String>> {
    if index == 0 {
        return Ok(None);
    }
    socket.interface_name(index).map(Some).map_err(|_error| missing())
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

/// The names of interfaces, without 0.
pub fn interface_names(socket: impl KernelSocket, indexes: Vec<u32>) -> io::Result<Vec<String>> {
    let names: io::Result<Vec<_>> =
        indexes.into_iter().map(|index| interface_name(socket, index)).collect();
    Ok(names?.into_iter().flatten().collect())
}

/// The interface that an address names by its index.
pub fn interface_index(address: &Address) -> Option<u32> {
    match *address {
        Address::Packet { ifindex, .. }
        | Address::Can { ifindex }
        | Address::CanIsotp { ifindex, .. }
        | Address::CanJ1939 { ifindex, .. } => Some(ifindex),
        Address::Inet6 { scope_id, .. } => Some(scope_id),
        _ => None,
    }
}

/// The names of the interfaces that the value of an option refers to. The value may have an alternative name
/// (`ip-link(8)`, altname).
pub fn devices(socket: impl KernelSocket, device: &Device) -> io::Result<Vec<String>> {
    let indexes = match device {
        Device::Index(index) => vec![*index],
        Device::Name(name) if name.is_empty() => Vec::new(),
        Device::Name(name) => vec![socket.interface_index(name).map_err(|_error| missing())?],
        Device::Address(host) => owners(socket, *host)?,
    };
    interface_names(socket, indexes)
}

/// The interfaces that the kernel may find by an address (`__ip_dev_find`): those that have it, or all where
/// only a route makes it local. `ENODEV` if they cannot be listed: no rule could judge them.
pub fn owners(socket: impl KernelSocket, host: Ipv4Addr) -> io::Result<Vec<u32>> {
    if host.is_unspecified() {
        return Ok(Vec::new());
    }
    let owners = socket.interfaces_of(host).map_err(|_error| missing())?;
    if !owners.is_empty() {
        return Ok(owners);
    }
    let all = socket.interfaces().map_err(|_error| missing())?;
    Ok(all.into_iter().map(|(index, _)| index).collect())
}

/// The interface that `SO_BINDTODEVICE` binds the socket to.
pub fn bound_device(socket: impl KernelSocket) -> Option<u32> {
    let index = socket.int_option(libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX);
    index.ok().map(i32::cast_unsigned)
}

/// The interfaces that `IP_UNICAST_IF` and `IPV6_UNICAST_IF` choose.
pub fn unicast_interfaces(socket: impl KernelSocket, domain: i32) -> Vec<u32> {
    let six = (libc::IPPROTO_IPV6, IPV6_UNICAST_IF);
    let options = match domain {
        libc::AF_INET => vec![(libc::IPPROTO_IP, IP_UNICAST_IF)],
        libc::AF_INET6 => vec![(libc::IPPROTO_IP, IP_UNICAST_IF), six],
        _ => Vec::new(),
    };
    let get = |(level, name)| socket.int_option(level, name).ok();
    options.into_iter().filter_map(get).map(|index| u32::from_be(index.cast_unsigned())).collect()
}

/// The hosts of a source route that options set for all messages: `IP_OPTIONS`, `IPV6_RTHDR`.
pub fn route(socket: impl KernelSocket, domain: i32) -> Vec<Address> {
    const LONGEST: u32 = 2048;
    let options: &[_] = match domain {
        libc::AF_INET => &[(libc::IPPROTO_IP, libc::IP_OPTIONS)],
        libc::AF_INET6 => {
            &[(libc::IPPROTO_IP, libc::IP_OPTIONS), (libc::IPPROTO_IPV6, libc::IPV6_RTHDR)]
        }
        _ => &[],
    };
    let kept = options.iter().flat_map(|(level, name)| {
        let value = socket.bytes_option(*level, *name, LONGEST).unwrap_or_default();
        hops(*level, *name, &value)
    });
    kept.collect()
}

/// Whether the data of each message begins with an IP header, which the kernel would otherwise make.
pub fn own_headers(socket: impl KernelSocket, actual: SocketSpec) -> bool {
    let option = match (actual.ty, actual.domain) {
        (libc::SOCK_RAW, libc::AF_INET) => (libc::IPPROTO_IP, libc::IP_HDRINCL),
        (libc::SOCK_RAW, libc::AF_INET6) => (libc::IPPROTO_IPV6, libc::IPV6_HDRINCL),
        _ => return false,
    };
    // A socket whose option cannot be read is treated as one that has it set.
    actual.protocol == libc::IPPROTO_RAW
        || socket.int_option(option.0, option.1).map_or(true, |on| on != 0)
}
