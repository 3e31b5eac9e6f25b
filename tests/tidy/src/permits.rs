//! Permission is a value: one file makes a `Permit`, every operation takes one.

use std::collections::BTreeSet;

use crate::Fault;
use crate::source::idents;
use crate::tree::{File, Tree};

/// Types, and the one file of the daemon that builds their values.
const MAKERS: &[(&str, &str)] = &[
    (PERMIT, "daemon/src/policy/mod.rs"),
    ("ErrorObject", "daemon/src/dispatch/error.rs"),
    ("ErrorObjectOwned", "daemon/src/dispatch/error.rs"),
];

/// The proof that the policy allows a request.
const PERMIT: &str = "Permit";
/// Where operations are.
const OPERATIONS: &str = "daemon/src/ops/";
/// Where requests are taken apart: what is done there has no permit yet.
const HANDLERS: &str = "daemon/src/dispatch/";
/// The crate of system calls.
const KERNEL: &str = "sockbroker_sys";

/// Public functions of operations that see an entry or the kernel without a permit, and why.
const WITHOUT_PERMIT: &[(&str, &str)] = &[
    ("open::examine", "identifies a client's descriptor before the policy is asked about it"),
    ("control_end::note", "reads the address of the broker's own socket at its start"),
    (
        "control_end::checked",
        "identifies the peer of a client's descriptor before the policy is asked",
    ),
    ("open::spare", "reserves a descriptor for a socket that a permitted call creates"),
    ("actor::new", "reads the broker's own identity at its start"),
    ("receive::is_end", "interprets the result of a permitted call"),
    ("interface::name_in_address", "formats an address that a permitted call returned"),
    ("unix_file::of", "identifies the control socket's file at the start"),
    (
        "unix_file::look_up",
        "finds the file of a path, with the caller's rights, before the policy is asked",
    ),
    ("whereabouts::local", "finds where a socket leads before the policy is asked"),
    ("whereabouts::devices", "as local"),
    ("whereabouts::route", "as local"),
    ("whereabouts::captures", "as local"),
    ("whereabouts::peers", "as local"),
    ("whereabouts::specified", "as local"),
    ("whereabouts::interfaces", "as local"),
    ("whereabouts::chosen_sources", "as local"),
    ("whereabouts::captured", "as local"),
    ("whereabouts::interface", "as local"),
    ("whereabouts::interface_name", "as local"),
    ("whereabouts::interface_of", "as local"),
    ("whereabouts::own_headers", "as local"),
];

/// Functions of the kernel's crate that only compute: handlers may use them.
const COMPUTES: &[(&str, &str)] = &[
    ("control", "cmsg_len"),
    ("control", "cmsg_space"),
    ("control", "carries_pointer_or_descriptor"),
    ("resolver", "gai_message"),
    ("resolver", "host_message"),
];

/// Holds the tree to all of it.
pub fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust().filter(|file| !file.test && file.path.starts_with("daemon/")) {
        check_makers(file, &mut faults);
        if file.path.starts_with(HANDLERS) {
            check_handler(file, &mut faults);
        }
    }
    check_operations(tree, &mut faults);
    for (name, path) in MAKERS {
        match tree.file(path) {
            None => faults.push(format!("MAKERS in tests/tidy: {path} does not exist: correct it")),
            Some(file) if *name == PERMIT => check_type(file, &mut faults),
            Some(_) => {}
        }
    }
    faults
}

fn check_makers(file: &File, faults: &mut Vec<Fault>) {
    let literals = file.source.literals.iter().map(|(name, line)| (name.as_str(), *line));
    let calls = file.source.paths.iter().filter_map(|path| match path.words.as_slice() {
        [.., name, function] if function.starts_with(|c: char| c.is_ascii_lowercase()) => {
            Some((name.as_str(), path.line))
        }
        _ => None,
    });
    for (name, line) in literals.chain(calls).filter(|(_, line)| !file.source.is_test(*line)) {
        if let Some((_, maker)) =
            MAKERS.iter().find(|(made, maker)| *made == name && *maker != file.path)
        {
            faults.push(format!(
                "{}:{line}: makes or takes apart a {name}: only {maker} may",
                file.path
            ));
        }
    }
}

/// The permit itself: private fields, and no way to a second one.
fn check_type(file: &File, faults: &mut Vec<Fault>) {
    let items = syn::parse_file(&file.text).map(|file| file.items).unwrap_or_default();
    let Some(permit) = items.iter().find_map(|item| match item {
        syn::Item::Struct(item) if item.ident == PERMIT => Some(item),
        _ => None,
    }) else {
        faults.push(format!("{}: no struct {PERMIT}: correct MAKERS in tests/tidy", file.path));
        return;
    };
    if permit.fields.iter().any(|field| !matches!(field.vis, syn::Visibility::Inherited)) {
        faults.push(format!(
            "{}: {PERMIT} has a field that is not private: make it private",
            file.path
        ));
    }
    let derived = permit.attrs.iter().filter_map(|attribute| attribute.meta.require_list().ok());
    for name in derived.flat_map(|list| idents(list.tokens.clone())) {
        if ["Clone", "Copy", "Default", "Deserialize"].contains(&name.as_str()) {
            faults.push(format!(
                "{}: {PERMIT} derives {name}: a verdict alone makes it, and it is used once",
                file.path
            ));
        }
    }
}

/// Handlers reach the kernel through operations alone.
fn check_handler(file: &File, faults: &mut Vec<Fault>) {
    let is_type = |word: &String| word.starts_with(|c: char| c.is_ascii_uppercase());
    for (line, words) in
        kernel_paths(file).into_iter().filter(|(line, _)| !file.source.is_test(*line))
    {
        let [module, .., name] = words else { continue };
        // A function of a type, such as RawAddress::encode, is of a value.
        if !words.iter().any(is_type) && !COMPUTES.contains(&(module.as_str(), name.as_str())) {
            faults.push(format!(
                "{}:{line}: calls {KERNEL}::{}: make it an operation that takes a permit, or list it in COMPUTES in \
                 tests/tidy if it computes only",
                file.path,
                words.join("::")
            ));
        }
    }
}

