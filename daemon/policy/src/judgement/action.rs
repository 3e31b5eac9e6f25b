//! The closed list of requests to the policy, with the operands that rules judge.
//!
//! Each request has its own type, so that the permit for one cannot be used for another, and so
//! that an operation runs with the very operands that were judged.

use crate::judgement::capture_scope::CaptureScope;
use crate::judgement::socket_spec::CAPTURE_SOCKET;
use std::sync::Arc;

use sockbroker_proto::socket_spec::SocketSpec;

use crate::judgement::option::{OptionClass, class_of, class_of_reading};
use crate::judgement::question::Question;
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::judgement::target::SocketName;
use crate::language::verb::Verb;

/// A request that the policy can authorize.
pub trait Request {
    /// What a rule must grant.
    fn question(&self) -> Question<'_>;

    /// What must be granted in addition.
    fn further(&self, _ask: &mut dyn FnMut(Question<'_>)) {}
}

/// Requests that concern a socket and nothing more.
macro_rules! socket_requests {
    ($($(#[$doc:meta])* $name:ident => $verb:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name {
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
    /// State, names, readiness, timeout and `dup` of a socket of the session.
    Inspect => Inspect;
}

host_requests! {
    /// `session.open` and `session.clone`.
    OpenSession => Session;
    /// `session.open` with `persist`.
    PersistSession => Persist;
    /// `getaddrinfo` and related calls, and the databases.
    Resolve => Resolve;
    /// `if_nameindex` and related calls, and interface queries by `ioctl`.
    Interfaces => Interfaces;
    /// `gethostname`.
    Hostname => Hostname;
    /// `admin.*`: list the sessions and handles of all users, reload the policy.
    Administer => Admin;
}

/// Make a socket or a pair. A packet socket with a protocol captures from all interfaces at once.
#[derive(Debug, Clone, Copy)]
pub struct Create {
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
    pub socket: SocketSpec,
    /// The rule that denies what the holder could then do without the broker.
    pub escapes: Option<Arc<str>>,
}

impl Request for Handover {
    fn question(&self) -> Question<'_> {
        let escapes = self.escapes.as_deref();
        Question { escapes, ..Question::about(Verb::Handover, self.socket) }
    }
}

/// Take over a descriptor of the client.
#[derive(Debug)]
pub struct Adopt<D> {
    /// The domain, type and protocol that the kernel reports.
    pub socket: SocketSpec,
    pub descriptor: D,
}

impl<D> Request for Adopt<D> {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Adopt, self.socket)
    }
}

/// `shutdown`.
#[derive(Debug, Clone, Copy)]
pub struct Shutdown {
    pub socket: SocketSpec,
    /// `SHUT_*`.
    pub how: i32,
}

impl Request for Shutdown {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Inspect, self.socket)
    }
}

/// Switch a capture by `SIO_RCVALL` on or off.
#[derive(Debug, Clone)]
pub struct Capture {
    pub socket: SocketSpec,
    pub interface: Option<String>,
    /// `RCVALL_ON`.
    pub on: bool,
}

impl Request for Capture {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Capture, self.socket).on(self.interface.as_deref())
    }
}

/// Open a capture: a stream of packets. [`RightsIn::authorize_capture`](super::within::RightsIn::authorize_capture) judges
/// it.
#[derive(Debug, Clone)]
pub struct OpenCapture {
    /// The interfaces; none for all of them.
    pub interfaces: Vec<String>,
    /// The most bytes of each packet.
    pub snaplen: u32,
    /// Whether the interfaces receive packets for other hosts.
    pub promiscuous: bool,
}

impl OpenCapture {
    fn capture<'a>(&'a self, interface: Option<&'a String>) -> Question<'a> {
        let length = Some(self.snaplen.into());
        let question = Question::about(Verb::Capture, CAPTURE_SOCKET);
        Question { length, ..question }.on(interface.map(String::as_str))
    }

    /// The questions that a scope answers: one for each interface, or one for all interfaces.
    pub(super) fn captures(&self) -> impl Iterator<Item = Question<'_>> {
        let every = self.interfaces.is_empty().then(|| self.capture(None));
        self.interfaces.iter().map(|interface| self.capture(Some(interface))).chain(every)
    }

    /// The questions whether its interfaces can be promiscuous.
    pub(super) fn options(&self) -> impl Iterator<Item = Question<'_>> {
        let interfaces = self.interfaces.iter().filter(|_| self.promiscuous);
        interfaces.map(|interface| {
            let question = Question::about(Verb::Option, CAPTURE_SOCKET).on(Some(interface));
            Question { option: Some(OptionClass::Packet), ..question }
        })
    }
}

