//! Permission is a value: only the policy makes a `Permit`, every operation takes one.

use std::collections::BTreeSet;

use crate::Fault;
use crate::paths::paths;
use crate::tokens::{Token, closing, follows};
use crate::tree::{File, Tree};

/// The one file that makes permits.
const MAKER: &str = "daemon/src/policy/mod.rs";
/// Where operations are.
const OPERATIONS: &str = "daemon/src/ops/";

/// Public functions of `ops` that see an entry or the kernel without a permit, and why.
const WITHOUT_PERMIT: &[(&str, &str)] = &[
    (
        "open::examine",
        "tells what a descriptor of the client is, which the policy is then asked about",
    ),
    ("control_end::note", "asks for the address of the broker's own socket, at its start"),
    (
        "control_end::checked",
        "tells whose end a descriptor of the client is, before the policy is asked",
    ),
    ("open::spare", "reserves a descriptor for a socket that a permitted call will bring"),
    ("actor::new", "asks who the broker is, at its start"),
    ("receive::is_end", "tells what the result of a permitted call means"),
    ("interface::name_in_address", "spells an address that a permitted call has brought"),
    ("whereabouts::local", "tells the policy where a socket leads, before it is asked"),
    ("unix_file::of", "tells which file the control socket is, at the start"),
    ("unix_file::look_up", "tells the policy which file a path leads to, with the caller's rights"),
    ("whereabouts::devices", "the same"),
    ("whereabouts::route", "the same"),
    ("whereabouts::captures", "the same"),
    ("whereabouts::peers", "the same"),
    ("whereabouts::specified", "the same"),
    ("whereabouts::interfaces", "the same"),
    ("whereabouts::chosen_sources", "the same"),
    ("whereabouts::captured", "the same"),
    ("whereabouts::interface", "the same"),
    ("whereabouts::interface_name", "the same"),
    ("whereabouts::interface_of", "the same"),
    ("whereabouts::own_headers", "the same"),
];

/// Where requests are taken apart: what is done there has no permit yet.
const HANDLERS: &str = "daemon/src/dispatch/";

/// Functions of `sockbroker_sys` that compute and do not call the kernel: handlers may use them.
const PURE: &[(&str, &str)] = &[
    ("control", "cmsg_len"),
    ("control", "cmsg_space"),
    ("control", "carries_pointer_or_descriptor"),
    ("resolver", "gai_message"),
    ("resolver", "host_message"),
];

/// A public function.
#[derive(Debug)]
struct Function<'a> {
    name: &'a str,
    line: usize,
    parameters: Vec<&'a str>,
    body: Vec<Token<'a>>,
}

/// Holds the tree to both rules.
pub fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust() {
        let tokens = file.shipped();
        for (at, token) in tokens.iter().enumerate() {
            if follows(&tokens, at, &["Permit", "{"]) && file.path != MAKER {
                faults.push(format!(
                    "{}:{}: makes or takes apart a Permit: ask the policy, which alone may",
                    file.path, token.line
                ));
            }
        }
    }
    match tree.file(MAKER) {
        Some(file) => check_type(file, &mut faults),
        None => faults.push(format!("{MAKER} is gone: correct MAKER in tests/tidy")),
    }
    check_operations(tree, &mut faults);
    check_handlers(tree, &mut faults);
    faults
}

/// Handlers reach the kernel through operations alone, which take permits.
fn check_handlers(tree: &Tree, faults: &mut Vec<Fault>) {
    for file in tree.rust().filter(|file| file.path.starts_with(HANDLERS)) {
        let tokens = file.shipped();
        let kernel = kernel_modules(&tokens);
        for path in paths(&tokens) {
            let words: &[&str] = match path.words.as_slice() {
                ["sockbroker_sys", rest @ ..] => rest,
                [module, ..] if kernel.contains(module) => &path.words,
                _ => continue,
            };
            let [module, .., name] = words else { continue };
            let calls = name.starts_with(|c: char| c.is_ascii_lowercase())
                // A function of a type, such as RawAddress::encode, is of a value.
                && !words.iter().any(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
            if calls && !PURE.contains(&(*module, *name)) {
                faults.push(format!(
                    "{}:{}: calls sockbroker_sys::{}: make it an operation that takes a permit, or say \
                     in PURE in tests/tidy that it computes only",
                    file.path,
                    path.line,
                    words.join("::")
                ));
            }
        }
    }
}

/// The type itself: private fields, and no way to get a second one.
fn check_type(file: &File, faults: &mut Vec<Fault>) {
    let tokens = file.shipped();
    let Some(start) = (0..tokens.len()).find(|at| follows(&tokens, *at, &["struct", "Permit"]))
    else {
        faults.push(format!("{}: no struct Permit: correct MAKER in tests/tidy", file.path));
        return;
    };
    let open = (start..tokens.len()).find(|at| follows(&tokens, *at, &["{"])).unwrap_or(start);
    let fields = tokens.get(open..closing(&tokens, open)).unwrap_or_default();
    if let Some(token) = fields.iter().find(|token| token.text == "pub") {
        faults.push(format!(
            "{}:{}: Permit has a public field: make it private",
            file.path, token.line
        ));
    }
    let before = tokens.get(..start).unwrap_or_default();
    let item = before.iter().rposition(|token| [";", "}"].contains(&token.text)).unwrap_or(0);
    for token in before.get(item..).unwrap_or_default() {
        if ["Clone", "Copy", "Default", "Deserialize"].contains(&token.text) {
            faults.push(format!(
                "{}:{}: Permit derives {}: a permit is spent once and comes from a verdict only",
                file.path, token.line, token.text
            ));
        }
    }
}

fn check_operations(tree: &Tree, faults: &mut Vec<Fault>) {
    let mut excused = BTreeSet::new();
    for file in tree.rust().filter(|file| file.path.starts_with(OPERATIONS)) {
        let tokens = file.shipped();
        let kernel = kernel_modules(&tokens);
        for function in functions(&tokens) {
            let sees_entry = function.parameters.contains(&"Entry");
            let calls_kernel = paths(&function.body).iter().any(|path| {
                let first = path.words.first().copied().unwrap_or_default();
                first == "sockbroker_sys" || kernel.contains(first)
            });
            if !(sees_entry || calls_kernel) || function.parameters.contains(&"Permit") {
                continue;
            }
            let module = file.path.trim_start_matches(OPERATIONS).trim_end_matches(".rs");
            let name = format!("{module}::{}", function.name);
            if WITHOUT_PERMIT.iter().any(|(excused, _)| *excused == name) {
                excused.insert(name);
            } else {
                faults.push(format!(
                    "{}:{}: {name} sees {} without a Permit: take one, or make it pub(super), or say \
                     in WITHOUT_PERMIT in tests/tidy why it needs none",
                    file.path,
                    function.line,
                    if sees_entry { "an Entry" } else { "the kernel" },
                ));
            }
        }
    }
    for (name, _) in WITHOUT_PERMIT {
        if !excused.contains(*name) {
            faults.push(format!("WITHOUT_PERMIT in tests/tidy: {name} needs no excuse: strike it"));
        }
    }
}

/// The modules of `sockbroker_sys` that a file has imported: what they hold are calls.
fn kernel_modules<'a>(tokens: &[Token<'a>]) -> BTreeSet<&'a str> {
    let imported =
        paths(tokens).into_iter().filter(|path| path.words.first() == Some(&"sockbroker_sys"));
    imported
        .filter_map(|path| path.words.last().copied())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect()
}

