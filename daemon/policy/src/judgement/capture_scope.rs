//! Which packets a capture is allowed to see.
//!
//! A capture is judged once, when it is opened. Rules about `capture` that name ends of packets (`protocol`, `local`,
//! `local_ports`, `remote`, `remote_ports`) do not decide about the capture but about each packet: `lowering.rs` makes a
//! program of them that the kernel runs in front of the filter of the client. Rules without these fields mean what they
//! mean for packet sockets.

use std::sync::Arc;

use crate::judgement::denial::Denial;
use crate::judgement::namespace::Namespace;
use crate::judgement::question::Question;
use crate::judgement::rights::{ByVerb, Restriction, Rights, RuleName};
use crate::judgement::rule_name::{NO_RULE, OWNER_RULE, RESTRICTED};
use crate::judgement::socket_spec::CAPTURE_SOCKET;
use crate::language::operand::Operand;
use crate::language::rule::Rule;
use crate::language::value::{Network, Ports};
use crate::language::verb::Verb;

/// The lowest type of a frame (`EtherType`); lower numbers in `protocol` are those of IP.
pub(crate) const FIRST_FRAME_TYPE: i32 = 0x600;

/// The packets that one rule is about. An empty list means any.
#[derive(Debug, Clone)]
pub struct PacketRule {
    /// The name of the rule.
    pub name: Arc<str>,
    pub(crate) protocols: Vec<i32>,
    pub(crate) local: Vec<Network>,
    pub(crate) local_ports: Vec<Ports>,
    pub(crate) remote: Vec<Network>,
    pub(crate) remote_ports: Vec<Ports>,
    text: String,
}

impl PacketRule {
    fn of(rule: &Rule) -> Self {
        let fields = &rule.fields;
        let named = Operand::ALL.iter().copied().filter(|operand| operand.is_of_packets());
        let parts = named.filter_map(|operand| {
            fields.text(operand).map(|text| format!("{} = {text}", operand.word()))
        });
        Self {
            name: Arc::clone(&rule.name),
            protocols: fields.protocol.iter().map(|protocol| protocol.0).collect(),
            local: fields.local.clone(),
            local_ports: fields.local_ports.clone(),
            remote: fields.remote.clone(),
            remote_ports: fields.remote_ports.clone(),
            text: parts.collect::<Vec<_>>().join(", "),
        }
    }

    /// Whether it is about every packet.
    pub fn is_everything(&self) -> bool {
        self.protocols.is_empty() && !self.names_ends()
    }

    /// Whether it is about addresses or ports.
    pub(crate) fn names_ends(&self) -> bool {
        !(self.local.is_empty()
            && self.local_ports.is_empty()
            && self.remote.is_empty()
            && self.remote_ports.is_empty())
    }

    /// Its fields about packets as a policy file writes them; empty for every packet.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The packets of a capture: those that a rule of each layer is about, except for those that a rule denies.
#[derive(Debug, Clone, Default)]
pub struct CaptureScope {
    pub(crate) deny: Vec<PacketRule>,
    /// The rules that grant, and those that each restriction of the session has kept.
    pub(crate) layers: Vec<Vec<PacketRule>>,
}

impl CaptureScope {
    /// Adds a layer, unless one of its rules is about every packet.
    fn push(&mut self, layer: Vec<PacketRule>) {
        if !layer.iter().any(PacketRule::is_everything) {
            self.layers.push(layer);
        }
    }

    /// Whether every packet is let through.
    pub fn is_everything(&self) -> bool {
        self.deny.is_empty() && self.layers.is_empty()
    }

    /// What is let through, a line for each rule.
    pub fn lines(&self) -> Vec<String> {
        if self.is_everything() {
            return vec!["all packets".to_owned()];
        }
        let mut lines = Vec::new();
        if self.layers.is_empty() {
            lines.push("all packets".to_owned());
        }
        for (number, layer) in self.layers.iter().enumerate() {
            let kept = if number == 0 { "" } else { "and of these, " };
            let text =
                |rule: &PacketRule| format!("{kept}packets with {} (`{}`)", rule.text, rule.name);
            lines.extend(layer.iter().map(text));
        }
        let text =
            |rule: &PacketRule| format!("but no packets with {} (`{}`)", rule.text, rule.name);
        lines.extend(self.deny.iter().map(text));
        lines
    }
}

impl Rights {
    /// Judges a capture: the rule that grants it and the packets that it is allowed to see, or why it is refused.
    /// `interface` is `None` for all interfaces, and `snaplen` the requested bytes of each packet.
    pub fn capture(
        &self,
        interface: Option<&str>,
        snaplen: u64,
    ) -> Result<(RuleName, CaptureScope), Box<Denial>> {
        let question = Question {
            length: Some(snaplen),
            ..Question::about(Verb::Capture, CAPTURE_SOCKET).on(interface)
        };
        self.judge_capture(&question)
    }

