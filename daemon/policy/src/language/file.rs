//! The policy file: text to rules, every mistake with its line and column.
//!
//! `fields.rs` checks each value while it is read, `rule_text.rs` the fields of a rule together. The caller
//! passes the directory in which names of users and groups are looked up.

use std::collections::HashSet;

use serde::Deserialize;
use toml::Spanned;

use crate::language::position::{Lines, Remark, at};
use crate::language::rule::Rule;

pub use crate::language::position::{FileError, Position};
pub use crate::language::rule_text::RuleText;
pub use crate::language::subject_text::Directory;

/// The version of the rule language.
const VERSION: u32 = 1;

/// A warning: the rules can be used, but hardly do what their author intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, line and column.
    pub position: String,
    /// What is suspicious.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

/// The content of a file.
#[derive(Debug, Default)]
pub struct Content {
    /// Its rules, and the position at which each begins.
    pub rules: Vec<(Rule, Position)>,
    /// Whether loading it closes what is no longer granted.
    pub revokes: bool,
    /// What is suspicious.
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

/// Reads a file.
pub fn read(origin: &str, text: &str, directory: &dyn Directory) -> Result<Content, FileError> {
    let wrong = |(span, message): Remark| at(origin, text, span, message);
    let file: FileText = toml::from_str(text).map_err(|error| {
        let message = error.message().trim_end();
        let message = if message.ends_with("missing field `version`") {
            format!("{message}: the file begins with `version = {VERSION}`")
        } else {
            message.to_owned()
        };
        wrong((error.span().unwrap_or_default(), message))
    })?;
    if *file.version.get_ref() != VERSION {
        let (version, span) = (*file.version.get_ref(), file.version.span());
        let message =
            format!("version {version} is not supported: this broker supports version {VERSION}");
        return Err(wrong((span, message)));
    }
    let mut content = Content { revokes: file.revoke_on_reload, ..Content::default() };
    let (lines, mut names) = (Lines::of(text), HashSet::new());
    for written in file.rule {
        let span = written.span();
        let mut remarks = Vec::new();
        let rule = written.into_inner().resolve(&span, directory, &mut remarks).map_err(wrong)?;
        if !names.insert(rule.name.clone()) {
            let message = format!("the name `{}` is taken by another rule", rule.name);
            return Err(wrong((span, message)));
        }
        content.warnings.extend(remarks.into_iter().map(|(span, message)| Warning {
            position: format!("{origin}:{}", lines.position(span.start)),
            message: format!("rule `{}`: {message}", rule.name),
        }));
        content.rules.push((rule, lines.position(span.start)));
    }
    Ok(content)
}
