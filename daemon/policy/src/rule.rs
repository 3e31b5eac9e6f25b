//! One rule, ready to be asked.

use super::socket_spec::JudgedSocket as _;
use std::sync::Arc;
use std::time::Duration;

use super::grant;
use super::name::{PathPrefix, Pattern, is_plain};
use super::netlink::MessageClass;
use super::option::OptionClass;
use super::paths::Paths;
use super::question::{Endpoint, Question};
use super::subjects::Subjects;
use super::value::{Family, Network, Ports, Protocol, SocketType};
use super::verb::{Verb, VerbSet};
use sockbroker_proto::socket_spec::SocketSpec;

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Grants.
    Allow,
    /// Refuses, whatever else grants.
    Deny,
}

impl Effect {
    /// The word of the rule language.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How far a descriptor may be handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// Sockets with which the holder can do no more than an ordinary process.
    #[default]
    Ordinary,
    /// Raw, packet and netlink sockets too, which nobody can take back.
    Unrevocable,
}

impl Handover {
    /// The word of the rule language.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Unrevocable => "unrevocable",
        }
    }
}

/// A rule. Empty lists and `None` mean any, with the exceptions told at the fields.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the rule language: sockbroker-policy(5)")]
pub struct Rule {
    pub name: Arc<str>,
    pub effect: Effect,
    pub subject: Subjects,
    pub(super) verbs: VerbSet,
    pub(super) sockets: Sockets,
    pub family: Vec<Family>,
    pub kind: Vec<SocketType>,
    pub protocol: Vec<Protocol>,
    pub local: Vec<Network>,
    pub local_ports: Vec<Ports>,
    pub remote: Vec<Network>,
    pub remote_ports: Vec<Ports>,
    pub interface: Vec<Pattern>,
    pub path: Vec<PathPrefix>,
    pub netns: Vec<Pattern>,
    /// An `allow` with an empty list grants every class but `unknown`.
    pub option: Vec<OptionClass>,
    /// An `allow` with an empty list grants none.
    pub netlink: Vec<MessageClass>,
    /// The most bytes of each packet that may be captured.
    pub snaplen: Option<u64>,
    /// Without it: [`Handover::Ordinary`] in an `allow`, everything in a `deny`.
    pub handover: Option<Handover>,
    /// Whether descriptors are passed although a `deny` does not hold for them any more; without it they are
    /// not.
    pub unchecked: Option<bool>,
    /// Whose view of the file system a path as text means, where a rule grants such paths.
    pub paths: Option<Paths>,
    /// How old a look-up may be that a destination must come from; `None` needs none.
    pub lookup: Option<Duration>,
}

/// Families and types as bits, since every request about a socket is compared with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sockets {
    families: u64,
    kinds: u64,
    any: bool,
}

impl Sockets {
    /// Those of two lists, of which an empty one means any.
    pub(super) fn new(families: &[Family], kinds: &[SocketType]) -> Self {
        let set = |bits: &mut dyn Iterator<Item = u64>, empty: bool| {
            if empty { u64::MAX } else { bits.fold(0, |set, bit| set | bit) }
        };
        Self {
            families: set(&mut families.iter().map(|family| bit(family.0)), families.is_empty()),
            kinds: set(&mut kinds.iter().map(|kind| bit(kind.0)), kinds.is_empty()),
            any: families.is_empty() && kinds.is_empty(),
        }
    }

    #[inline]
    pub(super) fn admit(self, socket: Option<SocketSpec>) -> bool {
        self.any
            || socket.is_some_and(|socket| {
                let all = u64::MAX;
                (self.families == all || self.families & bit(socket.domain) != 0)
                    && (self.kinds == all || self.kinds & bit(socket.ty) != 0)
            })
    }
}

/// The bit of a family or type; Linux has families up to 45. None for what cannot be one.
fn bit(number: i32) -> u64 {
    u32::try_from(number).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0)
}

/// Whether an operand is in a list; an empty list admits everything, any other nothing that is absent.
pub(super) fn admits<T, V>(list: &[T], operand: Option<V>, holds: impl Fn(&T, V) -> bool) -> bool
where
    V: Copy,
{
    list.is_empty() || operand.is_some_and(|operand| list.iter().any(|item| holds(item, operand)))
}

impl Rule {
    /// Its fields but name and subject, as a line of the rule language.
    pub fn line(&self) -> String {
        grant::fields(self)
    }

    /// The verbs it is about.
    pub fn verbs(&self) -> impl Iterator<Item = Verb> {
        self.verbs.iter()
    }

    /// Whether it is about a verb.
    pub(super) fn has_verb(&self, verb: Verb) -> bool {
        self.verbs.has(verb)
    }

    /// Whether it decides this question, for a subject it is about.
    pub fn matches(&self, question: &Question<'_>) -> bool {
        // First what is cheap and most often decides.
        self.verbs.has(question.verb)
            && self.sockets.admit(question.socket)
            && self.admits_remote(question.remote, question.socket)
            && self.admits_local(question.local, question.socket)
            && self.admits_socket(question.socket)
            && self.admits_interface(question)
            && admits(&self.netns, question.netns, Pattern::matches)
            && self.admits_path(question)
            && self.admits_qualifiers(question)
    }

