//! Permission is a value: one file makes a `Permit`, every operation takes one.

use std::collections::BTreeSet;

use crate::source::idents;
use crate::tree::{Fault, File, Tree};

/// Types, and the one file of the daemon that builds their values.
const MAKERS: &[(&str, &str)] = &[(PERMIT, "daemon/policy/src/judgement/permit.rs")];

/// The proof that the policy allows a request.
const PERMIT: &str = "Permit";
/// What gives an operation the kernel: the proof, alone or joined with its socket, or a socket that came from
/// such a proof.
const PROOFS: [&str; 3] = [PERMIT, "Permitted", "Socket"];
/// Where operations are.
const OPERATIONS: [&str; 2] = ["daemon/src/ops/", "daemon/src/network/"];
/// Where requests are decoded: what is done there has no permit yet.
const HANDLERS: &str = "daemon/src/handlers/";
/// The crate of system calls.
const KERNEL: &str = "sockbroker_sys";

/// Public operations, or files of them, that call the kernel without a permit, and why.
const WITHOUT_PERMIT: &[(&str, &str)] = &[
    ("unix_file", "finds the files of paths before the policy is asked"),
    ("control_end", "identifies the broker's own socket before the policy is asked"),
    ("open::examine", "identifies a client's descriptor before the policy is asked about it"),
    ("open::borrow", "reads what a client's descriptor is; each call on it has a permit"),
    ("captures/capture::read", "reads the stream of a capture that a permit opened"),
    ("channel::pair", "makes the client's end of a channel"),
    ("channel::try_read", "reads what the client sends on a channel"),
    ("channel::end_output", "ends what the client reads of a channel"),
    ("channel::end_input", "ends what the client writes to a channel"),
    ("channel::is_hung_up", "finds whether the client has closed its end of a channel"),
    (
        "other_namespace::of_passed",
        "finds the namespace of a client's descriptor before the policy is asked about it",
    ),
    ("known::note", "reads the namespace of a socket for which there was a permit"),
    (
        "other_namespace::examine",
        "identifies the network namespace that a client passes before the policy is asked",
    ),
    ("opener::clients_network", "finds the namespace of a client before the policy is asked"),
    ("caller_identity", "makes a permitted call with the identity of the caller"),
];

/// Functions of the kernel's crate that only compute: handlers may use them.
const COMPUTES: &str =
    "control::cmsg_len control::cmsg_space control::carries_pointer_or_descriptor
                        resolver::gai_message resolver::host_message";

/// Holds the tree to all of it.
pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = check_operations(tree);
    for file in tree.rust().filter(|file| !file.test && file.is_in("daemon")) {
        let shipped = |line: usize| !file.source.is_test(line);
        for (name, line) in made(file).into_iter().filter(|(_, line)| shipped(*line)) {
            let maker = MAKERS.iter().find(|(made, maker)| *made == name && *maker != file.path);
            if let Some((_, maker)) = maker {
                faults.push(format!("{}:{line}: makes a {name}: only {maker} may", file.path));
            }
        }
        let calls = kernel_paths(file).into_iter().filter(|(line, words)| {
            // A function of a type, such as RawAddress::encode, is of a value.
            words.len() > 1 && shipped(*line) && !words.iter().any(|word| !is_lower(word))
        });
        for (line, words) in calls.filter(|_| file.path.starts_with(HANDLERS)) {
            let name = words.join("::");
            if !COMPUTES.split_whitespace().any(|known| known == name) {
                faults.push(format!(
                    "{}:{line}: calls {KERNEL}::{name}: make it an operation that takes a permit, or \
                     list it in COMPUTES in tests/tidy if it computes only",
                    file.path
                ));
            }
        }
    }
    faults.extend(MAKERS.iter().filter_map(|(name, path)| match tree.file(path) {
        None => Some(format!("MAKERS in tests/tidy: {path} does not exist: correct it")),
        Some(file) if *name == PERMIT && !is_sound(file) => Some(format!(
            "{path}: {PERMIT} must have private fields and derive neither Clone, Copy, Default nor \
             Deserialize: only a verdict makes one, and it is used once"
        )),
        Some(_) => None,
    }));
    faults
}

/// Types whose values a file builds, takes apart or gets from an associated function.
fn made(file: &File) -> Vec<(&str, usize)> {
    let literals = file.source.literals.iter().map(|(name, line)| (name.as_str(), *line));
    let calls = file.source.paths.iter().filter_map(|(words, line)| match words.as_slice() {
        [.., name, function] if is_lower(function) => Some((name.as_str(), *line)),
        _ => None,
    });
    literals.chain(calls).collect()
}

