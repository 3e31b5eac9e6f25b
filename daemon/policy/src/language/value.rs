//! The values of a rule's fields. Each is checked as it is read, so that an error has its line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error};
use sockbroker_proto::constant;

/// Names of netlink protocols that Python's module does not have (`linux/netlink.h`).
const NETLINK: &[(&str, i32)] = &[
    ("NETLINK_SOCK_DIAG", libc::NETLINK_SOCK_DIAG),
    ("NETLINK_SELINUX", libc::NETLINK_SELINUX),
    ("NETLINK_ISCSI", libc::NETLINK_ISCSI),
    ("NETLINK_AUDIT", libc::NETLINK_AUDIT),
    ("NETLINK_FIB_LOOKUP", libc::NETLINK_FIB_LOOKUP),
    ("NETLINK_CONNECTOR", libc::NETLINK_CONNECTOR),
    ("NETLINK_NETFILTER", libc::NETLINK_NETFILTER),
    ("NETLINK_KOBJECT_UEVENT", libc::NETLINK_KOBJECT_UEVENT),
    ("NETLINK_GENERIC", libc::NETLINK_GENERIC),
    ("NETLINK_SCSITRANSPORT", libc::NETLINK_SCSITRANSPORT),
    ("NETLINK_RDMA", libc::NETLINK_RDMA),
];

/// The number of a constant, if its name has one of these prefixes.
pub(crate) fn number(name: &str, prefixes: &[&str]) -> Option<i32> {
    if !prefixes.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let own = NETLINK.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    own.or_else(|| constant::number(name).and_then(|number| number.try_into().ok()))
}

/// The name of a number among the constants with these prefixes; the number itself where it has none.
pub(crate) fn name(number: i32, prefixes: &[&str]) -> String {
    names(prefixes)
        .find(|(_, known)| *known == i64::from(number))
        .map_or_else(|| number.to_string(), |(name, _)| name.to_owned())
}

fn names(prefixes: &[&str]) -> impl Iterator<Item = (&'static str, i64)> {
    let own = NETLINK.iter().map(|(name, number)| (*name, i64::from(*number)));
    let all = constant::names().chain(own);
    all.filter(move |(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
}

/// Declares a number that a file writes by the name of its constant.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident $what:literal $prefixes:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub i32);

        impl $name {
            /// The prefixes of its constants.
            pub const PREFIXES: &[&str] = &$prefixes;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&name(self.0, Self::PREFIXES))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match NameOrNumber::deserialize(deserializer)? {
                    NameOrNumber::Number(number) => Ok(Self(number)),
                    NameOrNumber::Name(text) => {
                        number(&text, Self::PREFIXES).map(Self).ok_or_else(|| {
                            let known: Vec<_> =
                                names(Self::PREFIXES).map(|(name, _)| name).collect();
                            let (what, known) = ($what, known.join(", "));
                            D::Error::custom(format!(
                                "unknown {what} `{text}`: a number, or one of {known}"
                            ))
                        })
                    }
                }
            }
        }
    )*};
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "the name of a constant, or its number")]
enum NameOrNumber {
    Number(i32),
    Name(String),
}

numbers! {
    /// `AF_*`.
    Family "family" ["AF_"];
    /// `SOCK_*`, without the flags.
    SocketType "type" ["SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET"];
    /// The protocol.
    Protocol "protocol" ["IPPROTO_", "NETLINK_", "CAN_RAW", "CAN_BCM", "CAN_ISOTP", "CAN_J1939", "BTPROTO_"];
}

/// Reads a value of a rule from its text.
macro_rules! from_text {
    ($($name:ident)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

from_text! { Network Ports }
pub(crate) use from_text;

/// Addresses: a network such as `10.0.0.0/8`, a single address, or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// `any`: every IP address.
    Any,
    /// Those of a network.
    Net(IpNet),
}

impl Network {
    /// Whether an address, v4-mapped ones normalised, is in it.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Net(net) => net.contains(&address),
        }
    }

    /// Whether every address of another is in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Net(_), Self::Any) => false,
            (Self::Net(own), Self::Net(other)) => own.contains(&other),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_error| {
            format!("`{text}` is not a network: write 10.0.0.0/8, 2001:db8::/32, 192.0.2.1 or any")
        })?;
        if net.trunc() != net {
            let text = format!("`{text}` has bits beyond its prefix: write {}", net.trunc());
            return Err(text);
        }
        normal(net).map(Self::Net)
    }
}

/// A v4-mapped network in its IPv4 form: requests are normalised the same way.
fn normal(net: IpNet) -> Result<IpNet, String> {
    let IpNet::V6(six) = net else { return Ok(net) };
    let Some(four) = six.addr().to_ipv4_mapped() else { return Ok(net) };
    match six.prefix_len().checked_sub(96) {
        Some(length) => Ok(IpNet::V4(
            ipnet::Ipv4Net::new(four, length).map_err(|error| error.to_string())?.trunc(),
        )),
        None => Err(format!("`{net}` mixes v4-mapped addresses with others: write two networks")),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Net(net) => net.fmt(f),
        }
    }
}

/// Ports: `80`, or from the first to the last of `1024-65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Ports {
    /// Whether every port of another is in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_error| format!("`{text}` is not a port: write 80 or 1024-65535");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Self {
            first: first.trim().parse().map_err(wrong)?,
            last: last.trim().parse().map_err(wrong)?,
        };
        if ports.first > ports.last {
            return Err(format!(
                "`{text}` is not a range: its first number is greater than its last"
            ));
        }
        Ok(ports)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// The name of a protocol, which depends on the family.
pub(crate) fn protocol_name(family: Option<i32>, proto: i32) -> String {
    let prefix = match family {
        Some(libc::AF_NETLINK) => "NETLINK_",
        Some(libc::AF_CAN) => "CAN_",
        Some(libc::AF_BLUETOOTH) => "BTPROTO_",
        Some(libc::AF_INET | libc::AF_INET6) | None => "IPPROTO_",
        Some(_) => return proto.to_string(),
    };
    name(proto, &[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_whole_and_normalised() {
        for (text, shown) in [
            ("any", "any"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "example.org", "::ffff:0.0.0.0/90", "10"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!("80".parse(), Ok(Ports { first: 80, last: 80 }));
        assert_eq!("1024-65535".parse(), Ok(Ports { first: 1024, last: 65535 }));
        for text in ["", "65536", "-1", "9-1", "80,81", "http"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }
}
