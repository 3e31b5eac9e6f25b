//! The network namespace of a socket, as rules judge it.

use std::sync::Arc;

use crate::judgement::subject::OVERFLOW_UID;
use crate::language::netns::{Netns, NetnsPattern};
use crate::language::rule::{Effect, Rule};

/// The network namespace of a socket. Rules without `netns` are about that of the broker, and about no other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespace {
    /// The broker's own. This is so also for a socket that a caller in the same namespace made by `netns = "caller"`.
    #[default]
    Broker,
    /// Another one.
    Other(Other),
}

/// What is known of a network namespace that is not the broker's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Other {
    /// Whether it is the caller's.
    pub is_callers: bool,
    /// Whether the caller passed its descriptor, and owns it ([`owns`]).
    pub is_owned: bool,
    /// The name by which the socket was made in it.
    pub name: Option<Arc<str>>,
}

/// The namespace of questions that name none.
pub(super) static BROKER: Namespace = Namespace::Broker;

impl From<&Netns> for Namespace {
    fn from(netns: &Netns) -> Self {
        Self::Other(match netns {
            Netns::Caller => Other { is_callers: true, ..Other::default() },
            Netns::Owned => Other { is_owned: true, ..Other::default() },
            Netns::Named(name) => Other { name: Some(name.clone()), ..Other::default() },
        })
    }
}

impl Namespace {
    /// One about which nothing is known. No rule of a file grants anything there, and no rule that denies overlooks it.
    pub fn unknown() -> Self {
        Self::Other(Other::default())
    }

    /// A namespace of a rule that grants something there, as a rule writes it; `None` for the broker's own.
    pub fn netns(&self) -> Option<Netns> {
        match self {
            Self::Other(Other { name: Some(name), .. }) => Some(Netns::Named(name.clone())),
            Self::Other(Other { is_callers: true, .. }) => Some(Netns::Caller),
            Self::Other(Other { is_owned: true, .. }) => Some(Netns::Owned),
            Self::Broker | Self::Other(Other { .. }) => None,
        }
    }

    /// The namespace in words; `None` for the broker's own.
    pub fn words(&self) -> Option<String> {
        match (self, self.netns()) {
            (Self::Broker, _) => None,
            (Self::Other(_), Some(Netns::Caller)) => {
                Some("in the network namespace of the caller".to_owned())
            }
            (Self::Other(_), Some(Netns::Owned)) => {
                Some("in a network namespace that the caller owns".to_owned())
            }
            (Self::Other(_), Some(Netns::Named(name))) => {
                Some(format!("in the network namespace {:?}", &*name))
            }
            (Self::Other(_), None) => Some("in an unknown network namespace".to_owned()),
        }
    }
}

/// Whether a user owns a network namespace: `owner` made the user namespace to which it belongs. Nobody is known to own
/// those of users that have no id here.
pub fn owns(uid: u32, owner: Option<u32>) -> bool {
    owner == Some(uid) && uid != OVERFLOW_UID
}

impl Other {
    fn is(&self, netns: &NetnsPattern) -> bool {
        match netns {
            NetnsPattern::Any => !self.is_unknown(),
            NetnsPattern::One(Netns::Caller) => self.is_callers,
            NetnsPattern::One(Netns::Owned) => self.is_owned,
            NetnsPattern::One(Netns::Named(name)) => self.name.as_ref() == Some(name),
        }
    }

    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Rule {
    /// Whether it is about a namespace.
    #[inline]
    pub(super) fn admits_namespace(&self, namespace: &Namespace) -> bool {
        let own = &self.fields.netns;
        match namespace {
            Namespace::Broker => own.is_empty(),
            Namespace::Other(other) => {
                let unknown = self.effect == Effect::Deny && other.is_unknown();
                unknown || own.iter().any(|netns| other.is(netns))
            }
        }
    }
}
