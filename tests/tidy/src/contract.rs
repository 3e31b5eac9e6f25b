//! The contract and its description: every method, error and limit is written down and tested.

use proc_macro2::TokenTree;
use serde_json::Value;

use crate::tree::{Fault, File, Tree};

/// The catalogue of methods, generated from the traits.
const CATALOGUE: &str = "proto/openrpc.json";
/// The description for implementers.
const PROTOCOL: &str = "proto/PROTOCOL.md";
/// Where limits are declared.
const LIMITS: &str = "daemon/src/config/limits.rs";

/// Every method and every kind of error is in the description, with its code.
pub(crate) fn catalogue(tree: &Tree) -> Vec<Fault> {
    let text = tree.file(CATALOGUE).map_or("", |file| &file.text);
    let catalogue: Value = serde_json::from_str(text).unwrap_or_default();
    let (Some(methods), Some(errors)) =
        (catalogue["methods"].as_array(), catalogue["components"]["errors"].as_object())
    else {
        return vec![format!("{CATALOGUE}: no methods or errors: see proto/tests/openrpc.rs")];
    };
    let names = methods.iter().filter_map(|method| method["name"].as_str());
    let mut faults = described(tree, names.chain(errors.keys().map(String::as_str)));
    let text = tree.file(PROTOCOL).map_or("", |file| &file.text);
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
    for (name, code) in errors.iter().map(|(name, error)| (name, error["code"].to_string())) {
        if !words.contains(&code.as_str()) {
            faults.push(format!("{PROTOCOL}: lacks the code {code} of `{name}`: add it"));
        }
    }
    faults
}

/// Every limit is in the description, and some test exceeds it.
pub(crate) fn limits(tree: &Tree) -> Vec<Fault> {
    let names = tree.file(LIMITS).map_or_else(Vec::new, |file| limit_names(&file.text));
    if names.is_empty() {
        return vec![format!("{LIMITS}: no limits! {{ .. }} found: correct tests/tidy")];
    }
    let mut faults = described(tree, names.iter().map(String::as_str));
    let tests: Vec<String> = tree.files.iter().filter_map(test_text).collect();
    for name in names.iter().filter(|name| !tests.iter().any(|text| is_used(text, name))) {
        faults.push(format!(
            "{LIMITS}: no test exceeds the limit {name}: write one that sets it low, goes over it and \
             finds \"{name}\" in data.limit"
        ));
    }
    faults
}

fn described<'a>(tree: &Tree, names: impl Iterator<Item = &'a str>) -> Vec<Fault> {
    let protocol = tree.file(PROTOCOL).map_or("", |file| &file.text);
    let missing = names.filter(|name| !protocol.contains(&format!("`{name}`")));
    missing.map(|name| format!("{PROTOCOL}: does not name `{name}`: describe it")).collect()
}

/// The names in `limits! { name = value, "unit", "meaning"; .. }`.
fn limit_names(text: &str) -> Vec<String> {
    let items = syn::parse_file(text).map(|file| file.items).unwrap_or_default();
    let rows: Vec<TokenTree> = items
        .into_iter()
        .filter_map(|item| match item {
            syn::Item::Macro(item) if item.mac.path.is_ident("limits") => Some(item.mac.tokens),
            _ => None,
        })
        .flatten()
        .collect();
    let rows = rows.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ';'));
    rows.filter_map(|row| row.first().map(ToString::to_string)).collect()
}

/// What is test code in a file; the declaration's own tests prove nothing.
fn test_text(file: &File) -> Option<String> {
    let is_code = ["rs", "py", "toml"].iter().any(|end| file.is(end));
    if file.path == LIMITS || file.is_in("tests/tidy") || !is_code {
        return None;
    }
    let lines = file.text.lines().enumerate();
    let tests = lines.filter(|(number, _)| file.test || file.source.is_test(number + 1));
    Some(tests.map(|(_, line)| line).collect::<Vec<_>>().join("\n"))
}

/// Whether a limit is set or expected by its name: `"name"`, `name = 3`, `limits.name`, `name: 3`.
fn is_used(text: &str, name: &str) -> bool {
    let quoted = [format!("\"{name}\""), format!("'{name}'"), format!("limits.{name}")];
    let set = [format!("{name} = "), format!("{name}="), format!("{name}: ")];
    let starts = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    quoted.iter().any(|part| text.contains(part))
        || set.iter().any(|part| text.match_indices(part).any(|(at, _)| starts(at)))
}

mod tests {
    use super::*;

    const DECLARED: &str = "macro_rules! limits { ($($n:ident = $d:expr;)*) => {} }\n\
        limits! { handles = 3, \"count\", \"a; b\"; head_bytes = 1 << 10, \"bytes\", \"c\"; }";

    #[test]
    fn limits_must_be_described_and_exceeded_by_a_test() {
        let count = |protocol, path, source| {
            limits(&Tree::of(&[(LIMITS, DECLARED), (PROTOCOL, protocol), (path, source)])).len()
        };
        let protocol = "`handles` and `head_bytes`";
        let both = "fn f() { assert_eq!(limit, \"handles\"); Limits { head_bytes: 7 } }";
        assert_eq!(count(protocol, "tests/security/a.rs", both), 0);
        assert_eq!(count("handles and `head_bytes`", "tests/security/a.rs", both), 1);
        let one = "fn f() { set(\"handles\", 3); ahead_bytes = 4 }";
        assert_eq!(count(protocol, "tests/security/a.rs", one), 1);
        assert_eq!(count(protocol, "daemon/src/a.rs", both), 2);
    }

    #[test]
    fn methods_and_errors_must_be_described() {
        let text = r#"{"methods":[{"name":"socket.recv"}],"components":{"errors":{"timeout":{"code":-1001}}}}"#;
        let count =
            |protocol| catalogue(&Tree::of(&[(CATALOGUE, text), (PROTOCOL, protocol)])).len();
        assert_eq!(count("`socket.recv` | `timeout` | -1001 |"), 0);
        assert_eq!(count("socket.recv | timeout | -1001 |"), 2);
        assert_eq!(count("`socket.recv` | `timeout` | -10010 |"), 1);
        assert_eq!(catalogue(&Tree::of(&[])).len(), 1);
    }
}
