//! The closed list of what can be asked of the policy, with the operands it may judge by.
//!
//! Each request is a type of its own, so that the permit for one cannot be spent on another, and so
//! that an operation runs with the very operands that were judged.

use std::time::Duration;

use sockbroker_proto::address::Address;

use super::netlink::MessageClass;
use super::option::{OptionClass, class_of, class_of_ancillary, class_of_reading};
use super::question::Question;
pub use super::verb::Verb;

/// `socket(family, type, proto)` as the kernel knows the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketFacts {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`, without flags.
    pub kind: i32,
    /// The protocol.
    pub proto: i32,
}

/// `SOCK_PACKET`: with `AF_INET` the kernel makes an `AF_PACKET` socket (`__sock_create`).
const SOCK_PACKET: i32 = 10;

impl SocketFacts {
    /// As rules judge it: the family that the kernel makes of it, and the protocol that 0 stands for.
    #[must_use]
    pub fn judged(self) -> Self {
        let Self { family, kind, proto } = self;
        match (family, kind, proto) {
            (libc::AF_INET, SOCK_PACKET, _) => Self { family: libc::AF_PACKET, ..self },
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, 0) => {
                Self { proto: libc::IPPROTO_TCP, ..self }
            }
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, 0) => {
                Self { proto: libc::IPPROTO_UDP, ..self }
            }
            _ => self,
        }
    }

    /// Whether whoever holds its descriptor can do what only the opening of it was checked for.
    pub fn is_unrevocable(self) -> bool {
        let families = [libc::AF_PACKET, libc::AF_NETLINK, libc::AF_KEY, libc::AF_XDP];
        self.kind == libc::SOCK_RAW || families.contains(&self.judged().family)
    }

    fn is_packet(self) -> bool {
        self.judged().family == libc::AF_PACKET
    }
}

/// Something the policy can be asked.
pub trait Request {
    /// What a rule must grant.
    fn question(&self) -> Question<'_>;

    /// What must be granted beside it.
    fn further(&self, _ask: &mut dyn FnMut(Question<'_>)) {}
}

/// Requests that concern a socket and nothing more.
macro_rules! socket_requests {
    ($($(#[$doc:meta])* $name:ident => $verb:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name {
            /// The socket.
            pub socket: SocketFacts,
        }

        impl Request for $name {
            fn question(&self) -> Question<'_> {
                Question::about(Verb::$verb, self.socket)
            }
        }
    )*};
}

/// Requests that concern no socket.
macro_rules! host_requests {
    ($($(#[$doc:meta])* $name:ident => $verb:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Request for $name {
            fn question(&self) -> Question<'_> {
                Question::new(Verb::$verb)
            }
        }
    )*};
}

socket_requests! {
    /// Take over a descriptor.
    Adopt => Adopt;
    /// State, names, readiness, `shutdown`, `dup` of one's own socket.
    Inspect => Inspect;
    /// A descriptor for the client.
    Handover => Handover;
}

host_requests! {
    /// `session.open` and `session.clone`.
    OpenSession => Session;
    /// `getaddrinfo` and its kin, and the databases.
    Resolve => Resolve;
    /// `if_nameindex` and its kin, and interface queries by `ioctl`.
    Interfaces => Interfaces;
    /// `gethostname`.
    Hostname => Hostname;
    /// `admin.*`: look at the sessions and handles of everybody, load the policy anew.
    Administer => Admin;
}

/// Make a socket or a pair. A packet socket with a protocol captures from all interfaces at once.
#[derive(Debug, Clone, Copy)]
pub struct Create {
    /// The socket.
    pub socket: SocketFacts,
}

impl Request for Create {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Create, self.socket)
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        if self.socket.is_packet() && self.socket.proto != 0 {
            ask(Question::about(Verb::Capture, self.socket));
        }
    }
}

/// `bind`.
#[derive(Debug, Clone)]
pub struct Bind {
    /// The socket.
    pub socket: SocketFacts,
    /// The address, after resolution.
    pub address: Address,
    /// The interface that it names.
    pub interface: Option<String>,
}

