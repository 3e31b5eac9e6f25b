//! A rule as it is written, in a file or as a filter of `session.restrict`.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use crate::language::fields::Fields;
use crate::language::list::NonEmpty;
use crate::language::operand::Operand;
use crate::language::position::Remark;
use crate::language::rule::Rule;
use crate::language::subject_text::{Directory, SubjectText};
use crate::language::subjects::Subjects;
use crate::language::verb::{Effect, Verb};

/// What to write in a rule about everyone.
const EVERYONE: &str = "for everyone, write `subject = { everyone = true }`";

/// A rule as it is written: its values are checked, and what its fields mean together is not.
#[derive(Debug, Clone, Default)]
pub struct RuleText {
    name: Option<String>,
    subject: Option<Spanned<SubjectText>>,
    allow: Vec<Verb>,
    deny: Vec<Verb>,
    fields: Fields,
}

/// The names that a rule can have.
#[derive(Debug, Clone, Copy)]
enum Key {
    Name,
    Subject,
    Allow,
    Deny,
    Operand(Operand),
}

/// All of them, in the order of the reference page.
static KEYS: [&str; 4 + Operand::COUNT] = {
    let mut keys = [""; 4 + Operand::COUNT];
    [keys[0], keys[1], keys[2], keys[3]] = ["name", "subject", "allow", "deny"];
    let mut index = 0;
    while index < Operand::COUNT {
        keys[4 + index] = Operand::ALL[index].word();
        index += 1;
    }
    keys
};

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        match name {
            "name" => Ok(Key::Name),
            "subject" => Ok(Key::Subject),
            "allow" => Ok(Key::Allow),
            "deny" => Ok(Key::Deny),
            _ => Operand::from_word(name)
                .map(Key::Operand)
                .ok_or_else(|| E::unknown_field(name, &KEYS)),
        }
    }
}

impl<'de> Deserialize<'de> for RuleText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("RuleText", &KEYS, RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = RuleText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RuleText, A::Error> {
        let mut rule = RuleText::default();
        while let Some(key) = map.next_key()? {
            if rule.has(key) {
                return Err(A::Error::duplicate_field(key.word()));
            }
            match key {
                Key::Name => rule.name = map.next_value()?,
                Key::Subject => rule.subject = map.next_value()?,
                Key::Allow => rule.allow = map.next_value_seed(NonEmpty::verbs("allow"))?,
                Key::Deny => rule.deny = map.next_value_seed(NonEmpty::verbs("deny"))?,
                Key::Operand(operand) => rule.fields.read(operand, &mut map)?,
            }
        }
        Ok(rule)
    }
}

impl Key {
    fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Subject => "subject",
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Operand(operand) => operand.word(),
        }
    }
}

impl RuleText {
    fn has(&self, key: Key) -> bool {
        match key {
            Key::Name => self.name.is_some(),
            Key::Subject => self.subject.is_some(),
            Key::Allow => !self.allow.is_empty(),
            Key::Deny => !self.deny.is_empty(),
            Key::Operand(operand) => self.fields.has(operand),
        }
    }

    /// A filter of `session.restrict`: a rule without name and subject that allows.
    pub fn filter(self) -> Result<Rule, String> {
        if self.name.is_some() || !self.deny.is_empty() || self.subject.is_some() {
            return Err(
                "a filter has `allow` and operands, but no name, subject or `deny`".to_owned()
            );
        }
        Self { name: Some("filter".to_owned()), ..self }.rule(Subjects::default())
    }

    /// The rule at `span` of a file, or a mistake in its fields together. Adds what is suspicious to
    /// `remarks`.
    pub(crate) fn resolve(
        mut self,
        span: &Range<usize>,
        directory: &dyn Directory,
        remarks: &mut Vec<Remark>,
    ) -> Result<Rule, Remark> {
        let mut unknown = Vec::new();
        let written = self.subject.take();
        let subject = written
            .as_ref()
            .map(|written| SubjectText::resolve(written, directory, &mut unknown))
            .transpose()?;
        remarks.extend(
            unknown.into_iter().map(|(span, what)| {
                (span, format!("there is no {what}: the rule ignores the name"))
            }),
        );
        let rule = self.rule(subject.clone().unwrap_or_default());
        let rule = rule.map_err(|message| (span.clone(), message))?;
        match (subject, rule.effect) {
            (Some(_), _) => {}
            (None, Effect::Allow) => {
                let message = format!("rule `{}`: it has no `subject`: {EVERYONE}", rule.name);
                return Err((span.clone(), message));
            }
            (None, Effect::Deny) => {
                let message = format!("it has no `subject`, so it applies to everyone: {EVERYONE}");
                remarks.push((span.clone(), message));
            }
        }
        Ok(rule)
    }

    /// The rule, or a mistake in its fields together.
    fn rule(mut self, subject: Subjects) -> Result<Rule, String> {
        let name = self.name.take().filter(|name| !name.trim().is_empty());
        let name = name.ok_or("a rule needs a `name`")?;
        let wrong = |message: String| format!("rule `{name}`: {message}");
        let (effect, verbs) = self.verbs().map_err(wrong)?;
        check_fields(&self.fields, effect, &verbs).map_err(wrong)?;
        let verbs = verbs.into_iter().collect();
        Ok(Rule::new(Arc::from(name), effect, verbs, subject, self.fields))
    }

    fn verbs(&self) -> Result<(Effect, Vec<Verb>), String> {
        match (self.allow.is_empty(), self.deny.is_empty()) {
            (false, true) => Ok((Effect::Allow, self.allow.clone())),
            (true, false) => Ok((Effect::Deny, self.deny.clone())),
            (true, true) | (false, false) => Err("it needs either `allow` or `deny`".to_owned()),
        }
    }
}

/// Checks fields that only some verbs have, or only rules that allow.
fn check_fields(fields: &Fields, effect: Effect, verbs: &[Verb]) -> Result<(), String> {
    let has = |operand| fields.has(operand);
    if has(Operand::LookupSeconds) && !has(Operand::Lookup) {
        return Err("`lookup_seconds` needs `lookup`".to_owned());
    }
    for operand in fields.present().filter(|operand| operand.is_qualifier()) {
        if !verbs.iter().any(|verb| operand.applies_to(*verb)) {
            let needed: Vec<_> = operand.verbs().map(|verb| format!("`{}`", verb.word())).collect();
            let which = if needed.len() == 1 { "the verb" } else { "one of the verbs" };
            return Err(format!("`{}` needs {which} {}", operand.word(), needed.join(", ")));
        }
    }
    let mut allow_only = fields.present().filter(|operand| !operand.is_for_deny());
    match allow_only.next() {
        Some(operand) if effect == Effect::Deny => {
            Err(format!("`{}` needs `allow`: a rule that denies cannot have it", operand.word()))
        }
        Some(_) | None => Ok(()),
    }
}
