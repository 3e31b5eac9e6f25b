//! A rule as one line of the rule language.

use std::fmt::Display;

use crate::language::qualifier::Handover;
use crate::language::rule::Rule;
use crate::language::value::protocol_name;
use crate::language::verb::Verb;

impl Rule {
    /// Its fields but name and subject, as a line of the rule language.
    pub fn line(&self) -> String {
        let rule = self;
        let mut line = String::new();
        field(&mut line, rule.effect.word(), rule.verbs().map(Verb::word));
        field(&mut line, "family", &rule.family);
        field(&mut line, "type", &rule.kind);
        let family = rule.family.first().map(|family| family.0);
        field(
            &mut line,
            "protocol",
            rule.protocol.iter().map(|proto| protocol_name(family, proto.0)),
        );
        field(&mut line, "local", &rule.local);
        field(&mut line, "local_ports", &rule.local_ports);
        field(&mut line, "remote", &rule.remote);
        field(&mut line, "remote_ports", &rule.remote_ports);
        field(&mut line, "interface", &rule.interface);
        field(&mut line, "path", &rule.path);
        field(&mut line, "option", rule.option.iter().map(|class| class.word()));
        field(&mut line, "netlink", rule.netlink.iter().map(|class| class.word()));
        let mut plain = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                line.extend([" ", name, " = ", &value]);
            }
        };
        plain("snaplen", rule.snaplen.map(|snaplen| snaplen.to_string()));
        plain("handover", rule.handover.map(|handover| quoted(Handover::word(handover))));
        plain("unchecked", rule.unchecked.map(|unchecked| unchecked.to_string()));
        plain("paths", rule.paths.map(|paths| quoted(paths.word())));
        plain("lookup", rule.lookup.map(|_| quoted("required")));
        plain("lookup_seconds", rule.lookup.map(|limit| limit.as_secs().to_string()));
        line
    }
}

/// Adds a field that has values; without any, nothing.
pub(crate) fn field<T: Display>(
    line: &mut String,
    name: &str,
    values: impl IntoIterator<Item = T>,
) {
    let values: Vec<_> = values.into_iter().map(|value| quoted(&value.to_string())).collect();
    if !values.is_empty() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend([name, " = [", &values.join(", "), "]"]);
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}
