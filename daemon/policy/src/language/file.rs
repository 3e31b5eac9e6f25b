//! The policy file: text to rules, every mistake with its line and column.
//!
//! Values are checked while they are read (`value.rs`), what concerns several fields here. Names of
//! users and groups are looked up by whoever reads the file.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::language::list;
use crate::language::message_class::MessageClass;
use crate::language::name::{PathPrefix, Pattern};
use crate::language::option_class::OptionClass;
use crate::language::position::{Remark, at, position};
use crate::language::qualifier::{Handover, Lookup, Paths};
use crate::language::rule::{Effect, Rule, Sockets};
use crate::language::subject_text::SubjectText;
use crate::language::subjects::Subjects;
use crate::language::value::{Family, Network, Ports, Protocol, SocketType};
use crate::language::verb::Verb;

pub use crate::language::position::{FileError, Position};
pub use crate::language::subject_text::Directory;

/// The version of the rule language.
const VERSION: u32 = 1;
/// How old a look-up may be where a rule does not say.
const LOOKUP_SECONDS: u64 = 300;
/// What to write in a rule about everyone.
const EVERYONE: &str = "for everyone, write `subject = { everyone = true }`";

/// Something that works, but hardly as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, line and column.
    pub place: String,
    /// What is odd.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Content {
    /// Its rules, and where they begin.
    pub rules: Vec<(Rule, Position)>,
    /// Whether loading it closes what is no longer granted.
    pub revokes: bool,
    /// What is odd.
    pub warnings: Vec<Warning>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    version: Spanned<u32>,
    #[serde(default)]
    revoke_on_reload: bool,
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
}

/// A rule as it is written, in a file or as a filter of `session.restrict`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of the rule language: sockbroker-policy(5)")]
pub struct RuleText {
    pub name: Option<String>,
    pub subject: Option<Spanned<SubjectText>>,
    #[serde(deserialize_with = "list::allow")]
    pub allow: Vec<Verb>,
    #[serde(deserialize_with = "list::deny")]
    pub deny: Vec<Verb>,
    #[serde(deserialize_with = "list::family")]
    pub family: Vec<Family>,
    #[serde(rename = "type", deserialize_with = "list::kind")]
    pub kind: Vec<SocketType>,
    #[serde(deserialize_with = "list::protocol")]
    pub protocol: Vec<Protocol>,
    #[serde(deserialize_with = "list::local")]
    pub local: Vec<Network>,
    #[serde(deserialize_with = "list::local_ports")]
    pub local_ports: Vec<Ports>,
    #[serde(deserialize_with = "list::remote")]
    pub remote: Vec<Network>,
    #[serde(deserialize_with = "list::remote_ports")]
    pub remote_ports: Vec<Ports>,
    #[serde(deserialize_with = "list::interface")]
    pub interface: Vec<Pattern>,
    #[serde(deserialize_with = "list::path")]
    pub path: Vec<PathPrefix>,
    #[serde(deserialize_with = "list::option")]
    pub option: Vec<OptionClass>,
    #[serde(deserialize_with = "list::netlink")]
    pub netlink: Vec<MessageClass>,
    pub snaplen: Option<u64>,
    pub handover: Option<Handover>,
    pub unchecked: Option<bool>,
    pub paths: Option<Paths>,
    pub lookup: Option<Lookup>,
    pub lookup_seconds: Option<u64>,
}

/// Reads a file.
pub fn read(origin: &str, text: &str, directory: &dyn Directory) -> Result<Content, FileError> {
    let wrong = |(span, message): Remark| at(origin, text, span, message);
    let file: FileText = toml::from_str(text).map_err(|error| {
        wrong((error.span().unwrap_or_default(), error.message().trim_end().to_owned()))
    })?;
    if *file.version.get_ref() != VERSION {
        let (version, span) = (*file.version.get_ref(), file.version.span());
        let message =
            format!("version {version} is not known: this broker knows version {VERSION}");
        return Err(wrong((span, message)));
    }
    let mut content = Content { revokes: file.revoke_on_reload, ..Content::default() };
    for written in file.rule {
        let span = written.span();
        let mut remarks = Vec::new();
        let rule = written.into_inner().resolve(&span, directory, &mut remarks).map_err(wrong)?;
        if content.rules.iter().any(|(known, _)| known.name == rule.name) {
            let message = format!("the name `{}` is taken by another rule", rule.name);
            return Err(wrong((span, message)));
        }
        content.warnings.extend(remarks.into_iter().map(|(span, message)| Warning {
            place: format!("{origin}:{}", position(text, span.start)),
            message: format!("rule `{}`: {message}", rule.name),
        }));
        content.rules.push((rule, position(text, span.start)));
    }
    Ok(content)
}

