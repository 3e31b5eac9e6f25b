//! The order of the modules of each crate, and which places know which crates and effects.

use crate::graph::Graph;
use crate::text::{Fragment, Kind};
use crate::tree::{Fault, File, Tree};

/// Crates by their roots, and their modules from top to bottom. A module refers only to itself and to
/// modules below it. The root declares them in this order.
const ORDER: &[(&str, &str)] = &[
    (
        "daemon/src/lib.rs",
        "startup fuzzing transport handlers rpc session ops network table descriptor quota config observe
         principal error",
    ),
    (
        "daemon/monitor/src/lib.rs",
        "monitor opener caller reader reaper role request capture socket_facts subject message claim account
         user_names channel",
    ),
    (
        "daemon/gateway/src/lib.rs",
        "serve connection worker_end establish live known refusal head authority tokens names settings",
    ),
    (
        "daemon/sys/src/lib.rs",
        "lot position record service_manager stream interface packet journal ring mapping ioctl filter unix_file message namespace socket credentials control
         option databases resolver identity child prompt_close events timer clock sealed peer poll process file capability
         privileges refused activation accounts host address call testing",
    ),
    (
        "proto/src/lib.rs",
        "api method openrpc frame descriptors channel ancillary address socket_spec error errno handle bytes
         constant",
    ),
    ("proto/bpf/src/lib.rs", "vlan assembler check run program opcode"),
    ("client/filter/src/lib.rs", "compiler any_link tcpdump library error link_layer"),
    ("proto/pcapng/src/lib.rs", "reader pcap writer packet link_type number"),
];

/// Crates that not every place may name, and the places that may.
const KNOWN_BY: &[(&str, &str)] = &[
    // JSON-RPC ends at the edge.
    ("jsonrpsee", "proto/src/api proto/macros"),
    ("jsonrpsee_types", "daemon/src/rpc"),
    (
        "serde_json",
        "daemon/src/handlers daemon/src/rpc daemon/src/observe daemon/src/session/record.rs
         daemon/src/session/restriction.rs daemon/src/transport daemon/gateway/src/refusal.rs proto/src client",
    ),
    ("hyper", "daemon/src/transport"),
    ("soketto", "daemon/src/transport"),
    // TLS ends at the edge too.
    ("rustls", "daemon/gateway/src client/rust client/cli"),
    ("tokio_rustls", "daemon/gateway/src"),
    // The event loop and the kernel: not for configuration and judgement.
    (
        "tokio",
        "daemon/src/startup daemon/src/fuzzing.rs daemon/src/transport daemon/src/handlers client/rust
         daemon/src/session daemon/src/ops daemon/src/network daemon/src/table daemon/src/descriptor.rs
         daemon/src/quota daemon/gateway/src",
    ),
    (
        "sockbroker_sys",
        "daemon/src/startup daemon/src/fuzzing.rs daemon/src/config daemon/src/transport client/cli client/launcher
         daemon/src/handlers daemon/src/observe daemon/src/ops daemon/src/network daemon/src/table
         daemon/src/descriptor.rs daemon/src/session/record.rs daemon/src/session/socket_record.rs
         daemon/src/session/lots.rs
         daemon/src/error.rs daemon/src/rpc/error.rs
         daemon/monitor daemon/gateway/src",
    ),
    ("domain", "daemon/src/network/stub.rs"),
    ("toml", "daemon/src/config daemon/policy/src/language daemon/gateway/src/tokens.rs"),
    ("clap", "daemon/src/startup daemon/src/main.rs client/cli"),
];

/// Places that are pure, and the paths and words that they never use.
const PURE: &[(&str, &str)] = &[
    (
        "daemon/policy/src",
        "async await std::fs std::env std::process std::thread std::os::unix std::os::linux
         std::net::TcpStream std::net::TcpListener std::net::UdpSocket std::net::ToSocketAddrs
         std::time::Instant std::time::SystemTime",
    ),
    // The traits have async methods, but nothing here waits.
    ("proto/src", "await std::fs std::env std::process std::thread std::os std::time"),
    (
        "proto/pcapng/src",
        "async await std::fs std::env std::net std::process std::thread std::os std::time",
    ),
    (
        "proto/bpf/src",
        "async await std::fs std::env std::io std::net std::process std::thread std::os std::time",
    ),
    ("daemon/sys/src", "async await"),
];

/// Holds every file to the tables, and the tables to the tree.
pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let graph = Graph::of(tree);
    let stray = |path| format!("{path}: belongs to no crate: declare it as a module");
    let mut faults: Vec<Fault> = graph.strays().map(stray).collect();
    for (root, order) in ORDER {
        let declared = tree.file(root).into_iter().flat_map(|file| &file.source.modules);
        if !declared.map(|(module, _)| module.join("::")).eq(order.split_whitespace()) {
            faults.push(format!(
                "{root}: declare the modules as ORDER in tests/tidy has them: {order}"
            ));
        }
    }
    let known = KNOWN_BY.iter().flat_map(|(_, places)| places.split_whitespace());
    for place in known.chain(PURE.iter().map(|(place, _)| *place)).filter(|place| !tree.has(place))
    {
        faults.push(format!(
            "{place}: does not exist: correct the tables of tests/tidy/src/stages.rs"
        ));
    }
    for file in tree.rust().filter(|file| !file.test) {
        check_paths(file, &graph, &mut faults);
        let shipped = |word: &&Fragment| !file.source.is_test(word.line);
        for word in file.fragments.iter().filter(shipped).filter(|word| word.kind == Kind::Name) {
            if impure(file).any(|never| *never == word.text) {
                faults.push(format!(
                    "{}:{}: {} is not for a pure place",
                    file.path, word.line, word.text
                ));
            }
        }
    }
    faults.sort();
    faults.dedup();
    faults
}

