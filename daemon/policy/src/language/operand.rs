//! The fields of a rule, declared once.
//!
//! Everything that differs from field to field is an exhaustive match over [`Operand`]: how a file writes
//! it (`fields.rs`), which verbs it applies to (here), which rules cover others (`check.rs`), the line of a
//! rule, and in `judgement` the matching, the missing grant, the words of `policy.check` and what has to
//! be found out before a decision. A field that is added and forgotten at one of these does not compile.

use crate::language::verb::Verb;
use crate::language::vocabulary::words;

words! {
    /// A field of a rule that limits which requests the rule is about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Operand {
        Family "family" "The family of the socket.";
        Type "type" "The type of the socket.";
        Protocol "protocol" "The protocol of the socket.";
        Local "local" "The local address.";
        LocalPorts "local_ports" "The local port.";
        Remote "remote" "The address at the other end.";
        RemotePorts "remote_ports" "The port at the other end.";
        Interface "interface" "The interface.";
        Netns "netns" "The network namespace of the socket; without it, a rule is about the broker's own.";
        Path "path" "The address of a Unix socket.";
        Option "option" "The class of an option or of an item of ancillary data.";
        Netlink "netlink" "The class of a netlink message.";
        Snaplen "snaplen" "The most bytes of each packet that a call can request.";
        Handover "handover" "Whether descriptors that cannot be revoked are passed.";
        Unchecked "unchecked" "Whether descriptors are passed that escape a `deny`.";
        Paths "paths" "In whose view of the file system a path as text is looked up.";
        Lookup "lookup" "Whether a destination must come from a look-up of the same session.";
        LookupSeconds "lookup_seconds" "How old that look-up may be.";
    }
}

impl Operand {
    /// The number of fields.
    pub const COUNT: usize = Self::ALL.len();

    /// The field of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operand| operand.word() == word)
    }

    /// Whether requests with this verb can have it.
    pub fn applies_to(self, verb: Verb) -> bool {
        let verbs: &[Verb] = match self {
            Self::Family | Self::Type | Self::Protocol => return verb.concerns_socket(),
            Self::Netns => {
                return verb.concerns_socket() || [Verb::Resolve, Verb::Interfaces].contains(&verb);
            }
            Self::Local | Self::LocalPorts => &[
                Verb::Bind,
                Verb::Listen,
                Verb::Accept,
                Verb::Connect,
                Verb::Send,
                Verb::Capture,
                Verb::Spoof,
            ],
            Self::Remote | Self::RemotePorts => &[
                Verb::Connect,
                Verb::Send,
                Verb::Spoof,
                Verb::Receive,
                Verb::Option,
                Verb::Capture,
            ],
            Self::Interface => &[
                Verb::Bind,
                Verb::Connect,
                Verb::Send,
                Verb::Spoof,
                Verb::Inject,
                Verb::Capture,
                Verb::Option,
            ],
            Self::Path => {
                &[Verb::Bind, Verb::Listen, Verb::Accept, Verb::Connect, Verb::Send, Verb::Receive]
            }
            Self::Option => &[Verb::Option],
            Self::Netlink => &[Verb::Send],
            Self::Snaplen => &[Verb::Capture],
            Self::Handover | Self::Unchecked => &[Verb::Handover],
            Self::Paths => &[Verb::Bind, Verb::Connect, Verb::Send],
            Self::Lookup | Self::LookupSeconds => &[Verb::Connect, Verb::Send],
        };
        verbs.contains(&verb)
    }

    /// The verbs whose requests can have it.
    pub fn verbs(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.iter().copied().filter(move |verb| self.applies_to(*verb))
    }

    /// Whether it limits only the verbs that it applies to. Any other field keeps its rule from deciding
    /// requests that do not have it.
    pub fn is_qualifier(self) -> bool {
        match self {
            Self::Option
            | Self::Netlink
            | Self::Snaplen
            | Self::Handover
            | Self::Unchecked
            | Self::Paths
            | Self::Lookup
            | Self::LookupSeconds => true,
            Self::Family
            | Self::Type
            | Self::Protocol
            | Self::Local
            | Self::LocalPorts
            | Self::Remote
            | Self::RemotePorts
            | Self::Interface
            | Self::Netns
            | Self::Path => false,
        }
    }

    /// Whether it is compared with each packet of a capture.
    pub fn is_of_packets(self) -> bool {
        match self {
            Self::Protocol | Self::Local | Self::LocalPorts | Self::Remote | Self::RemotePorts => {
                true
            }
            Self::Family
            | Self::Type
            | Self::Interface
            | Self::Netns
            | Self::Path
            | Self::Option
            | Self::Netlink
            | Self::Snaplen
            | Self::Handover
            | Self::Unchecked
            | Self::Paths
            | Self::Lookup
            | Self::LookupSeconds => false,
        }
    }

    /// Whether rules that deny can have it.
    pub fn is_for_deny(self) -> bool {
        match self {
            Self::Family
            | Self::Type
            | Self::Protocol
            | Self::Local
            | Self::LocalPorts
            | Self::Remote
            | Self::RemotePorts
            | Self::Interface
            | Self::Netns
            | Self::Path
            | Self::Option
            | Self::Netlink
            | Self::Handover => true,
            Self::Snaplen | Self::Unchecked | Self::Paths | Self::Lookup | Self::LookupSeconds => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_own_word_and_a_verb() {
        for operand in Operand::ALL {
            assert_eq!(Operand::from_word(operand.word()), Some(*operand));
            assert!(operand.verbs().next().is_some(), "{operand:?}");
        }
        assert_eq!(Operand::from_word("nets"), None);
    }
}
