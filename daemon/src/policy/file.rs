//! The policy file: text to rules, every mistake with its line and column.
//!
//! Values are checked while they are read (`value.rs`), what concerns several fields here. Names of
//! users and groups are looked up by whoever reads the file.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::name::{PathPrefix, Pattern};
use super::netlink::MessageClass;
use super::option::OptionClass;
use super::rule::{Effect, Handover, Paths, Rule, Sockets, Subjects};
use super::value::{Family, Network, Ports, Protocol, SocketType};
use super::verb::Verb;

/// The version of the rule language.
const VERSION: u32 = 1;
/// How old a look-up may be where a rule does not say.
const LOOKUP_SECONDS: u64 = 300;

/// A mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: line {line}, column {column}: {message}\n{excerpt}")]
pub struct FileError {
    /// The file.
    pub origin: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line itself, and a caret below the place.
    pub excerpt: String,
}

/// Something that works, but hardly as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file and line, where there is one.
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
    /// Its rules, with the lines they begin at.
    pub rules: Vec<(Rule, usize)>,
    /// Whether loading it closes what is no longer granted.
    pub revokes: bool,
    /// What is odd.
    pub warnings: Vec<Warning>,
}

/// Where names of users and groups are looked up.
pub trait Directory {
    /// The id of a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// The id of a group.
    fn group(&self, name: &str) -> Option<u32>;
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
    pub subject: SubjectText,
    pub allow: Option<Vec<Verb>>,
    pub deny: Option<Vec<Verb>>,
    pub family: Vec<Family>,
    #[serde(rename = "type")]
    pub kind: Vec<SocketType>,
    pub protocol: Vec<Protocol>,
    pub local: Vec<Network>,
    pub local_ports: Vec<Ports>,
    pub remote: Vec<Network>,
    pub remote_ports: Vec<Ports>,
    pub interface: Vec<Pattern>,
    pub path: Vec<PathPrefix>,
    pub netns: Vec<Pattern>,
    pub option: Vec<OptionClass>,
    pub netlink: Vec<MessageClass>,
    pub snaplen: Option<u64>,
    pub handover: Option<Handover>,
    pub unchecked: bool,
    pub paths: Option<Paths>,
    pub lookup: Option<Lookup>,
    pub lookup_seconds: Option<u64>,
}

/// `lookup = "required"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lookup {
    /// Destinations must come from a look-up of the same session.
    Required,
}

/// Whom a rule is about, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of the rule language: sockbroker-policy(5)")]
pub struct SubjectText {
    pub users: Vec<String>,
    pub uids: Vec<u32>,
    pub groups: Vec<String>,
    pub gids: Vec<u32>,
    pub units: Vec<Pattern>,
    pub cgroups: Vec<PathPrefix>,
}

/// Reads a file.
pub fn read(origin: &str, text: &str, directory: &dyn Directory) -> Result<Content, FileError> {
    let wrong = |span: Option<Range<usize>>, message: String| {
        at(origin, text, span.unwrap_or_default(), message)
    };
    let file: FileText = toml::from_str(text)
        .map_err(|error| wrong(error.span(), error.message().trim_end().to_owned()))?;
    if *file.version.get_ref() != VERSION {
        let (version, span) = (*file.version.get_ref(), file.version.span());
        let message =
            format!("version {version} is not known: this broker knows version {VERSION}");
        return Err(wrong(Some(span), message));
    }
    let mut content = Content { revokes: file.revoke_on_reload, ..Content::default() };
    for written in file.rule {
        let span = written.span();
        let (line, _) = position(text, span.start);
        let place = format!("{origin}:{line}");
        let written = written.into_inner();
        let mut unknown = Vec::new();
        let subject = subjects(&written.subject, directory, &mut unknown);
        let rule = written.rule(subject).map_err(|message| wrong(Some(span.clone()), message))?;
        if content.rules.iter().any(|(known, _)| known.name == rule.name) {
            let message = format!("the name `{}` is taken by another rule", rule.name);
            return Err(wrong(Some(span), message));
        }
        content.warnings.extend(unknown.into_iter().map(|what| Warning {
            place: place.clone(),
            message: format!(
                "rule `{}`: there is no {what}: the rule is about nobody for it",
                rule.name
            ),
        }));
        content.rules.push((rule, line));
    }
    Ok(content)
}