fn check_paths(file: &File, graph: &Graph<'_>, faults: &mut Vec<Fault>) {
    let Some((own, module)) = graph.place(&file.path) else { return };
    let order = ORDER.iter().find(|(root, _)| *root == own.root).map_or("", |(_, order)| order);
    let rank = |path: &[String]| {
        order.split_whitespace().position(|name| path.first().is_some_and(|word| word == name))
    };
    for (words, line) in file.source.paths.iter().filter(|(_, line)| !file.source.is_test(*line)) {
        let name = words.join("::");
        let mut fault = |what: &str| faults.push(format!("{}:{line}: {name} {what}", file.path));
        if let Some((home, _, path)) = graph.meaning(file, words, *line)
            && home.root == own.root
        {
            if rank(module).zip(rank(&path)).is_some_and(|(own, other)| other < own) {
                fault(&format!("is above {}: move it down, or pass a value in", module.join("::")));
            }
        } else if let Some((_, places)) = KNOWN_BY.iter().find(|(known, _)| starts(words, known))
            && !places.split_whitespace().any(|place| file.is_in(place))
        {
            fault(&format!("is for {places} alone"));
        } else if impure(file).any(|never| starts(words, never)) {
            fault("is not for a pure place: pass a value in");
        }
    }
}

/// What a file never uses.
fn impure(file: &File) -> impl Iterator<Item = &'static str> {
    PURE.iter()
        .filter(|(place, _)| file.is_in(place))
        .flat_map(|(_, never)| never.split_whitespace())
}

/// Whether a path begins with the words of `prefix`.
fn starts(words: &[String], prefix: &str) -> bool {
    let mut words = words.iter();
    prefix.split("::").all(|part| words.next().is_some_and(|word| word == part))
}

mod tests {
    use super::*;

    /// Faults of one file of the daemon, whose modules are those of the table.
    fn faults(path: &str, source: &str) -> Vec<Fault> {
        let (root, order) = ORDER[0];
        let names: Vec<_> = order.split_whitespace().collect();
        let declarations = format!("mod {};", names.join("; mod "));
        let modules = names.iter().map(|name| format!("daemon/src/{name}/mod.rs"));
        let modules: Vec<_> = modules.collect();
        let mut files: Vec<_> = modules.iter().map(|path| (path.as_str(), "mod a;")).collect();
        files.extend([(root, declarations.as_str()), (path, source)]);
        let faults = check(&Tree::of(&files));
        faults.into_iter().filter(|fault| fault.starts_with(path)).collect()
    }

    fn is_refused(path: &str, source: &str, part: &str) {
        let mut faults = faults(path, source);
        if path.starts_with("daemon/policy") {
            // It is another crate, which these trees do not declare.
            faults.retain(|fault| !fault.contains("belongs to no crate"));
        }
        assert!(faults.len() == 1 && faults[0].contains(part), "{source}: {faults:?}");
    }

    #[test]
    fn nothing_refers_upwards() {
        let above = "is above ops";
        is_refused("daemon/src/ops/a.rs", "use crate::session::Session;", above);
        is_refused("daemon/src/ops/a.rs", "fn f() { super::super::handlers::g() }", above);
        is_refused("daemon/src/ops/a.rs", "fn f() { m!(g(crate::handlers::h)) }", above);
        is_refused("daemon/src/ops/a.rs", "use crate::{table::T, session::{self}};", above);
        is_refused("daemon/src/ops/a.rs", "mod b { use super::super::super::session::*; }", above);
        assert_eq!(
            faults("daemon/src/ops/a.rs", "use crate::table::T; use super::b::C; use std::io;"),
            [""; 0]
        );
        assert_eq!(
            faults("daemon/src/ops/a.rs", "#[cfg(test)] mod tests { use crate::session::S; }"),
            [""; 0]
        );
    }

    #[test]
    fn crates_and_effects_are_known_where_the_tables_say() {
        is_refused("daemon/policy/src/a.rs", "use sockbroker_sys::socket;", "is for");
        is_refused("daemon/src/config/a.rs", "fn f() { tokio::spawn(g) }", "is for");
        is_refused(
            "daemon/src/session/a.rs",
            "fn f(x: jsonrpsee::types::ErrorObject) {}",
            "is for",
        );
        is_refused("daemon/policy/src/a.rs", "async fn f() {}", "pure");
        is_refused("daemon/policy/src/a.rs", "use std::{fs, io::Error};", "pure");
        is_refused("daemon/policy/src/a.rs", "use std::net::{IpAddr, UdpSocket};", "pure");
        assert_eq!(
            faults("daemon/src/config/a.rs", "#[cfg(test)] mod tests { use tokio::test; }"),
            [""; 0]
        );
    }

    #[test]
    fn every_file_belongs_to_a_crate() {
        is_refused("daemon/src/ops/b.rs", "", "belongs to no crate");
        assert_eq!(faults("daemon/tests/b.rs", ""), [""; 0]);
    }

    #[test]
    fn the_root_declares_what_the_table_has() {
        let declares = |source| check(&Tree::of(&[(ORDER[0].0, source)]));
        assert!(
            declares("mod fuzzing; mod startup;").iter().any(|fault| fault.starts_with(ORDER[0].0))
        );
    }
}
