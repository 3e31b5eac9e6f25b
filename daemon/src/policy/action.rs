//! The closed list of what can be asked of the policy, with the operands it may judge by.
//!
//! Each request is a type of its own, so that the permit for one cannot be spent on another, and so
//! that an operation runs with the very operands that were judged.

use sockbroker_proto::address::Address;

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

/// What a rule can grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Make a socket.
    Create,
    /// Take over a descriptor of the client.
    Adopt,
    /// Give a socket a local address.
    Bind,
    /// Make it accept connections.
    Listen,
    /// Take a connection.
    Accept,
    /// Set the peer.
    Connect,
    /// Transmit.
    Send,
    /// Receive.
    Receive,
    /// Read or write an option, or attach a filter.
    Option,
    /// `ioctl`.
    Ioctl,
    /// Switch a sniffer on.
    Capture,
    /// Look at the state of one's own socket, wait for it, end it.
    Inspect,
    /// Hand the descriptor to the client.
    Handover,
    /// Keep handles beyond one connection: open or clone a session.
    Session,
    /// Ask the name service.
    Resolve,
    /// List interfaces.
    Interfaces,
    /// Read the name of the host.
    Hostname,
    /// Change the name of the host.
    SetHostname,
    /// See the sessions and handles of everybody.
    Admin,
}

impl Verb {
    /// The word of the rule language.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Adopt => "adopt",
            Self::Bind => "bind",
            Self::Listen => "listen",
            Self::Accept => "accept",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Option => "option",
            Self::Ioctl => "ioctl",
            Self::Capture => "capture",
            Self::Inspect => "inspect",
            Self::Handover => "handover",
            Self::Session => "session",
            Self::Resolve => "resolve",
            Self::Interfaces => "interfaces",
            Self::Hostname => "hostname",
            Self::SetHostname => "sethostname",
            Self::Admin => "admin",
        }
    }
}

/// Something the policy can be asked.
pub trait Request {
    /// What a rule must grant.
    fn verb(&self) -> Verb;
    /// The socket it concerns, if one.
    fn socket(&self) -> Option<SocketFacts>;
    /// The address it concerns, if one.
    fn address(&self) -> Option<&Address> {
        None
    }
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
            fn verb(&self) -> Verb {
                Verb::$verb
            }

            fn socket(&self) -> Option<SocketFacts> {
                Some(self.socket)
            }
        }
    )*};
}

/// Requests that concern a socket and an address.
macro_rules! address_requests {
    ($($(#[$doc:meta])* $name:ident => $verb:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            /// The socket.
            pub socket: SocketFacts,
            /// The address, after resolution.
            pub address: Address,
        }

        impl Request for $name {
            fn verb(&self) -> Verb {
                Verb::$verb
            }

            fn socket(&self) -> Option<SocketFacts> {
                Some(self.socket)
            }

            fn address(&self) -> Option<&Address> {
                Some(&self.address)
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
            fn verb(&self) -> Verb {
                Verb::$verb
            }

            fn socket(&self) -> Option<SocketFacts> {
                None
            }
        }
    )*};
}

socket_requests! {
    /// Make a socket or a pair.
    Create => Create;
    /// Take over a descriptor.
    Adopt => Adopt;
    /// `accept`.
    Accept => Accept;
    /// Any receiving call.
    Receive => Receive;
    /// State, names, readiness, `shutdown`, `dup` of one's own socket.
    Inspect => Inspect;
    /// A descriptor for the client.
    Handover => Handover;
    /// Switch a sniffer on or off.
    Capture => Capture;
}

address_requests! {
    /// `bind`.
    Bind => Bind;
    /// `connect`.
    Connect => Connect;
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
    /// `admin.*`: look at the sessions and handles of everybody.
    Administer => Admin;
}

/// `listen`.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    /// The socket.
    pub socket: SocketFacts,
    /// The backlog.
    pub backlog: i32,
}

impl Request for Listen {
    fn verb(&self) -> Verb {
        Verb::Listen
    }

    fn socket(&self) -> Option<SocketFacts> {
        Some(self.socket)
    }
}

/// Any sending call; the destination if it names one.
#[derive(Debug, Clone)]
pub struct Send {
    /// The socket.
    pub socket: SocketFacts,
    /// The destination of this message, after resolution.
    pub destination: Option<Address>,
}

impl Request for Send {
    fn verb(&self) -> Verb {
        Verb::Send
    }

    fn socket(&self) -> Option<SocketFacts> {
        Some(self.socket)
    }

    fn address(&self) -> Option<&Address> {
        self.destination.as_ref()
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
#[derive(Debug, Clone, Copy)]
pub struct SocketOption {
    /// The socket.
    pub socket: SocketFacts,
    /// Read or write.
    pub access: OptionAccess,
    /// `SOL_*`.
    pub level: i32,
    /// `SO_*`.
    pub name: i32,
}

impl Request for SocketOption {
    fn verb(&self) -> Verb {
        Verb::Option
    }

    fn socket(&self) -> Option<SocketFacts> {
        Some(self.socket)
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
    fn verb(&self) -> Verb {
        Verb::Ioctl
    }

    fn socket(&self) -> Option<SocketFacts> {
        Some(self.socket)
    }
}

/// `sethostname`.
#[derive(Debug, Clone)]
pub struct SetHostname {
    /// The new name.
    pub name: String,
}

impl Request for SetHostname {
    fn verb(&self) -> Verb {
        Verb::SetHostname
    }

    fn socket(&self) -> Option<SocketFacts> {
        None
    }
}