impl RuleText {
    /// A filter of `session.restrict`: a rule without name and subject that allows.
    pub fn filter(self) -> Result<Rule, String> {
        if self.name.is_some() || !self.deny.is_empty() || self.subject.is_some() {
            return Err("a filter has `allow` and operands, no name, subject or `deny`".to_owned());
        }
        Self { name: Some("filter".to_owned()), ..self }.rule(Subjects::default())
    }

    /// The rule that stands at `span` in a file, or what is wrong with its fields together. What is odd
    /// about it is added to `remarks`.
    fn resolve(
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
                (span, format!("there is no {what}, so the rule leaves it out"))
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
                let message = format!("it has no `subject`, so it is about everyone: {EVERYONE}");
                remarks.push((span.clone(), message));
            }
        }
        Ok(rule)
    }

    /// The rule, or what is wrong with its fields together.
    fn rule(mut self, subject: Subjects) -> Result<Rule, String> {
        let name = self.name.take().filter(|name| !name.trim().is_empty());
        let name = name.ok_or("a rule has a `name`")?;
        let wrong = |message: String| format!("rule `{name}`: {message}");
        let (effect, verbs) = self.verbs().map_err(wrong)?;
        self.check_fields(effect, &verbs).map_err(wrong)?;
        let seconds = Duration::from_secs(self.lookup_seconds.unwrap_or(LOOKUP_SECONDS));
        Ok(Rule {
            name: Arc::from(name),
            effect,
            subject,
            verbs: verbs.into_iter().collect(),
            sockets: Sockets::new(&self.family, &self.kind),
            family: self.family,
            kind: self.kind,
            protocol: self.protocol,
            local: self.local,
            local_ports: self.local_ports,
            remote: self.remote,
            remote_ports: self.remote_ports,
            interface: self.interface,
            path: self.path,
            option: self.option,
            netlink: self.netlink,
            snaplen: self.snaplen,
            handover: self.handover,
            unchecked: self.unchecked,
            paths: self.paths,
            lookup: self.lookup.map(|_required| seconds),
        })
    }

    fn verbs(&self) -> Result<(Effect, Vec<Verb>), String> {
        match (self.allow.is_empty(), self.deny.is_empty()) {
            (false, true) => Ok((Effect::Allow, self.allow.clone())),
            (true, false) => Ok((Effect::Deny, self.deny.clone())),
            (true, true) | (false, false) => Err("it has either `allow` or `deny`".to_owned()),
        }
    }

    /// Fields that go with some verbs alone, or with `allow` alone.
    fn check_fields(&self, effect: Effect, verbs: &[Verb]) -> Result<(), String> {
        let reach = [Verb::Connect, Verb::Send];
        let named = [Verb::Connect, Verb::Send, Verb::Bind];
        let fields: [(&str, bool, &[Verb]); 7] = [
            ("option", !self.option.is_empty(), &[Verb::Option]),
            ("netlink", !self.netlink.is_empty(), &[Verb::Send]),
            ("snaplen", self.snaplen.is_some(), &[Verb::Capture]),
            ("handover", self.handover.is_some(), &[Verb::Handover]),
            ("unchecked", self.unchecked.is_some(), &[Verb::Handover]),
            ("paths", self.paths.is_some(), &named),
            ("lookup", self.lookup.is_some(), &reach),
        ];
        for (field, given, goes_with) in fields {
            if given && !verbs.iter().any(|verb| goes_with.contains(verb)) {
                let verb = goes_with.first().map_or("", |verb| verb.word());
                return Err(format!("`{field}` goes with the verb `{verb}`"));
            }
        }
        if self.lookup_seconds.is_some() && self.lookup.is_none() {
            return Err("`lookup_seconds` goes with `lookup`".to_owned());
        }
        let grants_only = [
            ("snaplen", self.snaplen.is_some()),
            ("lookup", self.lookup.is_some()),
            ("unchecked", self.unchecked.is_some()),
            ("paths", self.paths.is_some()),
        ];
        match grants_only.iter().find(|(_, given)| *given && effect == Effect::Deny) {
            Some((field, _)) => Err(format!("`{field}` goes with `allow`")),
            None => Ok(()),
        }
    }
}
