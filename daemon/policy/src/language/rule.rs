//! A rule as data.

use std::sync::Arc;
use std::time::Duration;

use crate::language::message_class::MessageClass;
use crate::language::name::{PathPrefix, Pattern};
use crate::language::option_class::OptionClass;
use crate::language::qualifier::{Handover, Paths};
use crate::language::subjects::Subjects;
use crate::language::value::{Family, Network, Ports, Protocol, SocketType};
use crate::language::verb::{Verb, VerbSet};
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

/// A rule. Empty lists and `None` mean any, with the exceptions told at the fields.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the rule language: sockbroker-policy(5)")]
pub struct Rule {
    pub name: Arc<str>,
    pub effect: Effect,
    pub subject: Subjects,
    pub(crate) verbs: VerbSet,
    pub(crate) sockets: Sockets,
    pub family: Vec<Family>,
    pub kind: Vec<SocketType>,
    pub protocol: Vec<Protocol>,
    pub local: Vec<Network>,
    pub local_ports: Vec<Ports>,
    pub remote: Vec<Network>,
    pub remote_ports: Vec<Ports>,
    pub interface: Vec<Pattern>,
    pub path: Vec<PathPrefix>,
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
pub(crate) struct Sockets {
    families: u64,
    kinds: u64,
    any: bool,
}

impl Sockets {
    /// Those of two lists, of which an empty one means any.
    pub(crate) fn new(families: &[Family], kinds: &[SocketType]) -> Self {
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
    pub(crate) fn admit(self, socket: Option<SocketSpec>) -> bool {
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
pub(crate) fn admits<T, V>(list: &[T], operand: Option<V>, holds: impl Fn(&T, V) -> bool) -> bool
where
    V: Copy,
{
    list.is_empty() || operand.is_some_and(|operand| list.iter().any(|item| holds(item, operand)))
}

impl Rule {
    /// The verbs it is about.
    pub fn verbs(&self) -> impl Iterator<Item = Verb> {
        self.verbs.iter()
    }

    /// Whether it is about a verb.
    pub(crate) fn has_verb(&self, verb: Verb) -> bool {
        self.verbs.has(verb)
    }
}
