//! Who may know whom: the stages of a request, and what stands beside them.
//!
//! [`LAYERS`] is the whole of it, callers above what they call: a layer may refer only to layers that
//! stand further down. To change the architecture, change the table, and say why.

use std::collections::BTreeSet;

use crate::Fault;
use crate::paths::{Path, paths};
use crate::tokens::Token;
use crate::tree::{File, Tree};

/// A part of the workspace and what it may refer to.
#[derive(Debug)]
pub struct Layer {
    /// Its name in this table.
    pub name: &'static str,
    /// Its folder or file, from the root.
    pub place: &'static str,
    /// Layers, or modules of layers, that it may name.
    pub layers: &'static [&'static str],
    /// Crates of others that it may name.
    pub crates: &'static [&'static str],
    /// Paths of `std` and words that it must not have, however they are reached.
    pub never: &'static [&'static str],
}

/// Input and output, and what depends on the moment: not for pure code.
const EFFECTS: &[&str] = &[
    "async",
    "await",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    // Not std::os::fd: a judged file is a descriptor, which a permit carries to its operation as a value.
    "std::os::unix",
    "std::os::linux",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// The table.
pub const LAYERS: &[Layer] = &[
    Layer {
        name: "cli",
        place: "client/cli/src",
        // startup: the program can be the broker; sys: the place of the demonstration, and what the
        // kernel refuses there to a program that gave its capabilities up; config::policy, policy,
        // sys::accounts and sys::peer: what policy files say, of the caller itself too, is told without a broker.
        layers: &[
            "startup",
            "config::policy",
            "policy",
            "proto",
            "sys::accounts",
            "sys::capability",
            "sys::interface",
            "sys::namespace",
            "sys::peer",
            "sys::process",
            "sys::socket",
        ],
        crates: &[
            "clap",
            "clap_complete",
            "clap_mangen",
            "etherparse",
            "libc",
            "serde",
            "serde_json",
            "signal_hook",
            "sockbroker_client",
        ],
        never: &["async", "await"],
    },
    Layer {
        name: "startup",
        place: "daemon/src/startup",
        layers: &[
            "config",
            "observe",
            "transport",
            "session",
            "dispatch",
            "policy",
            "proto",
            "sys",
        ],
        crates: &[
            "clap",
            "landlock",
            "libc",
            "sd_notify",
            "seccompiler",
            "thiserror",
            "tokio",
            "tracing",
        ],
        never: &[],
    },
    Layer {
        name: "fuzzing",
        place: "daemon/src/fuzzing.rs",
        layers: &["transport", "session", "dispatch", "policy", "sys"],
        crates: &["tokio"],
        never: &[],
    },
    Layer {
        name: "config",
        place: "daemon/src/config",
        // observe::audit: where decisions are told; policy: made from its files; proto::api::broker: how clients are told of it;
        // sys::process: defaults depend on who the broker is;
        // sys::accounts, sys::interface: rules name users, groups and interfaces; sys::peer: and units, if
        // the kernel tells of them.
        layers: &[
            "session::limits",
            "observe::audit",
            "policy",
            "proto::api::broker",
            "sys::process",
            "sys::accounts",
            "sys::interface",
            "sys::peer",
        ],
        crates: &["serde", "thiserror", "toml"],
        never: &["async", "await"],
    },
    Layer {
        name: "transport",
        place: "daemon/src/transport",
        // table::quota: what its user may hold; sys: streams that carry descriptors, and who is at their
        // other end; proto::descriptors: matches descriptors to frames;
        // proto::api::document: what GET /openrpc.json answers; observe::refusals: connections
        // that are refused are logged at a rate.
        layers: &[
            "dispatch",
            "session",
            // The file of the control socket, which no call may lead to.
            "ops::unix_file",
            "observe::refusals",
            "policy::subject",
            "table::quota",
            "proto::descriptors",
            "proto::frame",
            "proto::api::document",
            "sys::peer",
            "sys::poll",
            "sys::process",
            "sys::socket",
            "sys::stream",
            "readiness",
        ],
        crates: &[
            "bytes",
            "futures_util",
            "http_body_util",
            "hyper",
            "hyper_util",
            "jsonrpsee",
            "libc",
            "serde_json",
            "soketto",
            "thiserror",
            "tokio",
            "tracing",
        ],
        never: &[],
    },
    Layer {
        name: "dispatch",
        place: "daemon/src/dispatch",
        layers: &["session", "observe", "ops", "table", "policy", "proto", "sys"],
        crates: &[
            "bytes",
            "futures_util",
            "jsonrpsee",
            "libc",
            "serde",
            "serde_json",
            "tokio",
            "tracing",
        ],
        never: &[],
    },
    Layer {
        name: "session",
        place: "daemon/src/session",
        // ops::error: a refusal by the session is told like an operation's; ops::actor: as whom the
        // calls of a connection are made; ops::resolve: the gate before the resolver is shared by all
        // sessions; ops::control_end: all connections share the address of the control socket.
        layers: &[
            "observe",
            "ops::actor",
            "ops::control_end",
            "ops::error",
            "ops::resolve",
            // The file of the control socket, which no call may lead to.
            "ops::unix_file",
            "table",
            "policy",
            "proto",
        ],
        crates: &["bytes", "getrandom", "serde", "tokio", "tracing"],
        never: &[],
    },
    Layer {
        name: "observe",
        place: "daemon/src/observe",
        // policy: decisions are counted by the name of their rule. sys::accounts: the journal names users.
        layers: &["policy::rights", "sys::accounts"],
        crates: &["serde_json", "tracing", "tracing_subscriber"],
        never: &["async", "await"],
    },
    Layer {
        name: "ops",
        place: "daemon/src/ops",
        layers: &["table", "policy", "proto", "sys", "readiness"],
        crates: &["bytes", "libc", "tokio"],
        never: &[],
    },
    Layer {
        name: "table",
        place: "daemon/src/table",
        // policy::action: what kind of socket an entry is, in the words the policy judges by.
        // policy::target: what is known of its ends.
        layers: &["policy::action", "policy::target", "proto", "sys", "readiness"],
        crates: &["libc", "tokio"],
        never: &[],
    },
    Layer {
        name: "policy",
        place: "daemon/src/policy",
        layers: &["proto"],
        // libc: numbers alone, since libc's functions need unsafe code.
        crates: &["ipnet", "libc", "serde", "thiserror", "toml"],
        never: EFFECTS,
    },
    Layer {
        name: "readiness",
        place: "daemon/src/readiness.rs",
        layers: &[],
        crates: &["tokio"],
        never: &[],
    },
    Layer {
        name: "sys",
        place: "daemon/sys/src",
        layers: &["proto"],
        crates: &["bytes", "libc", "nix", "socket2", "syscalls"],
        never: &["async", "await"],
    },
    Layer {
        name: "proto",
        place: "proto/src",
        layers: &[],
        crates: &[
            "base64_simd",
            "bytes",
            "itoa",
            "jsonrpsee",
            "schemars",
            "serde",
            "serde_json",
            "sockbroker_proto_macros",
            "thiserror",
        ],
        // The traits have async methods, but nothing here waits.
        never: &[
            "await",
            "std::fs",
            "std::env",
            "std::process",
            "std::thread",
            "std::os",
            "std::time",
        ],
    },
];

/// Files that only tie the others together, and belong to no layer.
const ROOTS: &[&str] = &["daemon/src/lib.rs", "daemon/src/main.rs"];
/// The folders that the table covers.
const COVERED: &[&str] = &["client/cli/src", "daemon/src", "daemon/sys/src", "proto/src"];

/// Holds every layer to the table, and the table to the tree.
pub fn check(tree: &Tree) -> Vec<Fault> {
    let known = dependencies(tree);
    let mut faults = Vec::new();
    for layer in LAYERS {
        if !tree.has(layer.place) {
            faults.push(format!(
                "{}: there is no such place: correct LAYERS in tests/tidy",
                layer.place
            ));
        }
    }
    for file in tree.rust().filter(|file| COVERED.iter().any(|place| is_in(&file.path, place))) {
        match LAYERS.iter().find(|layer| is_in(&file.path, layer.place)) {
            Some(layer) => check_file(file, layer, &known, &mut faults),
            None if ROOTS.contains(&file.path.as_str()) => {}
            None => faults.push(format!(
                "{}: belongs to no layer: say in LAYERS in tests/tidy what it may know",
                file.path
            )),
        }
        check_error_objects(file, &mut faults);
    }
    faults.dedup();
    faults
}

fn check_file(file: &File, layer: &Layer, known: &BTreeSet<String>, faults: &mut Vec<Fault>) {
    let tokens = file.shipped();
    let mut fault = |line: usize, what: String| {
        let todo = "move it to a layer that may, or pass a value in (LAYERS in tests/tidy)";
        faults.push(format!("{}:{line}: {} must not {what}: {todo}", file.path, layer.name));
    };
    for path in paths(&tokens) {
        let Some(meant) = resolve(&path, &file.path, known) else { continue };
        if let Some(never) = layer.never.iter().find(|never| starts(&meant, never)) {
            fault(path.line, format!("use {never}"));
        }
        let first = meant.first().copied().unwrap_or_default();
        if known.contains(first) {
            if !layer.crates.contains(&first) {
                fault(path.line, format!("know the crate {first}"));
            }
        } else if !STANDARD.contains(&first)
            && first != layer.name
            && !layer.layers.iter().any(|allowed| starts(&meant, allowed))
        {
            fault(path.line, format!("refer to {}", meant.join("::")));
        }
    }
    for word in tokens.iter().filter(|word| layer.never.contains(&word.text)) {
        fault(word.line, format!("use {}", word.text));
    }
}

const STANDARD: [&str; 3] = ["std", "core", "alloc"];

/// Only `dispatch` knows error objects, and only one file of it makes them.
fn check_error_objects(file: &File, faults: &mut Vec<Fault>) {
    let tokens = file.shipped();
    let is_object = |token: &Token<'_>| token.text.starts_with("ErrorObject");
    if !is_in(&file.path, "daemon/src/dispatch") {
        for token in tokens.iter().filter(|token| is_object(token)) {
            faults.push(format!(
                "{}:{}: names {}: fail with an error of this layer, dispatch makes the error object",
                file.path, token.line, token.text
            ));
        }
    } else if file.path != "daemon/src/dispatch/error.rs" {
        for pair in tokens.windows(2) {
            if let [object, next] = pair
                && is_object(object)
                && ["::", "{"].contains(&next.text)
                && !is_return_type(&tokens, object)
            {
                faults.push(format!(
                    "{}:{}: makes an error object: let dispatch/error.rs make it",
                    file.path, object.line
                ));
            }
        }
    }
}

/// `-> ErrorObjectOwned {` opens a function, not an object.
fn is_return_type(tokens: &[Token<'_>], object: &Token<'_>) -> bool {
    let at = tokens.iter().position(|token| std::ptr::eq(token, object));
    let before = at.and_then(|at| tokens.get(at.checked_sub(1)?));
    before.is_some_and(|token| token.text == "->")
}

/// Whether a path is that place or within it.
fn is_in(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path begins with the words of `prefix`.
fn starts(meant: &[&str], prefix: &str) -> bool {
    let mut words = meant.iter();
    prefix.split("::").all(|word| words.next() == Some(&word))
}

/// The full path behind a path: a layer's name, a crate or `std` first. `None` for local names.
fn resolve<'a>(path: &Path<'a>, file: &'a str, known: &BTreeSet<String>) -> Option<Vec<&'a str>> {
    let (crate_words, module) = module_of(file);
    let mut words = path.words.iter().copied().peekable();
    let first = words.next()?;
    let mut meant = match first {
        "crate" => crate_words,
        "self" => module,
        "super" => {
            let mut module = module;
            module.pop();
            while words.next_if(|word| *word == "super").is_some() {
                module.pop();
            }
            module
        }
        "sockbroker_proto" => vec!["proto"],
        "sockbroker_sys" => vec!["sys"],
        "sockbrokerd" => Vec::new(),
        other if known.contains(other) || STANDARD.contains(&other) => vec![other],
        _ => return None,
    };
    meant.extend(words);
    if meant.is_empty() { None } else { Some(meant) }
}

/// The words that `crate` stands for in a file, and those of the file's own module.
fn module_of(file: &str) -> (Vec<&str>, Vec<&str>) {
    let (root, rest) = match file.split_once("/src/") {
        Some(("proto", rest)) => (vec!["proto"], rest),
        Some(("daemon/sys", rest)) => (vec!["sys"], rest),
        Some(("client/cli", rest)) => (vec!["cli"], rest),
        Some((_, rest)) => (Vec::new(), rest),
        None => (Vec::new(), file),
    };
    let rest = rest.strip_suffix(".rs").unwrap_or(rest);
    let rest = rest.strip_suffix("/mod").unwrap_or(rest);
    let names = rest.split('/').filter(|name| !["lib", "main"].contains(name));
    let module = root.iter().copied().chain(names).collect();
    (root, module)
}

/// The crates of others that some crate of ours depends on, as they are spelt in code.
fn dependencies(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let mut listed = false;
        for line in file.text.lines() {
            if line.starts_with('[') {
                listed = line.ends_with("dependencies]");
            } else if let Some((name, _)) = line.split_once(['=', '.']).filter(|_| listed) {
                names.insert(name.trim().replace('-', "_"));
            }
        }
    }
    names.retain(|name| {
        !["sockbroker_proto", "sockbroker_sys", "sockbrokerd"].contains(&name.as_str())
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: (&str, &str) = (
        "Cargo.toml",
        "[workspace.dependencies]\nserde_json = { version = \"1\" }\ntokio = \"1\"\nfutures-util = \"1\"\n",
    );

    fn faults(path: &str, source: &str) -> Vec<Fault> {
        let tree = Tree::of(&[MANIFEST, (path, source)]);
        let faults = check(&tree);
        faults.into_iter().filter(|fault| !fault.contains("no such place")).collect()
    }

    fn is_refused(path: &str, source: &str, part: &str) {
        let faults = faults(path, source);
        assert!(faults.len() == 1 && faults[0].contains(part), "{source}: {faults:?}");
    }

    #[test]
    fn nothing_refers_upwards() {
        is_refused("daemon/src/ops/a.rs", "use crate::session::Session;", "refer to session");
        is_refused("daemon/src/ops/a.rs", "fn f() { super::super::dispatch::g() }", "dispatch::g");
        is_refused("daemon/src/table/mod.rs", "use crate::{ops::error::OpError};", "refer to ops");
        is_refused("daemon/src/policy/mod.rs", "use sockbroker_sys::socket;", "refer to sys");
        is_refused("daemon/sys/src/a.rs", "use tokio::net;", "know the crate tokio");
        is_refused("proto/src/a.rs", "use futures_util::Stream;", "know the crate futures_util");
        is_refused("daemon/src/session/a.rs", "use crate::ops::send::send;", "refer to ops::send");
        assert_eq!(faults("daemon/src/session/a.rs", "use crate::ops::error::OpError;"), [""; 0]);
        assert_eq!(faults("daemon/src/ops/a.rs", "use super::error::E; use std::io;"), [""; 0]);
    }

    #[test]
    fn the_policy_is_pure() {
        is_refused("daemon/src/policy/a.rs", "async fn f() {}", "use async");
        is_refused("daemon/src/policy/a.rs", "use std::{fs, io::Error};", "use std::fs");
        is_refused("daemon/src/policy/a.rs", "use std::net::{IpAddr, UdpSocket};", "UdpSocket");
    }

    #[test]
    fn tests_may_know_more() {
        let source = "#[cfg(test)] mod tests { use crate::session::Session; use tokio::test; }";
        assert_eq!(faults("daemon/src/policy/a.rs", source), [""; 0]);
    }

    #[test]
    fn only_one_file_makes_error_objects() {
        is_refused("daemon/src/session/a.rs", "fn f(x: ErrorObject) {}", "names ErrorObject");
        is_refused("daemon/src/dispatch/a.rs", "fn f() { ErrorObjectOwned::owned(1) }", "makes");
        assert_eq!(
            faults("daemon/src/dispatch/a.rs", "fn f() -> ErrorObjectOwned { g() }"),
            [""; 0]
        );
        assert_eq!(
            faults("daemon/src/dispatch/error.rs", "fn f() { ErrorObject::owned(1) }"),
            [""; 0]
        );
    }

    #[test]
    fn a_source_without_a_layer_is_told() {
        is_refused("daemon/src/new/mod.rs", "", "belongs to no layer");
    }

    #[test]
    fn the_table_itself_leads_downwards() {
        for (place, layer) in LAYERS.iter().enumerate() {
            for allowed in layer.layers {
                let name = allowed.split("::").next().unwrap();
                let below = LAYERS[place + 1..].iter().any(|layer| layer.name == name);
                assert!(below, "{name} does not stand below {}", layer.name);
            }
        }
    }

    #[test]
    fn the_rpc_library_is_known_at_the_edge_only() {
        let knows = |layer: &&Layer| layer.crates.contains(&"jsonrpsee");
        let names: Vec<_> = LAYERS.iter().filter(knows).map(|layer| layer.name).collect();
        assert_eq!(names, ["transport", "dispatch", "proto"]);
    }
}