/// Paths into the kernel's crate, directly or through an imported module of it.
fn kernel_paths(file: &File) -> Vec<(usize, &[String])> {
    let paths = || file.source.paths.iter();
    let imported: BTreeSet<&str> = paths()
        .filter(|path| path.words.first().is_some_and(|word| word == KERNEL))
        .filter_map(|path| path.words.last().map(String::as_str))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    let within = |words: &'_ [String]| match words {
        [first, ..] if first == KERNEL => Some(1),
        [first, ..] if imported.contains(first.as_str()) => Some(0),
        _ => None,
    };
    paths().filter_map(|path| Some((path.line, path.words.get(within(&path.words)?..)?))).collect()
}

fn check_operations(tree: &Tree, faults: &mut Vec<Fault>) {
    let mut excused = BTreeSet::new();
    for file in tree.rust().filter(|file| file.path.starts_with(OPERATIONS) && !file.test) {
        let kernel = kernel_paths(file);
        let module = file.path.trim_start_matches(OPERATIONS).trim_end_matches(".rs");
        for function in file.source.functions.iter().filter(|function| function.public) {
            let takes = |name: &str| function.parameters.iter().any(|word| word == name);
            let calls_kernel = kernel.iter().any(|(line, _)| function.lines.contains(line));
            let name = format!("{module}::{}", function.name);
            let start = *function.lines.start();
            if file.source.is_test(start) || takes(PERMIT) || !(takes("Entry") || calls_kernel) {
                continue;
            }
            if WITHOUT_PERMIT.iter().any(|(listed, _)| *listed == name) {
                excused.insert(name);
            } else {
                faults.push(format!(
                    "{}:{start}: {name} sees an entry or the kernel without a {PERMIT}: take one, or make it \
                     pub(super), or list it in WITHOUT_PERMIT in tests/tidy with the reason",
                    file.path
                ));
            }
        }
    }
    let stale = WITHOUT_PERMIT.iter().filter(|(name, _)| !excused.contains(*name));
    faults.extend(
        stale.map(|(name, _)| {
            format!("WITHOUT_PERMIT in tests/tidy: stale exception: remove {name}")
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "#[derive(Debug)] pub struct Permit<R> { request: R }";

    /// Faults of a policy and one more file, but for those of the tables.
    fn count(policy: &str, path: &str, source: &str) -> usize {
        let tree = Tree::of(&[(MAKERS[0].1, policy), (path, source)]);
        check(&tree).into_iter().filter(|fault| !fault.contains(" in tests/tidy: ")).count()
    }

    #[test]
    fn only_the_policy_makes_permits() {
        let count = |policy: &str| count(policy, "daemon/src/ops/a.rs", "");
        assert_eq!(count(&format!("{TYPE} fn ask() {{ Permit {{ request }} }}")), 0);
        assert_eq!(count("struct Permit<R> { pub request: R }"), 1);
        assert_eq!(count("#[derive(Debug, Clone)] struct Permit<R> { request: R }"), 1);
        let count = |source: &str| self::count(TYPE, "daemon/src/ops/a.rs", source);
        assert_eq!(count("fn f() { Permit { request } }"), 1);
        assert_eq!(count("fn f() { let Permit { request } = permit; }"), 1);
        assert_eq!(count("fn f() -> Permit<R> { g() }"), 0);
    }

    #[test]
    fn only_one_file_makes_error_objects() {
        let make = "fn f() -> ErrorObjectOwned { ErrorObjectOwned::owned(1) }";
        assert_eq!(count(TYPE, "daemon/src/dispatch/a.rs", make), 1);
        assert_eq!(count(TYPE, "daemon/src/dispatch/error.rs", make), 0);
    }

    #[test]
    fn handlers_do_not_call_the_kernel() {
        let count = |source: &str| count(TYPE, "daemon/src/dispatch/a.rs", source);
        assert_eq!(count("use sockbroker_sys::socket; fn f() { socket::bind() }"), 1);
        assert_eq!(count("fn f() { sockbroker_sys::socket::bind() }"), 1);
        assert_eq!(count("use sockbroker_sys::socket::bind; fn f() { bind() }"), 1);
        assert_eq!(count("use sockbroker_sys::control; fn f() { control::cmsg_len(1) }"), 0);
        assert_eq!(
            count("use sockbroker_sys::address::RawAddress; fn f() { RawAddress::encode() }"),
            0
        );
        assert_eq!(count("use sockbroker_sys::message; fn f(m: message::ReceivedMessage) {}"), 0);
    }

    #[test]
    fn an_operation_takes_a_permit() {
        let count = |source: &str| count(TYPE, "daemon/src/ops/a.rs", source);
        assert_eq!(count("pub async fn f(permit: Permit<Bind>, entry: &Entry) {}"), 0);
        assert_eq!(count("pub fn f(entry: &Entry) {}"), 1);
        assert_eq!(count("pub(crate) fn f(entry: &Entry) {}"), 1);
        assert_eq!(count("use sockbroker_sys::{a::B, host};\npub fn f() { host::name() }"), 1);
        assert_eq!(count("pub fn f() { sockbroker_sys::host::name() }"), 1);
        assert_eq!(count("use sockbroker_sys::a::B;\npub fn f() { B::new() }"), 0);
        assert_eq!(count("pub(super) fn f(entry: &Entry) {} fn g(entry: &Entry) {}"), 0);
    }
}
