//! The network namespace of a socket, as rules judge it.

use std::sync::Arc;

use crate::language::netns::Netns;
use crate::language::rule::{Effect, Rule};

/// The network namespace of a socket. Rules without `netns` are about that of the broker, and about no other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
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
    /// The name by which the socket was made in it.
    pub name: Option<Arc<str>>,
}

/// The namespace of questions that name none.
pub(super) static BROKER: Place = Place::Broker;

impl From<&Netns> for Place {
    fn from(netns: &Netns) -> Self {
        Self::Other(match netns {
            Netns::Caller => Other { is_callers: true, name: None },
            Netns::Named(name) => Other { is_callers: false, name: Some(name.clone()) },
        })
    }
}

impl Place {
    /// One about which nothing is known. No rule of a file grants anything there, and no rule that denies overlooks it.
    pub fn unknown() -> Self {
        Self::Other(Other::default())
    }

    /// A namespace of a rule that grants something there, as a rule writes it; `None` for the broker's own.
    pub fn netns(&self) -> Option<Netns> {
        match self {
            Self::Other(Other { name: Some(name), .. }) => Some(Netns::Named(name.clone())),
            Self::Other(Other { is_callers: true, name: None }) => Some(Netns::Caller),
            Self::Broker | Self::Other(Other { is_callers: false, name: None }) => None,
        }
    }

    /// The namespace in words; `None` for the broker's own.
    pub fn words(&self) -> Option<String> {
        match (self, self.netns()) {
            (Self::Broker, _) => None,
            (Self::Other(_), Some(Netns::Caller)) => {
                Some("in the network namespace of the caller".to_owned())
            }
            (Self::Other(_), Some(Netns::Named(name))) => {
                Some(format!("in the network namespace {:?}", &*name))
            }
            (Self::Other(_), None) => Some("in an unknown network namespace".to_owned()),
        }
    }
}

impl Other {
    fn is(&self, netns: &Netns) -> bool {
        match netns {
            Netns::Caller => self.is_callers,
            Netns::Named(name) => self.name.as_ref() == Some(name),
        }
    }

    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Rule {
    /// Whether it is about a namespace.
    #[inline]
    pub(super) fn admits_place(&self, place: &Place) -> bool {
        let own = &self.fields.netns;
        match place {
            Place::Broker => own.is_empty(),
            Place::Other(other) => {
                let unknown = self.effect == Effect::Deny && other.is_unknown();
                unknown || own.iter().any(|netns| other.is(netns))
            }
        }
    }
}
