//! Rules and grants as one line of the rule language.

use std::fmt::Display;

use crate::language::operand::Operand;
use crate::language::verb::{Effect, Verb};

/// A line: the effect with its verbs, and each field that has a value.
pub(crate) fn line(
    effect: Effect,
    verbs: impl Iterator<Item = Verb>,
    value: impl Fn(Operand) -> Option<String>,
) -> String {
    let effect = list(verbs.map(Verb::word)).map(|verbs| (effect.word(), verbs));
    let fields = Operand::ALL.iter().filter_map(|field| value(*field).map(|v| (field.word(), v)));
    let parts = effect.into_iter().chain(fields).map(|(name, value)| format!("{name} = {value}"));
    parts.collect::<Vec<_>>().join(" ")
}

/// A list of TOML strings; `None` without any value.
pub(crate) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> Option<String> {
    let values: Vec<_> = values.into_iter().map(|value| quoted(&value.to_string())).collect();
    (!values.is_empty()).then(|| format!("[{}]", values.join(", ")))
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}