    /// The field that keeps it from deciding this question; `None` if it does. For people: slower than
    /// [`Rule::matches`], which says the same.
    pub fn mismatch(&self, question: &Question<'_>) -> Option<&'static str> {
        let (local, remote) = (question.local, question.remote);
        let qualifier = match question {
            Question { message: Some(_), .. } => "netlink",
            Question { option: Some(_), .. } => "option",
            Question { length: Some(_), .. } => "snaplen",
            Question { verb: Verb::Handover, .. } => "handover or unchecked",
            _ if question.names_text() => "paths",
            _ => "lookup",
        };
        let fields = [
            ("verb", self.verbs.has(question.verb)),
            ("family, type or protocol", self.admits_socket(question.socket)),
            ("local or local_ports", self.admits_local(local, question.socket)),
            ("remote or remote_ports", self.admits_remote(remote, question.socket)),
            ("interface", self.admits_interface(question)),
            ("netns", admits(&self.netns, question.netns, Pattern::matches)),
            ("path", self.admits_path(question)),
            (qualifier, self.admits_qualifiers(question)),
        ];
        fields.iter().find(|(_, admitted)| !admitted).map(|(field, _)| *field)
    }

    pub(super) fn admits_socket(&self, socket: Option<SocketSpec>) -> bool {
        self.sockets.admit(socket)
            && admits(&self.protocol, socket, |protocol, socket| protocol.0 == socket.protocol)
    }

    fn admits_local(&self, local: Option<Endpoint<'_>>, socket: Option<SocketSpec>) -> bool {
        self.may_be(local, socket)
            || admits(&self.local, local, |network, local| {
                // A wildcard takes what comes for any address: no `deny` overlooks it.
                let wildcard = matches!(local, Endpoint::Ip(ip, _) if ip.is_unspecified());
                holds(*network, local) || wildcard && self.effect == Effect::Deny
            }) && admits(&self.local_ports, local, |ports, local| is_within(*ports, local))
    }

    fn admits_remote(&self, remote: Option<Endpoint<'_>>, socket: Option<SocketSpec>) -> bool {
        self.may_be(remote, socket)
            || admits(&self.remote, remote, |network, remote| holds(*network, remote))
                && admits(&self.remote_ports, remote, |ports, remote| is_within(*ports, remote))
    }

    fn admits_interface(&self, question: &Question<'_>) -> bool {
        // What captures from no interface in particular captures from all: no `deny` overlooks it.
        let all = question.verb == Verb::Capture && question.interface.is_none();
        admits(&self.interface, question.interface, Pattern::matches)
            || all && self.effect == Effect::Deny
    }

    /// Whether a `deny` about internet addresses has to be taken as matching an end that nobody can say.
    fn may_be(&self, end: Option<Endpoint<'_>>, socket: Option<SocketSpec>) -> bool {
        let internet = || {
            socket.is_some_and(|socket| [libc::AF_INET, libc::AF_INET6].contains(&socket.domain))
        };
        self.effect == Effect::Deny && end == Some(Endpoint::Unknown) && internet()
    }

    fn admits_path(&self, question: &Question<'_>) -> bool {
        let deny = self.effect == Effect::Deny;
        let local = question.socket.is_some_and(|socket| socket.domain == libc::AF_UNIX);
        admits(&self.path, question.remote.or(question.local), |prefix, endpoint| match endpoint {
            // Nobody can tell where it leads: no `deny` overlooks it.
            Endpoint::Path(path) if deny && !is_plain(path) => true,
            Endpoint::Path(path) => prefix.contains_path(path),
            Endpoint::File(facts) => {
                let below = facts.names.iter().any(|name| prefix.contains_path(name));
                if deny {
                    below || facts.possible.iter().any(|path| prefix.is(path))
                } else {
                    below && facts.visible
                }
            }
            Endpoint::Abstract(name) => prefix.contains_abstract(name),
            Endpoint::Unknown => deny && local,
            Endpoint::Ip(..) | Endpoint::Other => false,
        })
    }

    /// What says how much of a verb is meant. It concerns only requests that are about it.
    fn admits_qualifiers(&self, question: &Question<'_>) -> bool {
        let deny = self.effect == Effect::Deny;
        let option = question.option.is_none_or(|class| {
            class.verb() != Verb::Option
                || self.option.contains(&class)
                || self.option.is_empty() && (deny || class != OptionClass::Unknown)
        });
        let message = question
            .message
            .is_none_or(|class| self.netlink.contains(&class) || self.netlink.is_empty() && deny);
        let length = question
            .length
            .is_none_or(|length| self.snaplen.is_none_or(|snaplen| length <= snaplen));
        let lookup = self.lookup.is_none_or(|limit| {
            !matches!(question.verb, Verb::Connect | Verb::Send)
                || question.looked_up.is_some_and(|age| age <= limit)
        });
        // The broker does not look paths up in place of its clients, unless a rule says so.
        let text = deny || self.paths == Some(Paths::Broker) || !question.names_text();
        option && message && length && lookup && text && self.admits_handover(question)
    }

    fn admits_handover(&self, question: &Question<'_>) -> bool {
        let strong = question.socket.is_some_and(SocketSpec::is_unrevocable);
        if question.verb != Verb::Handover {
            return true;
        }
        match (self.effect, self.handover) {
            (Effect::Allow, handover) => {
                (!strong || handover == Some(Handover::Unrevocable))
                    && (self.unchecked == Some(true) || question.escapes.is_none())
            }
            (Effect::Deny, None) => true,
            (Effect::Deny, Some(handover)) => strong == (handover == Handover::Unrevocable),
        }
    }
}

fn holds(network: Network, endpoint: Endpoint<'_>) -> bool {
    matches!(endpoint, Endpoint::Ip(ip, _) if network.contains(ip))
}

fn is_within(ports: Ports, endpoint: Endpoint<'_>) -> bool {
    matches!(endpoint, Endpoint::Ip(_, Some(port)) if (ports.first..=ports.last).contains(&port))
}
