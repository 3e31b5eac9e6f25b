//! Requests that name the ends of sockets and messages: `bind`, `listen`, `accept`, `connect`, sending and
//! receiving.
//!
//! What the kernel makes of a message can depend on several inputs at once: an address, ancillary data,
//! options set before, the peer. Each request lists every end and interface that they name, and all of
//! them are judged.

use crate::judgement::socket_spec::JudgedSocket as _;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sockbroker_proto::address::Address;

use crate::judgement::action::Request;
use crate::judgement::question::Question;
use crate::judgement::target::{CarriedDescriptor, SocketName, Target};
use crate::language::message_class::MessageClass;
use crate::language::option_class::OptionClass;
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// `bind`.
#[derive(Debug, Clone)]
pub struct Bind {
    pub socket: SocketSpec,
    /// The address, after resolution.
    pub target: Target,
    /// The interface that it names.
    pub interface: Option<String>,
    /// For a packet socket: whether it has a protocol already.
    pub captures: bool,
}

impl Request for Bind {
    fn question(&self) -> Question<'_> {
        let question = Question::about(Verb::Bind, self.socket);
        question.at(&self.target).on(self.interface.as_deref())
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        match self.target.address() {
            // A packet socket that has a protocol begins to capture there.
            Some(Address::Packet { protocol, .. }) if *protocol != 0 || self.captures => {
                ask(Question::about(Verb::Capture, self.socket).on(self.interface.as_deref()));
            }
            Some(Address::Netlink { groups, .. }) if *groups != 0 => {
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
    pub socket: SocketSpec,
    pub backlog: i32,
    /// The name it is bound to, if a rule depends on it.
    pub local: Option<SocketName>,
}

impl Request for Listen {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Listen, self.socket).from(self.local.as_ref())
    }
}

/// `accept`. The peer is known only afterwards: receiving and sending are judged by it.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The socket that listens.
    pub socket: SocketSpec,
    /// The name it is bound to, if a rule depends on it.
    pub local: Option<SocketName>,
}

impl Request for Accept {
    fn question(&self) -> Question<'_> {
        Question::about(Verb::Accept, self.socket).from(self.local.as_ref())
    }
}

/// `connect`.
#[derive(Debug, Clone)]
pub struct Connect {
    pub socket: SocketSpec,
    /// The address, after resolution: never one that the kernel would replace by another.
    pub target: Target,
    /// The name it is bound to, if a rule depends on it.
    pub local: Option<SocketName>,
    /// The interfaces that the address and the socket name, if a rule depends on them.
    pub interfaces: Vec<String>,
    /// The time since this session looked the address up.
    pub looked_up: Option<Duration>,
}

impl Connect {
    fn about<'a>(&'a self, interface: Option<&'a String>) -> Question<'a> {
        let question = Question::about(Verb::Connect, self.socket).from(self.local.as_ref());
        let question = question.towards(&self.target).on(interface.map(String::as_str));
        Question { looked_up: self.looked_up, ..question }
    }
}

impl Request for Connect {
    fn question(&self) -> Question<'_> {
        // Dissolving a connection has no destination.
        if self.target.address() == Some(&Address::Unspecified) {
            return Question::about(Verb::Inspect, self.socket);
        }
        self.about(self.interfaces.first())
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        for interface in self.interfaces.iter().skip(1) {
            ask(self.about(Some(interface)));
        }
    }
}

/// An item of ancillary data to be sent.
#[derive(Debug)]
pub enum AncillaryItem {
    /// Raw bytes of any level and type but `SCM_RIGHTS`.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
        /// `cmsg_data`.
        data: Vec<u8>,
    },
    /// `SCM_RIGHTS`.
    Descriptors {
        /// What to pass on; the broker's copies close when the call ends.
        descriptors: Vec<Arc<dyn CarriedDescriptor>>,
        /// Odd trailing bytes, as the client gave them.
        rest: Vec<u8>,
    },
}

impl AncillaryItem {
    /// Level, type and bytes, as rules judge them.
    pub fn judged(&self) -> (i32, i32, &[u8]) {
        match self {
            Self::Data { level, kind, data } => (*level, *kind, data),
            Self::Descriptors { .. } => (libc::SOL_SOCKET, libc::SCM_RIGHTS, &[]),
        }
    }
}

/// What a message consists of.
#[derive(Debug, Default)]
pub struct MessageContents {
    /// The data, in parts.
    pub buffers: Vec<Bytes>,
    /// Ancillary data.
    pub ancillary: Vec<AncillaryItem>,
    /// `MSG_*`.
    pub flags: i32,
}

