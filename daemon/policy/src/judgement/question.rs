//! A question to the rules: a verb and the operands that rules judge.

use crate::judgement::socket_spec::JudgedSocket as _;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sockbroker_proto::address::Address;

use crate::judgement::namespace::{BROKER, Namespace};
use crate::judgement::target::{FileFacts, SocketName, Target};
use crate::language::message_class::MessageClass;
use crate::language::option_class::OptionClass;
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// One question to the rules. An operand that is `None` does not exist in the request, and no rule
/// that names it matches.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub verb: Verb,
    /// The socket, as [`SocketSpec::judged`] gives it.
    pub socket: Option<SocketSpec>,
    /// The local address.
    pub local: Option<Endpoint<'a>>,
    /// The address at the other end; for multicast options the group.
    pub remote: Option<Endpoint<'a>>,
    pub interface: Option<&'a str>,
    /// The network namespace of the socket.
    pub namespace: &'a Namespace,
    /// The class of the option.
    pub option: Option<OptionClass>,
    /// The class of the netlink message.
    pub message: Option<MessageClass>,
    /// For a capture: the bytes of each packet that the call requests.
    pub length: Option<u64>,
    /// The time since this session looked the remote address up; `None` if it did not.
    pub looked_up: Option<Duration>,
    /// For a descriptor that is passed: the `deny` that would not hold any more.
    pub escapes: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// A question about a verb without operands.
    pub fn new(verb: Verb) -> Self {
        Self {
            verb,
            socket: None,
            local: None,
            remote: None,
            interface: None,
            namespace: &BROKER,
            option: None,
            message: None,
            length: None,
            looked_up: None,
            escapes: None,
        }
    }

    /// About a socket.
    pub fn about(verb: Verb, socket: SocketSpec) -> Self {
        Self { socket: Some(socket.judged()), ..Self::new(verb) }
    }

    /// With the name of the local end.
    #[must_use]
    pub fn from(mut self, name: Option<&'a SocketName>) -> Self {
        self.local = name.map(|name| Endpoint::of_name(name, self.socket));
        self
    }

    /// With the name of the other end.
    #[must_use]
    pub fn to(mut self, name: Option<&'a SocketName>) -> Self {
        self.remote = name.map(|name| Endpoint::of_name(name, self.socket));
        self
    }

    /// With what a call names as the local end.
    #[must_use]
    pub fn at(mut self, target: &'a Target) -> Self {
        self.local = Some(Endpoint::of_target(target, self.socket));
        self
    }

    /// With what a call names as the other end.
    #[must_use]
    pub fn towards(mut self, target: &'a Target) -> Self {
        self.remote = Some(Endpoint::of_target(target, self.socket));
        self
    }

    /// The end whose path rules judge.
    pub(super) fn path_end(&self) -> Option<Endpoint<'a>> {
        self.remote.or(self.local)
    }

    /// Whether it names a file by a path as text, which the broker resolved in place of the caller.
    pub fn names_text(&self) -> bool {
        let ends = [self.local, self.remote].into_iter().flatten();
        ends.into_iter().any(|end| matches!(end, Endpoint::File(facts) if facts.as_text))
    }

    /// Whether it leads to a control socket of this broker.
    pub fn leads_to_broker(&self) -> bool {
        let ends = [self.local, self.remote].into_iter().flatten();
        ends.into_iter().any(|end| matches!(end, Endpoint::File(facts) if facts.is_control))
    }

    /// With an interface.
    #[must_use]
    pub fn on(mut self, interface: Option<&'a str>) -> Self {
        self.interface = interface;
        self
    }
}

/// An address as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// An IP address, v4-mapped ones in their IPv4 form, and the port where the protocol has ports.
    Ip(IpAddr, Option<u16>),
    /// A Unix socket in the file system, by the path that it was bound to.
    Path(&'a [u8]),
    /// A Unix socket in the file system, by its file.
    File(&'a FileFacts),
    /// A Unix socket in the abstract namespace.
    Abstract(&'a [u8]),
    /// Another family, which no field of a rule names.
    Other,
    /// One that the broker does not know.
    Unknown,
}

impl<'a> Endpoint<'a> {
    fn of_name(name: &'a SocketName, socket: Option<SocketSpec>) -> Self {
        match name {
            SocketName::Address(address) => Self::of(address, socket),
            SocketName::File(facts) => Self::File(facts),
            SocketName::Unknown => Self::Unknown,
        }
    }

    fn of_target(target: &'a Target, socket: Option<SocketSpec>) -> Self {
        match target {
            Target::Address(address) => Self::of(address, socket),
            Target::File(file) => Self::File(&file.facts),
        }
    }

    /// The endpoint of an address on a kind of socket. Raw and ICMP sockets ignore the port.
    pub fn of(address: &'a Address, socket: Option<SocketSpec>) -> Self {
        let port = |port| has_ports(socket).then_some(port);
        #[expect(clippy::wildcard_enum_match_arm, reason = "rules name only two kinds of address")]
        match address {
            Address::Inet { host, port: number } => Self::Ip((*host).into(), port(*number)),
            Address::Inet6 { host, port: number, .. } => Self::Ip(normal(*host), port(*number)),
            Address::UnixPath(path) => Self::Path(path),
            Address::UnixAbstract(name) => Self::Abstract(name),
            _ => Self::Other,
        }
    }
}

/// `::ffff:a.b.c.d` reaches the IPv4 host `a.b.c.d`.
fn normal(host: Ipv6Addr) -> IpAddr {
    host.to_ipv4_mapped().map_or(IpAddr::V6(host), IpAddr::V4)
}

fn has_ports(socket: Option<SocketSpec>) -> bool {
    socket.is_none_or(|socket| {
        socket.ty != libc::SOCK_RAW
            && ![libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&socket.protocol)
    })
}
