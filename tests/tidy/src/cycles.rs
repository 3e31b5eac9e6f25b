//! No file refers to itself through others: Rust files of a crate, and Python files.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Graph;
use crate::tree::{Fault, Tree};

/// Cycles that are not opened yet: a folder, and the files in it.
const KNOWN_CYCLES: &[(&str, &str)] = &[];

/// Which files each file refers to, and by which names.
type Edges<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>>;

/// Reports each cycle with the names that close it, and each known cycle that is gone.
pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    faults(tree, KNOWN_CYCLES)
}

fn faults(tree: &Tree, known: &[(&str, &str)]) -> Vec<Fault> {
    let rust = Graph::of(tree).edges(tree);
    let mut edges = Edges::new();
    for (from, to, name) in rust.iter().chain(&tree.python) {
        edges.entry(from).or_default().entry(to).or_default().insert(name);
    }
    let is = |(folder, files): &(&str, &str), cycle: &[&str]| {
        let (own, names) = entry(cycle);
        own == *folder && names == *files
    };
    let cycles = cycles(&edges);
    let new = cycles.iter().filter(|cycle| !known.iter().any(|entry| is(entry, cycle)));
    let gone = known.iter().filter(|entry| !cycles.iter().any(|cycle| is(entry, cycle)));
    let gone =
        gone.map(|entry| format!("KNOWN_CYCLES in tests/tidy: stale entry: remove {entry:?}"));
    new.map(|cycle| described(cycle, &edges)).chain(gone).collect()
}

/// A cycle as [`KNOWN_CYCLES`] has it.
fn entry(cycle: &[&str]) -> (String, String) {
    let first = cycle.first().copied().unwrap_or_default();
    let mut folders = first.rmatch_indices('/').filter_map(|(end, _)| first.get(..=end));
    let common = folders.find(|folder| cycle.iter().all(|file| file.starts_with(folder)));
    let common = common.unwrap_or_default();
    let names: Vec<_> = cycle.iter().filter_map(|file| file.strip_prefix(common)).collect();
    (common.to_owned(), names.join(" "))
}

/// Sets of files that reach each other.
fn cycles<'a>(edges: &Edges<'a>) -> Vec<Vec<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|from| (*from, reachable(from, edges))).collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|files| files.contains(to));
    let on_cycle = edges.keys().filter(|file| reaches(file, file));
    let cycle = |file: &&'a str| {
        edges.keys().filter(|other| reaches(file, other) && reaches(other, file)).copied().collect()
    };
    on_cycle.map(cycle).collect::<BTreeSet<_>>().into_iter().collect()
}

fn reachable<'a>(from: &'a str, edges: &Edges<'a>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        let next = edges.get(file).into_iter().flat_map(BTreeMap::keys).copied();
        open.extend(next.filter(|to| found.insert(*to)));
    }
    found
}

fn described(cycle: &[&str], edges: &Edges<'_>) -> Fault {
    let mut lines = vec![
        "a cycle: move what one file needs of the other into a file below both".to_owned(),
        format!("as an entry of KNOWN_CYCLES: {:?},", entry(cycle)),
    ];
    for from in cycle {
        let within = edges.get(from).into_iter().flatten().filter(|(to, _)| cycle.contains(to));
        lines.extend(within.map(|(to, names)| {
            format!("{from} -> {to}: {}", names.iter().copied().collect::<Vec<_>>().join(", "))
        }));
    }
    lines.join("\n    ")
}

mod tests {
    use super::*;

    fn count(files: &[(&str, &str)]) -> usize {
        faults(&Tree::of(files), &[]).len()
    }

    #[test]
    fn a_parent_that_exports_a_child_which_uses_it_is_a_cycle() {
        let child = ("a/src/b/c.rs", "use super::Y;");
        let root = ("a/src/lib.rs", "mod b;");
        assert_eq!(count(&[root, ("a/src/b.rs", "mod c; pub use c::X; struct Y;"), child]), 1);
        assert_eq!(count(&[root, ("a/src/b.rs", "mod c; struct Y; fn f() { c::g() }"), child]), 1);
        assert_eq!(count(&[root, ("a/src/b.rs", "mod c; struct Y;"), child]), 0);
    }

    #[test]
    fn siblings_are_followed_through_each_kind_of_path() {
        let root = ("a/src/lib.rs", "mod b; mod c;");
        for path in [
            "use crate::c::{X, Z};",
            "use super::c::*;",
            "fn f() { m!(crate::c::X) }",
            "mod d { use super::super::c; }",
        ] {
            assert_eq!(
                count(&[root, ("a/src/b.rs", path), ("a/src/c.rs", "fn f(x: crate::b::Y) {}")]),
                1,
                "{path}"
            );
        }
        let test = "#[cfg(test)] mod tests { use crate::b::Y; }";
        assert_eq!(count(&[root, ("a/src/b.rs", "use crate::c;"), ("a/src/c.rs", test)]), 0);
    }

    #[test]
    fn python_cycles_are_found_within_functions_but_not_for_type_checkers() {
        let package = ("client/python/src/p/__init__.py", "");
        let b = ("client/python/src/p/b.py", "import socket\nfrom p.c import x\n");
        let count = |c: &str| {
            count(&[
                package,
                b,
                ("client/python/src/p/socket.py", ""),
                ("client/python/src/p/c.py", c),
            ])
        };
        assert_eq!(count("def f():\n    from . import b\n"), 1);
        assert_eq!(count("import importlib\nimportlib.import_module('p.b')\n"), 1);
        assert_eq!(
            count("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import y\n"),
            0
        );
    }

    #[test]
    fn a_known_cycle_must_exist() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "mod b; use b::x; struct Y;"),
            ("a/src/b.rs", "use super::Y;"),
        ]);
        assert_eq!(faults(&tree, &[("a/src/", "b.rs lib.rs")]), [""; 0]);
        assert_eq!(faults(&tree, &[("a/src/", "b.rs lib.rs"), ("a/src/", "c.rs")]).len(), 1);
    }
}