    /// Judges a capture by its question.
    pub(super) fn judge_capture(
        &self,
        question: &Question<'_>,
    ) -> Result<(RuleName, CaptureScope), Box<Denial>> {
        self.scope(question).map_err(|rule| Box::new(self.denial(question, rule)))
    }

    fn scope(&self, question: &Question<'_>) -> Result<(RuleName, CaptureScope), RuleName> {
        let about = |rule: &&Rule| rule.matches_apart_from_packets(question);
        let rules = self.about(Verb::Capture);
        let mut scope = CaptureScope::default();
        for rule in rules.into_iter().flat_map(ByVerb::refusing).filter(about) {
            let packets = PacketRule::of(rule);
            if packets.is_everything() {
                return Err(RuleName::Written(packets.name));
            }
            scope.deny.push(packets);
        }
        // As any rule without netns, the built-in one is about the broker's own network namespace.
        let is_owner = self.is_owner() && question.namespace == &Namespace::Broker;
        let granting: Vec<&Rule> =
            rules.into_iter().flat_map(ByVerb::granting).filter(about).collect();
        let rule = match granting.first() {
            Some(rule) => RuleName::Written(Arc::clone(&rule.name)),
            None if is_owner => RuleName::BuiltIn(OWNER_RULE),
            None => return Err(RuleName::BuiltIn(NO_RULE)),
        };
        if !is_owner {
            scope.push(granting.iter().copied().map(PacketRule::of).collect());
        }
        for restriction in self.kept() {
            let layer = kept_by(restriction, &granting, question);
            if layer.is_empty() {
                return Err(RuleName::BuiltIn(RESTRICTED));
            }
            scope.push(layer);
        }
        Ok((rule, scope))
    }
}

/// What a restriction of the session has kept: rules by their names, and filters.
fn kept_by(
    restriction: &Restriction,
    granting: &[&Rule],
    question: &Question<'_>,
) -> Vec<PacketRule> {
    let named = granting.iter().copied().filter(|rule| restriction.rules.contains(&rule.name));
    let filters = restriction.filters.iter();
    let filters = filters.filter(|filter| filter.matches_apart_from_packets(question));
    named.chain(filters).map(PacketRule::of).collect()
}

#[cfg(test)]
mod tests {
    use crate::fixture::{OWNER, capture_rule as rule, rules};
    use crate::judgement::policy::Policy;
    use crate::judgement::subject::Subject;

    #[test]
    fn rules_decide_about_captures_and_packets() {
        let judge = |text: &str, interface: Option<&str>, snaplen| {
            let rights = Policy::new(OWNER, rules(text), false)
                .select(&Subject::new(1000, 1000), Vec::new());
            match rights.capture(interface, snaplen) {
                Ok((rule, scope)) => format!("{rule}: {}", scope.lines().join("; ")),
                Err(denial) => format!("refused by {}", denial.rule),
            }
        };
        let eth = rule(
            "eth",
            "allow",
            "interface = [\"eth*\"]\nsnaplen = 96\nprotocol = [\"IPPROTO_UDP\"]\nremote_ports = [\"67\"]",
        );
        let text =
            "eth: packets with protocol = [\"IPPROTO_UDP\"], remote_ports = [\"67\"] (`eth`)";
        assert_eq!(judge(&eth, Some("eth0"), 96), text);
        assert!(judge(&eth, Some("eth0"), 97).starts_with("refused"));
        assert!(judge(&eth, Some("wlan0"), 96).starts_with("refused"));
        assert!(judge(&eth, None, 96).starts_with("refused"));
        let all = rule("all", "allow", "");
        assert_eq!(judge(&all, None, 96), "all: all packets");
        let deny = rule("no", "deny", "remote = [\"10.0.0.0/8\"]");
        let text = "all: all packets; but no packets with remote = [\"10.0.0.0/8\"] (`no`)";
        assert_eq!(judge(&[all.clone(), deny].concat(), Some("eth0"), 96), text);
        // A rule that denies an interface denies all of them at once, as for packet sockets.
        let deny = rule("no", "deny", "interface = [\"eth1\"]");
        assert_eq!(
            judge(&[all.clone(), deny.clone()].concat(), Some("eth0"), 96),
            "all: all packets"
        );
        assert_eq!(judge(&[all, deny].concat(), None, 96), "refused by no");
        // A rule about other sockets does not grant captures.
        let inet = rule("inet", "allow", "family = [\"AF_INET\"]");
        assert!(judge(&inet, Some("eth0"), 96).starts_with("refused"));
    }
}
