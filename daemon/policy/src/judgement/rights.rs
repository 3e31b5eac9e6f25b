//! What one subject is allowed to do: the rules about it, selected once, sorted by verb.

use std::borrow::Cow;
use std::sync::Arc;

use crate::judgement::denial::Denial;
use crate::judgement::operands::Operands;
use crate::judgement::outline::{Outline, Remote};
use crate::judgement::policy::Policy;
use crate::judgement::question::Question;
use crate::judgement::rule_name::{CONTROL_SOCKET, HOLDER_RULE, NO_RULE, OWNER_RULE, RESTRICTED};
use crate::judgement::subject::Subject;
use crate::language::operand::Operand;
use crate::language::rule::{Effect, Rule};
use crate::language::verb::Verb;

pub use crate::judgement::rule_name::RuleName;

/// The rights that a session has kept: a request must match one of these rules as well.
#[derive(Debug)]
pub struct Restriction {
    /// Filters: what is kept, whichever rule grants it.
    pub filters: Vec<Rule>,
    /// Names of rules that still grant.
    pub rules: Vec<Arc<str>>,
}

/// The rules about one verb.
#[derive(Debug, Clone, Default)]
pub(super) struct ByVerb {
    deny: Vec<Candidate>,
    allow: Vec<Candidate>,
    operands: Operands,
}

/// A rule with its outline, by which most rules are skipped without reading them.
#[derive(Debug, Clone)]
struct Candidate {
    outline: Outline,
    rule: Arc<Rule>,
}

impl Candidate {
    fn new(rule: &Arc<Rule>) -> Self {
        Self { outline: Outline::of(rule), rule: Arc::clone(rule) }
    }
}

impl ByVerb {
    /// Those that grant.
    pub(super) fn granting(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter().map(|candidate| &*candidate.rule)
    }

    /// Those that refuse.
    pub(super) fn refusing(&self) -> impl Iterator<Item = &Rule> {
        self.deny.iter().map(|candidate| &*candidate.rule)
    }

    /// All of them, refusing ones first.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.deny.iter().chain(&self.allow).map(|candidate| &candidate.rule)
    }
}

/// Those that decide a question.
fn matching<'a>(
    candidates: &'a [Candidate],
    question: &'a Question<'a>,
) -> impl Iterator<Item = &'a Arc<Rule>> {
    let remote = Remote::of(question.remote);
    let near = candidates.iter().filter(move |near| near.outline.admits(question.socket, remote));
    near.map(|near| &near.rule).filter(|rule| rule.matches(question))
}

/// What one subject is allowed to do.
#[derive(Debug)]
pub struct Rights {
    /// The subject, for messages.
    caller: Arc<str>,
    owner: bool,
    holder: bool,
    by_verb: [ByVerb; Verb::COUNT],
    restrictions: Vec<Arc<Restriction>>,
}

impl Policy {
    /// What a subject is allowed to do, without what its session has given up.
    pub fn select(&self, subject: &Subject, restrictions: Vec<Arc<Restriction>>) -> Rights {
        Rights::select(self, subject, restrictions)
    }
}

impl Rights {
    /// Selects the rules about a subject.
    fn select(policy: &Policy, subject: &Subject, restrictions: Vec<Arc<Restriction>>) -> Self {
        let mut by_verb: [ByVerb; Verb::COUNT] = std::array::from_fn(|_| ByVerb::default());
        let mut holder = false;
        let owner = subject.remote.is_none() && policy.is_owner(subject.uid);
        let kept = |rule: &Rule| {
            rule.effect == Effect::Deny
                || subject.remote.as_ref().is_none_or(|remote| remote.keeps(&rule.name))
        };
        let about =
            |rule: &&Arc<Rule>| rule.subject.contains(subject, rule.effect, owner) && kept(rule);
        for rule in policy.rules().iter().filter(about) {
            holder |= rule.effect == Effect::Allow;
            for verb in rule.verbs() {
                if let Some(entry) = by_verb.get_mut(verb.index()) {
                    entry.operands.add(rule);
                    match rule.effect {
                        Effect::Deny => entry.deny.push(Candidate::new(rule)),
                        Effect::Allow => entry.allow.push(Candidate::new(rule)),
                    }
                }
            }
        }
        for filter in restrictions.iter().flat_map(|restriction| &restriction.filters) {
            for verb in filter.verbs() {
                if let Some(entry) = by_verb.get_mut(verb.index()) {
                    entry.operands.add(filter);
                }
            }
        }
        let caller = subject.to_string().into();
        Self { caller, owner, holder, by_verb, restrictions }
    }

