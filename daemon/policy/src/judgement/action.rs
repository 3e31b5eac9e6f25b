//! The closed list of what can be asked of the policy, with the operands it may judge by.
//!
//! Each request is a type of its own, so that the permit for one cannot be spent on another, and so
//! that an operation runs with the very operands that were judged.

use std::sync::Arc;

use sockbroker_proto::socket_spec::SocketSpec;

use crate::judgement::option::{OptionClass, class_of, class_of_reading};
use crate::judgement::question::Question;
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::judgement::target::SocketName;
use crate::language::verb::Verb;

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
            pub socket: SocketSpec,
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
    pub socket: SocketSpec,
}

impl Request for Create {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Create, self.socket)
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        if self.socket.is_packet() && self.socket.protocol != 0 {
            ask(Question::about(Verb::Capture, self.socket));
        }
    }
}

/// Pass a descriptor to the client.
#[derive(Debug, Clone)]
pub struct Handover {
    /// The socket.
    pub socket: SocketSpec,
    /// The rule that refuses what the holder could then do without the broker.
    pub escapes: Option<Arc<str>>,
}

impl Request for Handover {
    fn question(&self) -> Question<'_> {
        let escapes = self.escapes.as_deref();
        Question { escapes, ..Question::about(Verb::Handover, self.socket) }
    }
}

/// Switch a sniffer on or off.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The socket.
    pub socket: SocketSpec,
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
    pub socket: SocketSpec,
    /// Read or write.
    pub access: OptionAccess,
    /// `SOL_*`.
    pub level: i32,
    /// `SO_*`.
    pub name: i32,
    /// The multicast group that the value names.
    pub group: Option<SocketName>,
    /// The interfaces that the value may mean.
    pub interfaces: Vec<String>,
    /// The source that the value chooses for what is sent later.
    pub source: Option<SocketName>,
    /// Hosts that what is sent later visits on its way.
    pub hops: Vec<SocketName>,
}

impl SocketOption {
    /// An option whose value names nothing that rules know.
    pub fn new(socket: SocketSpec, access: OptionAccess, level: i32, name: i32) -> Self {
        Self {
            socket,
            access,
            level,
            name,
            group: None,
            interfaces: Vec::new(),
            source: None,
            hops: Vec::new(),
        }
    }

    /// Its class, for this access.
    pub fn class(&self) -> OptionClass {
        match self.access {
            OptionAccess::Read => class_of_reading(self.socket.domain, self.level, self.name),
            OptionAccess::Write => class_of(self.socket.domain, self.level, self.name),
        }
    }
}

impl Request for SocketOption {
    fn question(&self) -> Question<'_> {
        let class = self.class();
        let question = Question::about(class.verb(), self.socket).to(self.group.as_ref());
        let interface = self.interfaces.first().map(String::as_str);
        Question { option: Some(class), ..question.on(interface) }
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        for interface in self.interfaces.iter().skip(1) {
            ask(self.question().on(Some(interface)));
        }
        if self.source.is_some() {
            ask(Question::about(Verb::Send, self.socket).from(self.source.as_ref()));
        }
        for hop in &self.hops {
            ask(Question::about(Verb::Send, self.socket).to(Some(hop)));
        }
    }
}

/// `ioctl` with a known request.
#[derive(Debug, Clone, Copy)]
pub struct Ioctl {
    /// The socket.
    pub socket: SocketSpec,
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