/// Functions that a layer above can call.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "fn") {
        let head = tokens.get(at.saturating_sub(5)..at).unwrap_or_default();
        let head = head
            .iter()
            .rposition(|token| [";", "}", "{", "]"].contains(&token.text))
            .map_or(head, |end| head.get(end + 1..).unwrap_or_default());
        let public = head.iter().any(|token| token.text == "pub");
        let inner = head.iter().any(|token| token.text == "super");
        let Some(open) = (at..tokens.len()).find(|at| follows(tokens, *at, &["("])) else { break };
        let close = closing(tokens, open);
        let body = (close..tokens.len())
            .find(|at| ["{", ";"].iter().any(|end| follows(tokens, *at, &[end])));
        let body = body.unwrap_or(close);
        if public && !inner {
            found.push(Function {
                name: tokens.get(at + 1).map_or("", |token| token.text),
                line: token.line,
                parameters: tokens
                    .get(open..close)
                    .unwrap_or_default()
                    .iter()
                    .map(|t| t.text)
                    .collect(),
                body: tokens.get(body..closing(tokens, body)).unwrap_or_default().to_vec(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "#[derive(Debug)] pub struct Permit<R> { request: R }";

    fn faults(policy: &str, operation: &str) -> Vec<Fault> {
        let faults = check(&Tree::of(&[(MAKER, policy), ("daemon/src/ops/a.rs", operation)]));
        faults.into_iter().filter(|fault| !fault.contains("strike it")).collect()
    }

    #[test]
    fn permits_are_made_by_the_policy_alone() {
        assert_eq!(faults(&format!("{TYPE} fn ask() {{ Permit {{ request }} }}"), ""), [""; 0]);
        assert_eq!(faults(TYPE, "fn f() { Permit { request } }").len(), 1);
        assert_eq!(faults("struct Permit<R> { pub request: R }", "").len(), 1);
        assert_eq!(faults("#[derive(Debug, Clone)] struct Permit<R> { request: R }", "").len(), 1);
    }

    #[test]
    fn handlers_do_not_call_the_kernel() {
        let faults = |source: &str| {
            let tree = Tree::of(&[(MAKER, TYPE), ("daemon/src/dispatch/a.rs", source)]);
            check(&tree).iter().filter(|fault| fault.contains("PURE")).count()
        };
        assert_eq!(faults("use sockbroker_sys::socket; fn f() { socket::bind() }"), 1);
        assert_eq!(faults("fn f() { sockbroker_sys::socket::bind() }"), 1);
        assert_eq!(faults("use sockbroker_sys::socket::bind; fn f() { bind() }"), 1);
        assert_eq!(faults("use sockbroker_sys::control; fn f() { control::cmsg_len(1) }"), 0);
        assert_eq!(
            faults("use sockbroker_sys::address::RawAddress; fn f() { RawAddress::encode() }"),
            0
        );
        assert_eq!(faults("use sockbroker_sys::message; fn f(m: message::ReceivedMessage) {}"), 0);
    }

    #[test]
    fn an_operation_takes_a_permit() {
        let with = "pub async fn f(permit: Permit<Bind>, entry: &Entry) {}";
        assert_eq!(faults(TYPE, with), [""; 0]);
        assert_eq!(faults(TYPE, "pub fn f(entry: &Entry) {}").len(), 1);
        assert_eq!(
            faults(TYPE, "use sockbroker_sys::{a::B, host}; pub fn f() { host::name() }").len(),
            1
        );
        assert_eq!(faults(TYPE, "pub fn f() { sockbroker_sys::host::name() }").len(), 1);
        assert_eq!(faults(TYPE, "use sockbroker_sys::a::B; pub fn f() { B::new() }"), [""; 0]);
        assert_eq!(
            faults(TYPE, "pub(super) fn f(entry: &Entry) {} fn g(entry: &Entry) {}"),
            [""; 0]
        );
        assert_eq!(faults(TYPE, "pub(crate) fn f(entry: &Entry) {}").len(), 1);
    }
}
