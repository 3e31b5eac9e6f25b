//! A quick test that excludes most rules: few are about any one request.

use crate::judgement::question::Endpoint;
use crate::language::rule::{Rule, Sockets};
use crate::language::value::Network;
use sockbroker_proto::socket_spec::SocketSpec;

/// The outer bounds of a rule: it matches no request outside of them, and not every request inside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline {
    sockets: Sockets,
    /// Around all its remote networks; `None` if it names none.
    remote: Option<Prefix>,
}

impl Outline {
    /// The bounds of a rule.
    pub(super) fn of(rule: &Rule) -> Self {
        let networks = rule.fields.remote.iter().map(|network| Prefix::of(*network));
        Self { sockets: rule.sockets, remote: networks.reduce(Prefix::around) }
    }

    /// Whether a request about a socket and a remote address is inside.
    #[inline]
    pub(super) fn admits(&self, socket: Option<SocketSpec>, remote: Remote) -> bool {
        self.remote.is_none_or(|prefix| match remote {
            Remote::None => false,
            Remote::Address(bits) => prefix.contains(bits),
            Remote::Any => true,
        }) && self.sockets.admit_family(socket)
            && self.sockets.admit_type(socket)
    }
}

/// The internet address at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Remote {
    /// There is none.
    None,
    /// Its bits, those of IPv4 as v4-mapped.
    Address(u128),
    /// It is unknown.
    Any,
}

impl Remote {
    /// That of an endpoint.
    pub(super) fn of(endpoint: Option<Endpoint<'_>>) -> Self {
        match endpoint {
            Some(Endpoint::Ip(address, _)) => Self::Address(bits(address)),
            Some(Endpoint::Unknown) => Self::Any,
            Some(
                Endpoint::Path(_) | Endpoint::File(_) | Endpoint::Abstract(_) | Endpoint::Other,
            )
            | None => Self::None,
        }
    }
}

fn bits(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
        std::net::IpAddr::V6(six) => six.to_bits(),
    }
}

/// The leading bits that some addresses have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    bits: u128,
    mask: u128,
}

impl Prefix {
    fn of(network: Network) -> Self {
        let Network::Net(net) = network else { return Self { bits: 0, mask: 0 } };
        let outside = u32::from(net.max_prefix_len() - net.prefix_len());
        let mask = u128::MAX.checked_shl(outside).unwrap_or(0);
        Self { bits: bits(net.addr()) & mask, mask }
    }

    /// The longest prefix of both.
    fn around(self, other: Self) -> Self {
        let same = (self.bits ^ other.bits).leading_zeros();
        let mask = self.mask & other.mask & !u128::MAX.checked_shr(same).unwrap_or(0);
        Self { bits: self.bits & mask, mask }
    }

    fn contains(self, address: u128) -> bool {
        address & self.mask == self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(networks: &[&str]) -> Prefix {
        let read = |text: &&str| Prefix::of(text.parse().unwrap());
        networks.iter().map(read).reduce(Prefix::around).unwrap()
    }

    fn contains(networks: &[&str], address: &str) -> bool {
        prefix(networks).contains(bits(address.parse().unwrap()))
    }

    #[test]
    fn one_network_is_bounded_exactly() {
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("::1/128", "::1", "::2"),
        ] {
            assert!(contains(&[network], inside), "{inside} in {network}");
            assert!(!contains(&[network], outside), "{outside} not in {network}");
        }
        assert!(contains(&["any"], "10.0.0.1") && contains(&["any"], "2001:db8::1"));
        assert!(contains(&["::/0"], "2001:db8::1"));
    }

    #[test]
    fn several_networks_have_the_prefix_of_all() {
        let two = ["10.0.0.0/24", "10.0.1.0/24"];
        assert_eq!(prefix(&two), prefix(&["10.0.0.0/23"]));
        assert!(contains(&["10.0.0.0/8", "2001:db8::/32"], "10.9.9.9"));
        assert!(contains(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::9"));
        assert_eq!(prefix(&["10.0.0.0/8", "any"]), prefix(&["any"]));
    }
}
