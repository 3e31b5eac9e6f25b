//! Whether a rule decides a question.

use crate::judgement::question::{Endpoint, Question};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::name::{PathPrefix, Pattern, is_plain};
use crate::language::operand::Operand;
use crate::language::option_class::OptionClass;
use crate::language::qualifier::{Handover, Paths};
use crate::language::rule::{Effect, Rule, admits};
use crate::language::value::{Network, Ports};
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

impl Rule {
    /// Whether it decides this question, for a subject it is about.
    pub fn matches(&self, question: &Question<'_>) -> bool {
        self.has_verb(question.verb) && Operand::all(|operand| self.admits(operand, question))
    }

    /// Whether it decides a question about a capture, for some packets at least.
    pub(super) fn matches_apart_from_packets(&self, question: &Question<'_>) -> bool {
        let admits = |operand: Operand| operand.is_of_packets() || self.admits(operand, question);
        self.has_verb(question.verb) && Operand::all(admits)
    }

    /// The first field that keeps it from deciding a question about a capture.
    pub(super) fn mismatch_apart_from_packets(&self, question: &Question<'_>) -> Option<Operand> {
        let mut others = Operand::ALL.iter().copied().filter(|operand| !operand.is_of_packets());
        others.find(|operand| !self.admits(*operand, question))
    }

    /// The first field that keeps it from deciding this question, for a rule about its verb; `None` if it
    /// decides the question.
    pub(super) fn mismatch(&self, question: &Question<'_>) -> Option<Operand> {
        Operand::ALL.iter().copied().find(|operand| !self.admits(*operand, question))
    }

    /// Whether a kind of socket is one that it is about.
    pub(super) fn admits_socket(&self, socket: SocketSpec) -> bool {
        let socket = Some(socket);
        self.sockets.admit_family(socket)
            && self.sockets.admit_type(socket)
            && self.admits_protocol(socket)
    }

    /// Whether one field lets the rule decide a question.
    #[expect(clippy::inline_always, reason = "hot: each call is compiled for its own field")]
    #[inline(always)]
    fn admits(&self, operand: Operand, question: &Question<'_>) -> bool {
        let (fields, deny) = (&self.fields, self.effect == Effect::Deny);
        let (local, remote) = (question.local, question.remote);
        match operand {
            Operand::Family => self.sockets.admit_family(question.socket),
            Operand::Type => self.sockets.admit_type(question.socket),
            Operand::Protocol => self.admits_protocol(question.socket),
            Operand::Local => self.may_be(local, question) || self.admits_local(local),
            Operand::LocalPorts => {
                self.may_be(local, question)
                    || admits(&fields.local_ports, local, |ports, end| has_port(*ports, end))
            }
            Operand::Remote => {
                self.may_be(remote, question) || admits(&fields.remote, remote, contains)
            }
            Operand::RemotePorts => {
                self.may_be(remote, question)
                    || admits(&fields.remote_ports, remote, |ports, end| has_port(*ports, end))
            }
            Operand::Interface => {
                // What captures from no interface in particular captures from all: no `deny` overlooks it.
                let all = question.verb == Verb::Capture && question.interface.is_none();
                admits(&fields.interface, question.interface, Pattern::matches) || all && deny
            }
            Operand::Netns => self.admits_namespace(question.namespace),
            Operand::Path => admits(&fields.path, question.path_end(), |prefix, end| {
                self.admits_path(prefix, end, question.socket)
            }),
            Operand::Option => question.option.is_none_or(|class| {
                class.verb() != Verb::Option
                    || fields.option.contains(&class)
                    || fields.option.is_empty() && (deny || class != OptionClass::Unknown)
            }),
            Operand::Netlink => question.message.is_none_or(|class| {
                fields.netlink.contains(&class) || fields.netlink.is_empty() && deny
            }),
            Operand::Snaplen => question
                .length
                .is_none_or(|length| fields.snaplen.is_none_or(|snaplen| length <= snaplen)),
            Operand::Handover => question.verb != Verb::Handover || self.admits_handover(question),
            Operand::Unchecked => {
                question.verb != Verb::Handover
                    || deny
                    || fields.unchecked == Some(true)
                    || question.escapes.is_none()
            }
            // The broker does not look up paths in place of its clients, unless a rule allows it.
            Operand::Paths => deny || fields.paths == Some(Paths::Broker) || !question.names_text(),
            Operand::Lookup => !self.needs_lookup(question) || question.looked_up.is_some(),
            Operand::LookupSeconds => {
                !self.needs_lookup(question)
                    || question.looked_up.is_none_or(|age| Some(age) <= fields.lookup_limit())
            }
        }
    }

    fn admits_protocol(&self, socket: Option<SocketSpec>) -> bool {
        admits(&self.fields.protocol, socket, |protocol, socket| protocol.0 == socket.protocol)
    }

    fn admits_local(&self, local: Option<Endpoint<'_>>) -> bool {
        admits(&self.fields.local, local, |network, local| {
            // A wildcard takes what comes for any address: no `deny` overlooks it.
            let wildcard = matches!(local, Endpoint::Ip(ip, _) if ip.is_unspecified());
            contains(network, local) || wildcard && self.effect == Effect::Deny
        })
    }

    /// Whether a `deny` about internet addresses has to be taken as matching an end that is unknown.
    fn may_be(&self, end: Option<Endpoint<'_>>, question: &Question<'_>) -> bool {
        let internet = || {
            let is = |socket: SocketSpec| [libc::AF_INET, libc::AF_INET6].contains(&socket.domain);
            question.socket.is_some_and(is)
        };
        self.effect == Effect::Deny && end == Some(Endpoint::Unknown) && internet()
    }

    fn admits_path(
        &self,
        prefix: &PathPrefix,
        end: Endpoint<'_>,
        socket: Option<SocketSpec>,
    ) -> bool {
        let deny = self.effect == Effect::Deny;
        match end {
            // It is unknown where it leads: no `deny` overlooks it.
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
            Endpoint::Unknown => {
                deny && socket.is_some_and(|socket| socket.domain == libc::AF_UNIX)
            }
            Endpoint::Ip(..) | Endpoint::Other => false,
        }
    }

    fn admits_handover(&self, question: &Question<'_>) -> bool {
        let strong = question.socket.is_some_and(SocketSpec::is_unrevocable);
        match (self.effect, self.fields.handover) {
            (Effect::Allow, handover) => !strong || handover == Some(Handover::Unrevocable),
            (Effect::Deny, None) => true,
            (Effect::Deny, Some(handover)) => strong == (handover == Handover::Unrevocable),
        }
    }

    /// Whether the destination of a request must come from a look-up.
    fn needs_lookup(&self, question: &Question<'_>) -> bool {
        self.fields.lookup.is_some() && matches!(question.verb, Verb::Connect | Verb::Send)
    }
}

fn contains(network: &Network, endpoint: Endpoint<'_>) -> bool {
    matches!(endpoint, Endpoint::Ip(ip, _) if network.contains(ip))
}

fn has_port(ports: Ports, endpoint: Endpoint<'_>) -> bool {
    matches!(endpoint, Endpoint::Ip(_, Some(port)) if (ports.first..=ports.last).contains(&port))
}