impl Request for Bind {
    fn question(&self) -> Question<'_> {
        let question = Question::about(Verb::Bind, self.socket);
        question.from(Some(&self.address)).on(self.interface.as_deref())
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "other addresses only bind")]
        match self.address {
            // A packet socket that has a protocol begins to capture there.
            Address::Packet { protocol, .. } if protocol != 0 || self.socket.proto != 0 => {
                ask(Question::about(Verb::Capture, self.socket).on(self.interface.as_deref()));
            }
            Address::Netlink { groups, .. } if groups != 0 => {
                let option = Some(OptionClass::Netlink);
                ask(Question { option, ..Question::about(Verb::Option, self.socket) });
            }
            _ => {}
        }
    }
}

/// `listen`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The socket.
    pub socket: SocketFacts,
    /// The backlog.
    pub backlog: i32,
    /// The address it is bound to, where a rule asks for it.
    pub local: Option<Address>,
}

impl Request for Listen {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Listen, self.socket).from(self.local.as_ref())
    }
}

/// `accept`. Who connects is known afterwards only: what is then received and sent is judged by it.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The socket that listens.
    pub socket: SocketFacts,
    /// The address it is bound to, where a rule asks for it.
    pub local: Option<Address>,
}

impl Request for Accept {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Accept, self.socket).from(self.local.as_ref())
    }
}

/// `connect`.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The socket.
    pub socket: SocketFacts,
    /// The address, after resolution.
    pub address: Address,
    /// How the rules see it, where that differs: the host that `0.0.0.0` reaches.
    pub reached: Option<Address>,
    /// The address it is bound to, where a rule asks for it.
    pub local: Option<Address>,
    /// How long ago this session looked the address up.
    pub looked_up: Option<Duration>,
}

impl Request for Connect {
    fn question(&self) -> Question<'_> {
        // Giving up a connection reaches nobody.
        if self.address == Address::Unspecified {
            return Question::about(Verb::Inspect, self.socket);
        }
        let question = Question::about(Verb::Connect, self.socket).from(self.local.as_ref());
        let question = question.to(Some(self.reached.as_ref().unwrap_or(&self.address)));
        Question { looked_up: self.looked_up, ..question }
    }
}

/// Any sending call.
#[derive(Debug, Clone)]
pub struct Send {
    /// The socket.
    pub socket: SocketFacts,
    /// The destination of this message, after resolution.
    pub destination: Option<Address>,
    /// How the rules see where it goes, where that differs: the peer, the host that `0.0.0.0` reaches.
    pub reached: Option<Address>,
    /// The source, from the message or the socket, where a rule asks for it.
    pub source: Option<Address>,
    /// The interface that the message or the socket names.
    pub interface: Option<String>,
    /// How long ago this session looked the destination up.
    pub looked_up: Option<Duration>,
    /// Whether the data begins with a header that the kernel would otherwise make.
    pub own_headers: bool,
    /// Whether it connects as well (`MSG_FASTOPEN`).
    pub connects: bool,
    /// Level and type of its ancillary data.
    pub ancillary: Vec<(i32, i32)>,
    /// The classes of its netlink messages.
    pub messages: Vec<MessageClass>,
}

impl Send {
    /// Data on a socket, to where it is connected or to a destination.
    pub fn new(socket: SocketFacts, destination: Option<Address>) -> Self {
        Self {
            socket,
            destination,
            reached: None,
            source: None,
            interface: None,
            looked_up: None,
            own_headers: false,
            connects: false,
            ancillary: Vec::new(),
            messages: Vec::new(),
        }
    }

    fn about(&self, verb: Verb) -> Question<'_> {
        let remote = self.reached.as_ref().or(self.destination.as_ref());
        let question = Question::about(verb, self.socket).from(self.source.as_ref()).to(remote);
        // Without a destination it goes where `connect` was judged to lead.
        let looked_up = self.destination.as_ref().map_or(Some(Duration::ZERO), |_| self.looked_up);
        Question { looked_up, ..question.on(self.interface.as_deref()) }
    }
}

