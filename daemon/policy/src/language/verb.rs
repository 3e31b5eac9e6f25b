//! What a rule can grant: the verbs of the rule language.

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::vocabulary::words;

words! {
    /// What a rule can grant.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Verb {
        Create "create" "Create a socket, or a pair of sockets.";
        Adopt "adopt" "Make a socket of the session from a descriptor of the client.";
        Bind "bind" "Assign a local address to a socket.";
        Listen "listen" "Mark a socket as accepting connections.";
        Accept "accept" "Accept a connection.";
        Connect "connect" "Set the peer, also by `MSG_FASTOPEN`.";
        Send "send" "Transmit, with headers that the kernel creates.";
        Receive "receive" "Receive data for this socket.";
        Option "option" "Read or write an option, attach a filter, send ancillary data, by class.";
        Ioctl "ioctl" "`ioctl` requests about the socket itself.";
        Capture "capture" "Receive on `AF_PACKET`, or switch `SIO_RCVALL` on.";
        Inject "inject" "Transmit frames on `AF_PACKET`.";
        Spoof "spoof" "Transmit packets with headers that the caller writes: `IPPROTO_RAW`, `IP_HDRINCL`.";
        Transparent "transparent" "Use addresses that are not the host's: `IP_TRANSPARENT`, `IP_FREEBIND`.";
        Inspect "inspect" "Read the state of a socket of the session, wait for it, duplicate it, shut it down.";
        Handover "handover" "Receive the descriptor itself.";
        Session "session" "Keep handles beyond one connection: open or clone a session.";
        Persist "persist" "Let a session and its handles outlive the processes that serve them: open it with `persist`.";
        Resolve "resolve" "Query the name service and the databases.";
        Interfaces "interfaces" "List interfaces and read their properties.";
        Hostname "hostname" "Read the host name.";
        SetHostname "sethostname" "Change the host name.";
        Admin "admin" "List the sessions and handles of all users; reload the policy.";
    }
}

impl Verb {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its index in [`Verb::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Whether its requests are about a socket.
    pub(crate) fn concerns_socket(self) -> bool {
        match self {
            Self::Create
            | Self::Adopt
            | Self::Bind
            | Self::Listen
            | Self::Accept
            | Self::Connect
            | Self::Send
            | Self::Receive
            | Self::Option
            | Self::Ioctl
            | Self::Capture
            | Self::Inject
            | Self::Spoof
            | Self::Transparent
            | Self::Inspect
            | Self::Handover => true,
            Self::Session
            | Self::Persist
            | Self::Resolve
            | Self::Interfaces
            | Self::Hostname
            | Self::SetHostname
            | Self::Admin => false,
        }
    }

    /// The verb of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.word() == word)
    }
}

impl<'de> Deserialize<'de> for Verb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::from_word(&word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|verb| verb.word()).collect();
            D::Error::custom(format!("unknown verb `{word}`; the verbs are: {}", known.join(", ")))
        })
    }
}

/// What a rule does with the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Grants them.
    Allow,
    /// Refuses them, even if another rule grants them.
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

/// A set of verbs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VerbSet(u32);

impl VerbSet {
    /// Whether a verb is in it.
    pub(crate) fn has(self, verb: Verb) -> bool {
        self.0 & 1 << verb.index() != 0
    }

    /// The verbs in it, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.iter().copied().filter(move |verb| self.has(*verb))
    }
}

impl FromIterator<Verb> for VerbSet {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        Self(verbs.into_iter().fold(0, |set, verb| set | 1 << verb.index()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_own_word_and_fits_into_a_set() {
        for (index, verb) in Verb::ALL.iter().enumerate() {
            assert_eq!((verb.index(), Verb::from_word(verb.word())), (index, Some(*verb)));
        }
        let all: VerbSet = Verb::ALL.iter().copied().collect();
        assert_eq!(all.iter().count(), Verb::COUNT);
        assert!(!VerbSet::default().has(Verb::Create));
    }
}
