//! Conversion of the address types of `std`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::{Path, PathBuf};

use sockbroker_proto::address::AddressValue;

use super::{Address, number, text};

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => address.into(),
            SocketAddr::V6(address) => address.into(),
        }
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Self {
        Self::tuple([text(&address.ip().to_string()), number(address.port())])
    }
}

impl From<SocketAddrV6> for Address {
    fn from(address: SocketAddrV6) -> Self {
        Self::tuple([
            text(&address.ip().to_string()),
            number(address.port()),
            number(address.flowinfo()),
            number(address.scope_id()),
        ])
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(address: (IpAddr, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<(Ipv4Addr, u16)> for Address {
    fn from((host, port): (Ipv4Addr, u16)) -> Self {
        SocketAddrV4::new(host, port).into()
    }
}

impl From<(Ipv6Addr, u16)> for Address {
    fn from((host, port): (Ipv6Addr, u16)) -> Self {
        SocketAddrV6::new(host, port, 0, 0).into()
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Self {
        Self::host(host, port)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::unix_path(path)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::unix_path(path)
    }
}

impl From<&UnixAddr> for Address {
    fn from(address: &UnixAddr) -> Self {
        match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => Self::unix_path(path),
            (None, Some(name)) => Self::unix_abstract(name),
            (None, None) => Self::unix_unnamed(),
        }
    }
}

impl From<AddressValue> for Address {
    fn from(value: AddressValue) -> Self {
        Self(value)
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}