impl Request for Send {
    fn question(&self) -> Question<'_> {
        let verb = if self.socket.is_packet() {
            Verb::Inject
        } else if self.own_headers {
            Verb::Spoof
        } else {
            Verb::Send
        };
        Question { message: self.messages.first().copied(), ..self.about(verb) }
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        if self.connects {
            ask(self.about(Verb::Connect));
        }
        for class in self.messages.iter().skip(1) {
            ask(Question { message: Some(*class), ..self.about(Verb::Send) });
        }
        for (level, kind) in &self.ancillary {
            let class = class_of_ancillary(self.socket.family, *level, *kind);
            let question = Question::about(class.verb(), self.socket);
            ask(Question { option: Some(class), ..question.on(self.interface.as_deref()) });
        }
    }
}

/// Any receiving call. On a packet socket it captures.
#[derive(Debug, Clone)]
pub struct Receive {
    /// The socket.
    pub socket: SocketFacts,
    /// The address it is connected to, where a rule asks for it.
    pub peer: Option<Address>,
    /// For a packet socket: the interface it is bound to, where a rule asks for it.
    pub interface: Option<String>,
    /// Bytes of each packet that are asked for.
    pub length: u64,
}

impl Request for Receive {
    fn question(&self) -> Question<'_> {
        if self.socket.is_packet() {
            let question = Question::about(Verb::Capture, self.socket);
            let length = Some(self.length);
            return Question { length, ..question.on(self.interface.as_deref()) };
        }
        Question::about(Verb::Receive, self.socket).to(self.peer.as_ref())
    }
}

/// Switch a sniffer on or off.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The socket.
    pub socket: SocketFacts,
    /// The interface.
    pub interface: Option<String>,
}

impl Request for Capture {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Capture, self.socket).on(self.interface.as_deref())
    }
}

/// Which way an option goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionAccess {
    /// `getsockopt`.
    Read,
    /// `setsockopt`, or attaching and detaching a filter.
    Write,
}

/// `getsockopt`, `setsockopt` and filters.
#[derive(Debug, Clone)]
pub struct SocketOption {
    /// The socket.
    pub socket: SocketFacts,
    /// Read or write.
    pub access: OptionAccess,
    /// `SOL_*`.
    pub level: i32,
    /// `SO_*`.
    pub name: i32,
    /// The multicast group that the value names.
    pub group: Option<Address>,
    /// The interface that the value names.
    pub interface: Option<String>,
}

impl SocketOption {
    /// An option whose value names nothing that rules know.
    pub fn new(socket: SocketFacts, access: OptionAccess, level: i32, name: i32) -> Self {
        Self { socket, access, level, name, group: None, interface: None }
    }

    /// Its class, for this access.
    pub fn class(&self) -> OptionClass {
        match self.access {
            OptionAccess::Read => class_of_reading(self.socket.family, self.level, self.name),
            OptionAccess::Write => class_of(self.socket.family, self.level, self.name),
        }
    }
}

impl Request for SocketOption {
    fn question(&self) -> Question<'_> {
        let class = self.class();
        let question = Question::about(class.verb(), self.socket).to(self.group.as_ref());
        Question { option: Some(class), ..question.on(self.interface.as_deref()) }
    }
}

/// `ioctl` with a known request.
#[derive(Debug, Clone, Copy)]
pub struct Ioctl {
    /// The socket.
    pub socket: SocketFacts,
    /// The request.
    pub request: u64,
}

impl Request for Ioctl {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Ioctl, self.socket)
    }
}

/// `sethostname`.
#[derive(Debug, Clone)]
pub struct SetHostname {
    /// The new name.
    pub name: String,
}

impl Request for SetHostname {
    fn question(&self) -> Question<'_> {
        Question::new(Verb::SetHostname)
    }
}

/// Use a network namespace other than the broker's.
#[derive(Debug, Clone)]
pub struct EnterNetns {
    /// Its name, or the path of its file.
    pub name: String,
}

impl Request for EnterNetns {
    fn question(&self) -> Question<'_> {
        Question { netns: Some(&self.name), ..Question::new(Verb::Netns) }
    }
}
