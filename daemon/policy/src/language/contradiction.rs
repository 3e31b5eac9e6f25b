//! Fields of a rule that exclude each other, so that no request matches the rule.

use crate::language::operand::Operand;
use crate::language::rule::Rule;
use crate::language::value::{Family, Network, Protocol, SocketType};
use crate::language::verb::Verb;

/// Families whose addresses are not IP addresses.
const WITHOUT_IP: &[i32] = &[
    libc::AF_UNIX,
    libc::AF_PACKET,
    libc::AF_NETLINK,
    libc::AF_VSOCK,
    libc::AF_CAN,
    libc::AF_BLUETOOTH,
    libc::AF_TIPC,
    libc::AF_ALG,
    AF_QIPCRTR,
];
/// `linux/socket.h`.
const AF_QIPCRTR: i32 = 42;
/// Types and protocols that no TCP/IP socket has together. Protocol 0 is judged as the protocol that it selects.
const MISFITS: &[(i32, i32)] = &[
    (libc::SOCK_STREAM, 0),
    (libc::SOCK_STREAM, libc::IPPROTO_UDP),
    (libc::SOCK_STREAM, libc::IPPROTO_UDPLITE),
    (libc::SOCK_STREAM, libc::IPPROTO_ICMP),
    (libc::SOCK_STREAM, libc::IPPROTO_ICMPV6),
    (libc::SOCK_DGRAM, 0),
    (libc::SOCK_DGRAM, libc::IPPROTO_TCP),
    (libc::SOCK_DGRAM, libc::IPPROTO_MPTCP),
];
const INTERNET: &[i32] = &[libc::AF_INET, libc::AF_INET6];

/// Why no request can match a rule, or none with one of its verbs; empty if requests can.
pub(crate) fn contradictions(rule: &Rule) -> Vec<String> {
    // Captures compare these fields with packets, not with a socket.
    let of_packets = rule.has_verb(Verb::Capture);
    let addresses = addresses(rule).or_else(|| sockets(rule)).filter(|_| !of_packets);
    let never = addresses.map(|why| format!("it never matches: {why}"));
    never.into_iter().chain(verbs(rule)).chain(messages(rule)).collect()
}

/// Compares fields about addresses with each other and with the socket.
fn addresses(rule: &Rule) -> Option<String> {
    let fields = &rule.fields;
    let ip = [Operand::Local, Operand::LocalPorts, Operand::Remote, Operand::RemotePorts];
    let named = ip.into_iter().filter(|operand| fields.has(*operand)).map(Operand::word);
    if let Some(field) = named.clone().next() {
        if !rule.fields.path.is_empty() {
            return Some(format!("no address has both `path` and `{field}`"));
        }
        if are_all(&rule.fields.family, |family| WITHOUT_IP.contains(&family.0)) {
            return Some(format!("no family in `family` has `{field}`"));
        }
    }
    if !rule.fields.path.is_empty()
        && are_all(&rule.fields.family, |family| family.0 != libc::AF_UNIX)
    {
        return Some("`path` needs the family AF_UNIX".to_owned());
    }
    let without_ports = are_all(&rule.fields.ty, |kind| kind.0 == libc::SOCK_RAW)
        || are_all(&rule.fields.protocol, |protocol| {
            [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&protocol.0)
        });
    if let Some(field) = named.clone().find(|field| field.ends_with("_ports") && without_ports) {
        return Some(format!("raw and ICMP sockets have no ports, so `{field}` matches none"));
    }
    let is_six = |network: &Network| matches!(network, Network::Net(net) if net.addr().is_ipv6());
    let four = are_all(&rule.fields.family, |family| family.0 == libc::AF_INET);
    let sides = [("local", &rule.fields.local), ("remote", &rule.fields.remote)];
    sides
        .into_iter()
        .find(|(_, networks)| four && are_all(networks, is_six))
        .map(|(field, _)| format!("`{field}` has only IPv6 addresses, and `family` only AF_INET"))
}

/// Compares types and protocols of TCP/IP sockets.
fn sockets(rule: &Rule) -> Option<String> {
    let fits = |kind: &SocketType, protocol: &Protocol| !MISFITS.contains(&(kind.0, protocol.0));
    let internet = are_all(&rule.fields.family, |family| INTERNET.contains(&family.0));
    let none_fits =
        |kind: &SocketType| are_all(&rule.fields.protocol, |protocol| !fits(kind, protocol));
    (internet && are_all(&rule.fields.ty, none_fits))
        .then(|| "no type in `type` has a protocol in `protocol`".to_owned())
}

/// Verbs that are about other families than the rule.
fn verbs(rule: &Rule) -> impl Iterator<Item = String> {
    let is_packet = |family: &Family| family.0 == libc::AF_PACKET;
    let all = are_all(&rule.fields.family, is_packet);
    let none = are_all(&rule.fields.family, |family| !is_packet(family));
    let instead = [
        (Verb::Send, all, "on AF_PACKET that is `inject`"),
        (Verb::Receive, all, "on AF_PACKET that is `capture`"),
        (Verb::Inject, none, "it needs the family AF_PACKET"),
    ];
    let own: Vec<_> = rule.verbs().collect();
    instead
        .into_iter()
        .filter(move |(verb, never, _)| *never && own.contains(verb))
        .map(|(verb, _, why)| format!("it never decides `{}`: {why}", verb.word()))
}

/// Messages of netlink without its sockets.
fn messages(rule: &Rule) -> Option<String> {
    let none = are_all(&rule.fields.family, |family| family.0 != libc::AF_NETLINK);
    (none && !rule.fields.netlink.is_empty())
        .then(|| "its `netlink` has no effect without the family AF_NETLINK".to_owned())
}

/// Whether a list has values and `is` holds for all of them. A list that is absent means any value.
fn are_all<T>(list: &[T], is: impl Fn(&T) -> bool) -> bool {
    !list.is_empty() && list.iter().all(is)
}
