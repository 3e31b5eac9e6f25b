//! The contract and its description: every method, error and limit is written down and tested.

use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;

use crate::Fault;
use crate::tree::{File, Tree};

/// The catalogue of methods, generated from the traits.
const CATALOGUE: &str = "proto/openrpc.json";
/// The description for implementers.
const PROTOCOL: &str = "proto/PROTOCOL.md";
/// Where limits are declared.
const LIMITS: &str = "daemon/src/session/limits.rs";

/// Every method is in the description.
pub fn methods(tree: &Tree) -> Vec<Fault> {
    let catalogue = catalogue(tree);
    let methods = catalogue["methods"].as_array().map(Vec::as_slice).unwrap_or_default();
    if methods.is_empty() {
        return vec![format!(
            "{CATALOGUE}: no methods: generate it as proto/tests/openrpc.rs says"
        )];
    }
    described(tree, "method", methods.iter().filter_map(|method| method["name"].as_str()))
}

/// Every kind of error is in the description, with its code.
pub fn errors(tree: &Tree) -> Vec<Fault> {
    let catalogue = catalogue(tree);
    let Some(errors) = catalogue["components"]["errors"].as_object() else {
        return vec![format!("{CATALOGUE}: no errors: generate it as proto/tests/openrpc.rs says")];
    };
    let mut faults = described(tree, "error kind", errors.keys().map(String::as_str));
    let text = tree.file(PROTOCOL).map_or("", |file| file.text.as_str());
    for (name, error) in errors {
        let code = error["code"].to_string();
        if !has_word(text, &code) {
            faults.push(format!("{PROTOCOL}: lacks the code {code} of `{name}`: add it"));
        }
    }
    faults
}

fn catalogue(tree: &Tree) -> Value {
    let text = tree.file(CATALOGUE).map_or("", |file| file.text.as_str());
    serde_json::from_str(text).unwrap_or_default()
}

/// Every limit is in the description, and some test crosses it.
pub fn limits(tree: &Tree) -> Vec<Fault> {
    let Some(file) = tree.file(LIMITS) else { return vec![gone(LIMITS)] };
    let names = limit_names(&file.text);
    if names.is_empty() {
        return vec![format!("{LIMITS}: no limits! {{ .. }} found: correct tests/tidy")];
    }
    let mut faults = described(tree, "limit", names.iter().map(String::as_str));
    let tests: Vec<String> = tree.files.iter().filter_map(test_text).collect();
    for name in names.iter().filter(|name| !tests.iter().any(|text| is_used(text, name))) {
        faults.push(format!(
            "{LIMITS}: no test crosses the limit {name}: write one that sets it low, goes over it and \
             finds \"{name}\" in data.limit"
        ));
    }
    faults
}

fn gone(path: &str) -> Fault {
    format!("{path} is missing: restore it, or correct tests/tidy")
}

fn described<'a>(tree: &Tree, what: &str, names: impl Iterator<Item = &'a str>) -> Vec<Fault> {
    let Some(protocol) = tree.file(PROTOCOL) else { return vec![gone(PROTOCOL)] };
    let missing = names.filter(|name| !protocol.text.contains(&format!("`{name}`")));
    missing
        .map(|name| format!("{PROTOCOL}: does not name the {what} `{name}`: describe it"))
        .collect()
}

/// The names in `limits! { name = value, "unit", "meaning"; .. }`.
fn limit_names(text: &str) -> Vec<String> {
    let items = syn::parse_file(text).map(|file| file.items).unwrap_or_default();
    let rows = items.into_iter().find_map(|item| match item {
        syn::Item::Macro(item) if item.mac.path.is_ident("limits") => Some(item.mac.tokens),
        _ => None,
    });
    let rows: Vec<TokenTree> = rows.unwrap_or_else(TokenStream::new).into_iter().collect();
    let rows =
        rows.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';'));
    rows.filter_map(|row| row.first().map(ToString::to_string)).collect()
}

/// What is test code in a file; the declaration's own tests prove nothing.
fn test_text(file: &File) -> Option<String> {
    let is_code = ["rs", "py", "toml"].iter().any(|end| file.is(end));
    if file.path == LIMITS || file.path.starts_with("tests/tidy/") || !is_code {
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
    quoted.iter().any(|part| text.contains(part))
        || set.iter().any(|part| text.match_indices(part).any(|(at, _)| is_start(text, at)))
}

fn is_start(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        is_start(text, at) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &str = "macro_rules! limits { ($($n:ident = $d:expr;)*) => {} }\n\
        limits! { handles = 3, \"count\", \"a; b\"; head_bytes = 1 << 10, \"bytes\", \"c\"; }";

    #[test]
    fn limits_must_be_described_and_exceeded_by_a_test() {
        let protocol = (PROTOCOL, "`handles` and `head_bytes`");
        let crossing = "fn f() { assert_eq!(limit, \"handles\"); Limits { head_bytes: 7 } }";
        let tree = Tree::of(&[(LIMITS, DECLARED), protocol, ("tests/security/a.rs", crossing)]);
        assert_eq!(limits(&tree), [""; 0]);
        let only_handles =
            ("tests/security/a.rs", "fn f() { set(\"handles\", 3); ahead_bytes = 4 }");
        let tree = Tree::of(&[(LIMITS, DECLARED), protocol, only_handles]);
        assert!(limits(&tree)[0].contains("crosses the limit head_bytes"), "{:?}", limits(&tree));
        let shipped = ("daemon/src/a.rs", "fn f() { \"handles\" }");
        assert_eq!(limits(&Tree::of(&[(LIMITS, DECLARED), protocol, shipped])).len(), 2);
        assert_eq!(limits(&Tree::of(&[(LIMITS, DECLARED), (PROTOCOL, "handles")])).len(), 4);
    }

    #[test]
    fn methods_must_be_described() {
        let catalogue =
            (CATALOGUE, r#"{"methods":[{"name":"socket.recv"},{"name":"socket.recvfrom"}]}"#);
        let tree = Tree::of(&[catalogue, (PROTOCOL, "`socket.recv`, socket.recvfrom")]);
        assert_eq!(methods(&tree).len(), 1);
        assert_eq!(methods(&Tree::of(&[])).len(), 1);
    }

    #[test]
    fn errors_must_be_described_with_their_codes() {
        let catalogue = (CATALOGUE, r#"{"components":{"errors":{"timeout":{"code":-1001}}}}"#);
        let count = |text| errors(&Tree::of(&[catalogue, (PROTOCOL, text)])).len();
        assert_eq!(count("| `timeout` | -1001 |"), 0);
        assert_eq!(count("| timeout | -1001 |"), 1);
        assert_eq!(count("| `timeout` | -10010 |"), 1);
        assert_eq!(count(""), 2);
    }
}