fn is_lower(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether a file declares a permit that no one can copy, change or make from nothing.
fn is_sound(file: &File) -> bool {
    let items = syn::parse_file(&file.text).map(|file| file.items).unwrap_or_default();
    items.iter().any(|item| {
        let syn::Item::Struct(item) = item else { return false };
        let lists = item.attrs.iter().filter_map(|attribute| attribute.meta.require_list().ok());
        let mut derived = lists.flat_map(|list| idents(list.tokens.clone()));
        let copies = |name: String| ["Clone", "Copy", "Default", "Deserialize"].contains(&&*name);
        let private = |field: &syn::Field| matches!(field.vis, syn::Visibility::Inherited);
        item.ident == PERMIT && item.fields.iter().all(private) && !derived.any(copies)
    })
}

/// Paths into the kernel's crate, directly or through an imported module of it.
fn kernel_paths(file: &File) -> Vec<(usize, &[String])> {
    let within = file
        .source
        .paths
        .iter()
        .filter(|(words, _)| words.first().is_some_and(|word| word == KERNEL));
    let modules: BTreeSet<&String> =
        within.filter_map(|(words, _)| words.last()).filter(|name| is_lower(name)).collect();
    let behind = |words: &'_ [String]| match words {
        [first, ..] if first == KERNEL => Some(1),
        [first, ..] if modules.contains(first) => Some(0),
        _ => None,
    };
    let paths = file.source.paths.iter();
    paths.filter_map(|(words, line)| Some((*line, words.get(behind(words)?..)?))).collect()
}

fn check_operations(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut excused = BTreeSet::new();
    let folder = |path: &str| OPERATIONS.iter().find(|folder| path.starts_with(**folder)).copied();
    for file in tree.rust().filter(|file| !file.test) {
        let Some(folder) = folder(&file.path) else { continue };
        let kernel = kernel_paths(file);
        let module = file.path.trim_start_matches(folder).trim_end_matches(".rs");
        for function in file.source.functions.iter().filter(|function| function.public) {
            let takes = |name: &str| function.parameters.iter().any(|word| word == name);
            let calls_kernel = kernel.iter().any(|(line, _)| function.lines.contains(line));
            let (name, line) = (format!("{module}::{}", function.name), *function.lines.start());
            if file.source.is_test(line) || PROOFS.iter().any(|proof| takes(proof)) || !calls_kernel
            {
                continue;
            }
            match WITHOUT_PERMIT.iter().find(|(listed, _)| *listed == name || *listed == module) {
                Some((listed, _)) => drop(excused.insert(*listed)),
                None => faults.push(format!(
                    "{}:{line}: {name} calls the kernel without a {PERMIT}: take one, or \
                     make it pub(super), or give a reason in WITHOUT_PERMIT in tests/tidy",
                    file.path
                )),
            }
        }
    }
    let stale = WITHOUT_PERMIT.iter().filter(|(name, _)| !excused.contains(name));
    faults.extend(
        stale.map(|(name, _)| {
            format!("WITHOUT_PERMIT in tests/tidy: stale exception: remove {name}")
        }),
    );
    faults
}

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
        let policy = |source: &str| count(source, "daemon/src/ops/a.rs", "");
        assert_eq!(policy(&format!("{TYPE} fn ask() {{ Permit {{ request }} }}")), 0);
        assert_eq!(policy("struct Permit<R> { pub request: R }"), 1);
        assert_eq!(policy("#[derive(Debug, Clone)] struct Permit<R> { request: R }"), 1);
        let operation = |source: &str| count(TYPE, "daemon/src/ops/a.rs", source);
        assert_eq!(operation("fn f() { Permit { request } }"), 1);
        assert_eq!(operation("fn f() { let Permit { request } = permit; }"), 1);
        assert_eq!(operation("fn f() -> Permit<R> { g() }"), 0);
    }

    #[test]
    fn handlers_do_not_call_the_kernel() {
        let count = |source: &str| count(TYPE, "daemon/src/handlers/a.rs", source);
        assert_eq!(count("use sockbroker_sys::socket; fn f() { socket::bind() }"), 1);
        assert_eq!(count("fn f() { sockbroker_sys::socket::bind() }"), 1);
        assert_eq!(count("use sockbroker_sys::socket::bind; fn f() { bind() }"), 1);
        assert_eq!(count("use sockbroker_sys::control; fn f() { control::cmsg_len(1) }"), 0);
        assert_eq!(
            count("use sockbroker_sys::address::RawAddress; fn f() { RawAddress::encode() }"),
            0
        );
        assert_eq!(count("use sockbroker_sys::message; fn f(m: message::Received) {}"), 0);
    }

    #[test]
    fn an_operation_takes_a_permit() {
        let count = |source: &str| count(TYPE, "daemon/src/ops/a.rs", source);
        let calls = |parameters: &str| {
            count(&format!("pub fn f({parameters}) {{ sockbroker_sys::host::name() }}"))
        };
        assert_eq!(calls("permitted: &Permitted<Bind>"), 0);
        assert_eq!(calls("permit: Permit<Create>"), 0);
        assert_eq!(calls("socket: &Socket"), 0);
        assert_eq!(calls("name: &str"), 1);
        assert_eq!(count("use sockbroker_sys::{a::B, host};\npub fn f() { host::name() }"), 1);
        assert_eq!(count("pub fn f() { sockbroker_sys::host::name() }"), 1);
        assert_eq!(count("use sockbroker_sys::a::B;\npub fn f() { B::new() }"), 0);
        assert_eq!(count("pub(super) fn f() { sockbroker_sys::host::name() }"), 0);
    }
}