fn subjects(
    written: &SubjectText,
    directory: &dyn Directory,
    unknown: &mut Vec<String>,
) -> Subjects {
    let mut ids = |names: &[String], numbers: &[u32], what, find: &dyn Fn(&str) -> Option<u32>| {
        let mut ids = numbers.to_vec();
        for name in names {
            match find(name) {
                Some(id) => ids.push(id),
                None => unknown.push(format!("{what} `{name}`")),
            }
        }
        (!names.is_empty() || !numbers.is_empty()).then_some(ids)
    };
    Subjects {
        uids: ids(&written.users, &written.uids, "user", &|name| directory.user(name)),
        gids: ids(&written.groups, &written.gids, "group", &|name| directory.group(name)),
        units: written.units.clone(),
        cgroups: written.cgroups.clone(),
    }
}

impl RuleText {
    /// A filter of `session.restrict`: a rule without name and subject that allows.
    pub fn filter(self) -> Result<Rule, String> {
        if self.name.is_some() || self.deny.is_some() || self.subject != SubjectText::default() {
            return Err("a filter has `allow` and operands, no name, subject or `deny`".to_owned());
        }
        Self { name: Some("filter".to_owned()), ..self }.rule(Subjects::default())
    }

    /// The rule, or what is wrong with its fields together.
    fn rule(self, subject: Subjects) -> Result<Rule, String> {
        let name = self.name.filter(|name| !name.trim().is_empty()).ok_or("a rule has a `name`")?;
        let (effect, verbs) = match (self.allow, self.deny) {
            (Some(verbs), None) => (Effect::Allow, verbs),
            (None, Some(verbs)) => (Effect::Deny, verbs),
            (Some(_), Some(_)) | (None, None) => {
                return Err(format!("rule `{name}`: it has either `allow` or `deny`"));
            }
        };
        if verbs.is_empty() {
            return Err(format!("rule `{name}`: it names no verb"));
        }
        let needs = |field: &str, verb: Verb| {
            Err(format!("rule `{name}`: `{field}` goes with the verb `{}`", verb.word()))
        };
        if !self.option.is_empty() && !verbs.contains(&Verb::Option) {
            return needs("option", Verb::Option);
        }
        if !self.netlink.is_empty() && !verbs.contains(&Verb::Send) {
            return needs("netlink", Verb::Send);
        }
        if self.snaplen.is_some() && !verbs.contains(&Verb::Capture) {
            return needs("snaplen", Verb::Capture);
        }
        if self.handover.is_some() && !verbs.contains(&Verb::Handover) {
            return needs("handover", Verb::Handover);
        }
        if self.unchecked && !verbs.contains(&Verb::Handover) {
            return needs("unchecked", Verb::Handover);
        }
        let named = [Verb::Bind, Verb::Connect, Verb::Send];
        if self.paths.is_some() && !verbs.iter().any(|verb| named.contains(verb)) {
            return needs("paths", Verb::Connect);
        }
        let couples = verbs.contains(&Verb::Connect) || verbs.contains(&Verb::Send);
        if self.lookup.is_some() && !couples {
            return needs("lookup", Verb::Connect);
        }
        if self.lookup_seconds.is_some() && self.lookup.is_none() {
            return Err(format!("rule `{name}`: `lookup_seconds` goes with `lookup`"));
        }
        let grants_only = self.snaplen.is_some()
            || self.lookup.is_some()
            || self.unchecked
            || self.paths.is_some();
        if effect == Effect::Deny && grants_only {
            return Err(format!(
                "rule `{name}`: `snaplen`, `lookup`, `unchecked` and `paths` go with `allow`"
            ));
        }
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
            netns: self.netns,
            option: self.option,
            netlink: self.netlink,
            snaplen: self.snaplen,
            handover: self.handover,
            unchecked: self.unchecked,
            paths: self.paths,
            lookup: self.lookup.map(|_required| seconds),
        })
    }
}

/// Line and column of a byte of a text, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

fn at(origin: &str, text: &str, span: Range<usize>, message: String) -> FileError {
    let (line, column) = position(text, span.start);
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let marked = text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
    let room = source.chars().count().saturating_sub(column - 1);
    let width = marked.chars().count().clamp(1, room.max(1));
    let margin = " ".repeat(line.to_string().len());
    let excerpt = format!(
        "{margin} |\n{line} | {source}\n{margin} | {}{}",
        " ".repeat(column - 1),
        "^".repeat(width)
    );
    FileError { origin: origin.to_owned(), line, column, message, excerpt }
}