/// Any sending call.
#[derive(Debug)]
pub struct Send {
    pub socket: SocketSpec,
    /// The destination of this message, after resolution: never one in whose place the kernel would put
    /// another.
    pub destination: Option<Target>,
    /// What is sent; nothing where a file is, whose contents no rule sees.
    pub contents: MessageContents,
    /// Further ends that it may reach, where a rule asks for them: the peer, the header's destination.
    pub remotes: Vec<SocketName>,
    /// The sources it can have, if a rule depends on them: of the socket, the message, its header.
    pub locals: Vec<SocketName>,
    /// The interfaces that the message or the socket names, if a rule depends on them.
    pub interfaces: Vec<String>,
    /// The time since this session looked the destination up.
    pub looked_up: Option<Duration>,
    /// Whether the data begins with a header that the kernel would otherwise make.
    pub own_headers: bool,
    /// Whether it connects as well (`MSG_FASTOPEN`).
    pub connects: bool,
    /// The classes of its ancillary data.
    pub ancillary: Vec<OptionClass>,
    /// The classes of its netlink messages.
    pub messages: Vec<MessageClass>,
}

/// One of the combinations of ends and interface that a message can have.
#[derive(Debug, Clone, Copy, Default)]
struct Way<'a> {
    target: Option<&'a Target>,
    remote: Option<&'a SocketName>,
    local: Option<&'a SocketName>,
    interface: Option<&'a str>,
}

impl Send {
    /// Data on a socket, to where it is connected or to a destination.
    pub fn new(socket: SocketSpec, destination: Option<Target>) -> Self {
        Self {
            socket,
            destination,
            contents: MessageContents::default(),
            remotes: Vec::new(),
            locals: Vec::new(),
            interfaces: Vec::new(),
            looked_up: None,
            own_headers: false,
            connects: false,
            ancillary: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// The number of combinations of ends and interface that the message can have. Each of them is judged.
    pub fn combinations(&self) -> usize {
        let remotes = usize::from(self.destination.is_some()) + self.remotes.len();
        [self.locals.len(), self.interfaces.len()]
            .iter()
            .fold(remotes.max(1), |product, count| product.saturating_mul((*count).max(1)))
    }

    /// Every combination; at least one.
    fn ways(&self) -> impl Iterator<Item = Way<'_>> {
        let named = self.destination.as_ref().map(|target| (Some(target), None));
        let others = self.remotes.iter().map(|name| (None, Some(name)));
        let none = (self.destination.is_none() && self.remotes.is_empty()).then_some((None, None));
        let remotes = named.into_iter().chain(others).chain(none);
        let (locals, interfaces) = (&self.locals, &self.interfaces);
        remotes.flat_map(move |(target, remote)| {
            each(locals).flat_map(move |local| {
                each(interfaces).map(move |interface| Way {
                    target,
                    remote,
                    local,
                    interface: interface.map(String::as_str),
                })
            })
        })
    }

    fn about<'a>(&'a self, verb: Verb, way: Way<'a>) -> Question<'a> {
        let question = Question::about(verb, self.socket).from(way.local).on(way.interface);
        match way.target {
            Some(target) => Question { looked_up: self.looked_up, ..question.towards(target) },
            // Without a destination it goes to the peer, which was judged when it was connected.
            None => Question { looked_up: Some(Duration::ZERO), ..question.to(way.remote) },
        }
    }

    fn verb(&self) -> Verb {
        if self.socket.is_packet() {
            Verb::Inject
        } else if self.own_headers {
            Verb::Spoof
        } else {
            Verb::Send
        }
    }
}

/// Each of a list, or none once.
fn each<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
    let none = list.is_empty().then_some(None);
    list.iter().map(Some).chain(none)
}

impl Request for Send {
    fn question(&self) -> Question<'_> {
        let way = self.ways().next().unwrap_or_default();
        Question { message: self.messages.first().copied(), ..self.about(self.verb(), way) }
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        let first = iter::once(self.messages.first().copied());
        let others = self.messages.iter().skip(1).map(|class| Some(*class));
        for (index, message) in first.chain(others).enumerate() {
            // The very first is the question itself.
            for way in self.ways().skip(usize::from(index == 0)) {
                ask(Question { message, ..self.about(self.verb(), way) });
            }
        }
        if self.connects {
            self.ways().for_each(|way| ask(self.about(Verb::Connect, way)));
        }
        for class in &self.ancillary {
            for interface in each(&self.interfaces) {
                let question = Question::about(class.verb(), self.socket);
                let question = question.on(interface.map(String::as_str));
                ask(Question { option: Some(*class), ..question });
            }
        }
    }
}

/// Any receiving call. On a packet socket it captures.
#[derive(Debug, Clone)]
pub struct Receive {
    pub socket: SocketSpec,
    /// The ends it can be connected to, if a rule depends on them.
    pub peers: Vec<SocketName>,
    /// For a packet socket: the interface it is bound to, if a rule depends on it.
    pub interface: Option<String>,
    /// The most bytes of each message.
    pub length: usize,
    /// The most bytes of its ancillary data.
    pub ancillary: usize,
    /// `MSG_*`.
    pub flags: i32,
}

impl Request for Receive {
    fn question(&self) -> Question<'_> {
        if self.socket.is_packet() {
            let question = Question::about(Verb::Capture, self.socket);
            let length = Some(self.length as u64);
            return Question { length, ..question.on(self.interface.as_deref()) };
        }
        Question::about(Verb::Receive, self.socket).to(self.peers.first())
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        if !self.socket.is_packet() {
            for peer in self.peers.iter().skip(1) {
                ask(Question::about(Verb::Receive, self.socket).to(Some(peer)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
