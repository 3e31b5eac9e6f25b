//! Whether a rule decides a question.

use crate::judgement::question::{Endpoint, Question};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::name::{Pattern, is_plain};
use crate::language::option_class::OptionClass;
use crate::language::qualifier::{Handover, Paths};
use crate::language::rule::{Effect, Rule, admits};
use crate::language::value::{Network, Ports};
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

impl Rule {
    /// Whether it decides this question, for a subject it is about.
    pub fn matches(&self, question: &Question<'_>) -> bool {
        // First what is cheap and most often decides.
        self.verbs.has(question.verb)
            && self.sockets.admit(question.socket)
            && self.admits_remote(question.remote, question.socket)
            && self.admits_local(question.local, question.socket)
            && self.admits_socket(question.socket)
            && self.admits_interface(question)
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
