//! Rust sources: their size, their first line, and the lints that no attribute lifts.

use crate::tree::{Fault, Tree};

/// Lines of a file without its tests: more only with a reason, listed in [`LONG`].
const SOFT_LIMIT: usize = 480;
/// Lines of any file.
const HARD_LIMIT: usize = 700;

/// Files over the soft limit, and why they are not divided.
const LONG: &[(&str, &str)] = &[
    ("proto/src/constant/table.rs", "one table"),
    ("proto/src/address/read.rs", "one function a family, all of CPython's getsockaddrarg"),
];

/// Lints that shipped code never lifts, but for these files. `unsafe_code` holds in tests as well.
const NEVER_LIFTED: &[(&str, &str)] = &[
    ("unsafe_code", "daemon/sys/src/lib.rs client/filter/src/lib.rs"),
    ("undocumented_unsafe_blocks", ""),
    ("unwrap_used", ""),
];

/// Packages without the lints of the workspace.
const OTHER_LINTS: &str = "tests/fuzz/Cargo.toml"; // a workspace of its own, of one line a program

/// Files that can be read in one go, and begin with what they are for.
pub(crate) fn files(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust() {
        let all = file.text.lines().count();
        let tests = (1..=all).filter(|line| file.test || file.source.is_test(*line)).count();
        let excused = LONG.iter().any(|(path, _)| *path == file.path);
        let long = all - tests > SOFT_LIMIT;
        if all > HARD_LIMIT || long && !excused {
            faults.push(format!(
                "{}: {all} lines, {} without tests, more than {HARD_LIMIT} or {SOFT_LIMIT}: divide it \
                 by theme, or give a reason in LONG in tests/tidy",
                file.path,
                all - tests
            ));
        } else if !long && excused {
            faults.push(format!("LONG in tests/tidy: stale exception: remove {}", file.path));
        }
        if !file.text.starts_with("//! ") {
            faults.push(format!("{}:1: begin with `//! ` and what the file is for", file.path));
        }
    }
    let gone = LONG.iter().filter(|(path, _)| tree.file(path).is_none());
    faults.extend(
        gone.map(|(path, _)| format!("LONG in tests/tidy: stale exception: remove {path}")),
    );
    faults
}

/// The compiler holds the lints of the workspace; this holds every package and every file to them.
pub(crate) fn lints(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && file.path != OTHER_LINTS)
    {
        let manifest = file.text.parse::<toml::Table>().unwrap_or_default();
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if manifest.contains_key("package") && lints != Some(true) {
            faults.push(format!("{}: add `workspace = true` under [lints]", file.path));
        }
    }
    for file in tree.rust() {
        for (words, line) in &file.source.attributes {
            let name = words.first().map(String::as_str).unwrap_or_default();
            if name == "ignore" {
                faults.push(format!(
                    "{}:{line}: a test that is not run: repair it, or skip it at run time with a \
                     reason that is counted",
                    file.path
                ));
            }
            let test = file.test || file.source.is_test(*line);
            let lifts = ["allow", "expect", "warn"].contains(&name);
            for (lint, places) in NEVER_LIFTED.iter().filter(|_| lifts) {
                let holds = !test || *lint == "unsafe_code";
                if holds
                    && words.iter().any(|word| word == lint)
                    && !places.split(' ').any(|place| place == file.path)
                {
                    faults.push(format!(
                        "{}:{line}: lifts {lint}: write code that keeps it",
                        file.path
                    ));
                }
            }
        }
    }
    faults
}

mod tests {
    use super::*;

    #[test]
    fn long_files_are_reported_and_tests_do_not_count() {
        let count = |source: &str| {
            let faults = files(&Tree::of(&[("a/src/b.rs", &format!("//! A.\n{source}"))]));
            faults.into_iter().filter(|fault| fault.starts_with("a/")).count()
        };
        let code = |lines| "const X: u8 = 1;\n".repeat(lines);
        let test = |lines| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code(lines));
        assert_eq!(count(&code(299)), 0);
        assert_eq!(count(&code(SOFT_LIMIT)), 1);
        assert_eq!(count(&(code(290) + &test(90))), 0);
        assert_eq!(count(&test(HARD_LIMIT)), 1);
        assert!(
            files(&Tree::of(&[("a.rs", "use b;")])).iter().any(|fault| fault.starts_with("a.rs:1"))
        );
    }

    #[test]
    fn lints_are_not_lifted() {
        let count = |path: &str, source: &str| lints(&Tree::of(&[(path, source)])).len();
        assert_eq!(count("daemon/src/a.rs", "#![expect(unsafe_code, reason = \"x\")]"), 1);
        assert_eq!(count("tests/e2e/a.rs", "#[allow(unsafe_code)] fn f() {}"), 1);
        assert_eq!(count("daemon/sys/src/lib.rs", "#![expect(unsafe_code)]"), 0);
        assert_eq!(count("daemon/src/a.rs", "#[expect(clippy::unwrap_used)] fn f() {}"), 1);
        assert_eq!(
            count("daemon/src/a.rs", "#[cfg(test)] mod t { #![expect(clippy::unwrap_used)] }"),
            0
        );
        assert_eq!(count("tests/e2e/a.rs", "#[test] #[ignore] fn f() {}"), 1);
        assert_eq!(count("a/Cargo.toml", "[package]\nname = \"a\"\n"), 1);
        assert_eq!(
            count("a/Cargo.toml", "[package]\nname = \"a\"\n[lints]\nworkspace = true\n"),
            0
        );
    }
}