    pub(super) fn about(&self, verb: Verb) -> Option<&ByVerb> {
        self.by_verb.get(verb.index())
    }

    /// The operands that the rules about a verb depend on.
    pub fn depends_on(&self, verb: Verb) -> Operands {
        self.about(verb).map(|rules| rules.operands).unwrap_or_default()
    }

    /// Judges a question: the rule that grants it, or why it is refused.
    pub fn judge(&self, question: &Question<'_>) -> Result<RuleName, Box<Denial>> {
        self.decide(question).map_err(|rule| Box::new(self.denial(question, rule)))
    }

    /// The rule that grants a question, or the rule that refuses it: the decision without its
    /// explanation.
    pub fn decide(&self, question: &Question<'_>) -> Result<RuleName, RuleName> {
        let refuse = Err;
        if question.leads_to_broker() {
            return refuse(RuleName::BuiltIn(CONTROL_SOCKET));
        }
        let Some(rules) = self.about(question.verb) else {
            return refuse(RuleName::BuiltIn(NO_RULE));
        };
        if let Some(rule) = matching(&rules.deny, question).next() {
            return refuse(RuleName::Written(rule.name.clone()));
        }
        match self.granting(rules, question) {
            None => refuse(self.escaped(rules, question)),
            Some(rule) if self.has_kept(question, &rule) => Ok(rule),
            Some(_) => refuse(RuleName::BuiltIn(RESTRICTED)),
        }
    }

    /// Why no rule grants: a `deny` that the descriptor escapes, if a rule would pass it otherwise.
    fn escaped(&self, rules: &ByVerb, question: &Question<'_>) -> RuleName {
        let bound = Question { escapes: None, ..question.clone() };
        match question.escapes {
            Some(deny) if self.granting(rules, &bound).is_some() => {
                RuleName::Written(Arc::from(deny))
            }
            Some(_) | None => RuleName::BuiltIn(NO_RULE),
        }
    }

    fn granting(&self, rules: &ByVerb, question: &Question<'_>) -> Option<RuleName> {
        let mut matching = matching(&rules.allow, question);
        if let Some(first) = matching.next() {
            // A restriction can keep another rule that grants the same.
            let kept = |rule: &&Arc<Rule>| self.keeps_rule(&rule.name);
            let rule = if kept(&first) { first } else { matching.find(kept).unwrap_or(first) };
            return Some(RuleName::Written(rule.name.clone()));
        }
        if self.holder && matches!(question.verb, Verb::Inspect | Verb::Session) {
            return Some(RuleName::BuiltIn(HOLDER_RULE));
        }
        // As any rule without netns, it is about the broker's own network namespace.
        let is_about = self.owner && question.namespace.netns().is_none();
        is_about.then_some(RuleName::BuiltIn(OWNER_RULE))
    }

    fn keeps_rule(&self, name: &Arc<str>) -> bool {
        self.restrictions.iter().all(|restriction| restriction.rules.contains(name))
    }

    /// Whether the session has kept this right. A session never gives up inspecting its own sockets.
    fn has_kept(&self, question: &Question<'_>, rule: &RuleName) -> bool {
        let keeps = |restriction: &Arc<Restriction>| {
            let named = match rule {
                RuleName::Written(name) => restriction.rules.contains(name),
                RuleName::BuiltIn(_) => false,
            };
            named || restriction.filters.iter().any(|filter| filter.matches(question))
        };
        question.verb == Verb::Inspect || self.restrictions.iter().all(keeps)
    }