/// A capture that was judged, with the packets that the rules let through. It is made with its permit alone.
#[derive(Debug)]
pub struct ScopedCapture {
    pub(super) capture: OpenCapture,
    pub(super) scopes: Vec<CaptureScope>,
}

impl ScopedCapture {
    /// The packets that are let through: of each interface in order, or of all interfaces.
    pub fn scopes(&self) -> &[CaptureScope] {
        &self.scopes
    }

    /// What is let through, a line for each rule.
    pub fn lines(&self) -> Vec<String> {
        self.scopes.iter().flat_map(CaptureScope::lines).collect()
    }

    /// What was judged, and the packets that are let through.
    pub fn into_parts(self) -> (OpenCapture, Vec<CaptureScope>) {
        (self.capture, self.scopes)
    }
}

impl Request for ScopedCapture {
    fn question(&self) -> Question<'_> {
        self.capture.capture(self.capture.interfaces.first())
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// An integer.
    Int(i64),
    /// A buffer.
    Bytes(Vec<u8>),
    /// A null pointer with a length: Python's `None` form.
    Null(u32),
}

impl OptionValue {
    /// The bytes that the kernel gets of it on a socket of a domain; what does not fit is refused later.
    pub fn bytes(&self, domain: i32) -> Vec<u8> {
        match self {
            Self::Int(value) if domain == libc::AF_VSOCK => value.to_ne_bytes().to_vec(),
            Self::Int(value) => {
                i32::try_from(*value).map(|value| value.to_ne_bytes().to_vec()).unwrap_or_default()
            }
            Self::Bytes(bytes) => bytes.clone(),
            Self::Null(_) => Vec::new(),
        }
    }
}

/// `getsockopt`.
#[derive(Debug, Clone, Copy)]
pub struct GetOption {
    pub socket: SocketSpec,
    /// `SOL_*`.
    pub level: i32,
    /// `SO_*`.
    pub name: i32,
    /// The size of the buffer; 0 for an integer.
    pub length: u32,
}

impl Request for GetOption {
    fn question(&self) -> Question<'_> {
        let class = class_of_reading(self.socket.domain, self.level, self.name);
        Question { option: Some(class), ..Question::about(class.verb(), self.socket) }
    }
}

/// `setsockopt`.
#[derive(Debug, Clone)]
pub struct SetOption {
    pub socket: SocketSpec,
    /// `SOL_*`.
    pub level: i32,
    /// `SO_*`.
    pub name: i32,
    pub value: OptionValue,
    /// The multicast group that the value names.
    pub group: Option<SocketName>,
    /// The interfaces that the value can name.
    pub interfaces: Vec<String>,
    /// The source that the value chooses for what is sent later.
    pub source: Option<SocketName>,
    /// Hosts on the route of what is sent later.
    pub hops: Vec<SocketName>,
}

impl SetOption {
    /// An option whose value names nothing that rules know.
    pub fn new(socket: SocketSpec, level: i32, name: i32, value: OptionValue) -> Self {
        Self {
            socket,
            level,
            name,
            value,
            group: None,
            interfaces: Vec::new(),
            source: None,
            hops: Vec::new(),
        }
    }

    pub fn class(&self) -> OptionClass {
        class_of(self.socket.domain, self.level, self.name)
    }
}

impl Request for SetOption {
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

/// Attach or detach a filter of received packets.
#[derive(Debug, Clone)]
pub struct SetFilter {
    pub socket: SocketSpec,
    /// The program to attach (`struct sock_filter`, 8 bytes each); `None` detaches.
    pub program: Option<Vec<u8>>,
}

impl Request for SetFilter {
    fn question(&self) -> Question<'_> {
        let name = match self.program {
            Some(_) => libc::SO_ATTACH_FILTER,
            None => libc::SO_DETACH_FILTER,
        };
        let class = class_of(self.socket.domain, libc::SOL_SOCKET, name);
        Question { option: Some(class), ..Question::about(class.verb(), self.socket) }
    }
}

/// `ioctl` about an interface (`netdevice(7)`).
#[derive(Debug, Clone)]
pub struct InterfaceIoctl {
    pub request: u64,
    /// The name of the interface.
    pub name: String,
}

impl Request for InterfaceIoctl {
    fn question(&self) -> Question<'_> {
        Question::new(Verb::Interfaces)
    }
}

/// `ioctl` with a known request.
#[derive(Debug, Clone, Copy)]
pub struct Ioctl {
    pub socket: SocketSpec,
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