    /// What the session's restrictions have kept.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Restriction> {
        self.restrictions.iter().map(|restriction| &**restriction)
    }

    /// The filters of the session's restrictions.
    pub(super) fn filters(&self) -> impl Iterator<Item = &Rule> {
        self.restrictions.iter().flat_map(|restriction| &restriction.filters)
    }

    pub(super) fn denial(&self, question: &Question<'_>, rule: RuleName) -> Denial {
        Denial {
            verb: question.verb,
            what: question.what(),
            caller: self.caller.clone(),
            errno: question.errno(),
            grant: question.grant(),
            hint: self.hint(question),
            rule,
        }
    }

    /// What the caller can do instead.
    fn hint(&self, question: &Question<'_>) -> Option<Cow<'static, str>> {
        if question.names_text() {
            return Some(
                "the broker does not look up a path as text: pass a descriptor of the file \
                 instead, opened with O_PATH (for bind, of the folder, with the name)"
                    .into(),
            );
        }
        if question.escapes.is_some() {
            return Some(
                "that rule cannot bind the holder of a descriptor; unchecked = true in a rule that \
                 allows handover passes it anyway"
                    .into(),
            );
        }
        if question.verb == Verb::Capture
            && let Some((rule, snaplen)) = self.snaplen(question)
            && question.length.is_some_and(|length| length > snaplen)
        {
            let rule = rule.escape_debug();
            return Some(format!("rule \"{rule}\" allows a snap length of {snaplen} bytes").into());
        }
        let mut socket = question.socket?;
        let icmp = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&socket.protocol);
        if question.verb != Verb::Create || socket.ty != libc::SOCK_RAW || !icmp {
            return None;
        }
        socket.ty = libc::SOCK_DGRAM;
        let question =
            Question { namespace: question.namespace, ..Question::about(Verb::Create, socket) };
        let instead = self.judge(&question);
        instead.ok().map(|_| "use SOCK_DGRAM with this protocol, which is granted".into())
    }

    /// The most bytes of each packet that a capture can request, and the rule that limits them; `None` if the rules do not
    /// limit them, or grant no capture.
    pub fn snaplen(&self, question: &Question<'_>) -> Option<(&str, u64)> {
        let any_length = Question { length: None, ..question.clone() };
        let rules = self.about(Verb::Capture).into_iter().flat_map(ByVerb::granting);
        let granting = rules.filter(|rule| rule.matches_apart_from_packets(&any_length));
        let limits = granting.map(|rule| Some((&*rule.name, rule.fields.snaplen?)));
        let limits: Option<Vec<_>> = limits.collect();
        limits?.into_iter().max_by_key(|(_, snaplen)| *snaplen).filter(|_| !self.is_owner())
    }

    /// The rules about the verb of a question, those that refuse first, and the field that keeps each from
    /// deciding it.
    pub fn considered(&self, question: &Question<'_>) -> Vec<(&Rule, Option<Operand>)> {
        let rules = self.about(question.verb).into_iter();
        let rules = rules.flat_map(ByVerb::rules);
        rules.map(|rule| (&**rule, rule.mismatch(question))).collect()
    }

    /// The rules about this subject, refusing ones first.
    pub fn rules(&self) -> Vec<&Rule> {
        let mut found: Vec<&Arc<Rule>> = Vec::new();
        for rule in self.by_verb.iter().flat_map(ByVerb::rules) {
            if !found.iter().any(|known| Arc::ptr_eq(known, rule)) {
                found.push(rule);
            }
        }
        found.sort_by_key(|rule| rule.effect == Effect::Allow);
        found.into_iter().map(|rule| &**rule).collect()
    }

    /// Whether the built-in rule about root and the broker's own user is about this subject.
    pub fn is_owner(&self) -> bool {
        self.owner
    }

    /// The number of restrictions of the session.
    pub fn restrictions(&self) -> usize {
        self.restrictions.len()
    }
}
