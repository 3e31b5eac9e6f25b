//! Sources: unsafe code, sizes, first lines, and words that have no place in them.

use crate::Fault;
use crate::tokens::{Token, follows, test_items};
use crate::tree::{File, Tree};

/// The only place with unsafe code.
const KERNEL: &str = "daemon/sys/src/";
/// The programs of the fuzzer export a function to C, which the compiler counts as unsafe.
const FUZZER: &str = "tests/fuzz/fuzz_targets/";

/// Lines of a file without its tests: more only with a reason, listed in [`LONG`].
const SOFT_LIMIT: usize = 300;
/// Lines of any file.
const HARD_LIMIT: usize = 600;

/// Files over the soft limit, and why they are not divided.
const LONG: &[(&str, &str)] = &[
    ("proto/src/constant/table.rs", "one table"),
    ("proto/macros/src/read.rs", "one trait, from its attribute to the type of its last parameter"),
    ("proto/src/address/read.rs", "one function a family, all of CPython's getsockaddrarg"),
];

/// Unsafe code only where the kernel is called, and proven there.
pub fn unsafe_code(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust() {
        let is_kernel = file.path.starts_with(KERNEL);
        let tokens = file.tokens();
        for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
            if !is_kernel {
                faults.push(format!(
                    "{}:{}: unsafe code: add a safe function to daemon/sys and call it",
                    file.path, token.line
                ));
            } else if !file.test && follows(&tokens, at + 1, &["{"]) && !is_proven(file, token.line)
            {
                faults.push(format!(
                    "{}:{}: an unsafe block without a proof: say above it, after `// SAFETY:`, which \
                     pointers it uses, their lengths and lifetimes, and who owns descriptors",
                    file.path, token.line
                ));
            }
        }
        if is_root(&file.path) && !is_kernel && !forbids_unsafe(&tokens) {
            faults.push(format!("{}: begin the crate with #![forbid(unsafe_code)]", file.path));
        }
    }
    faults
}

/// Whether a proof stands above a line: in the same statement, a few lines up at most.
fn is_proven(file: &File, line: usize) -> bool {
    let first = line.saturating_sub(8);
    file.text.lines().take(line).skip(first).any(|text| text.contains("// SAFETY:"))
}

fn is_root(path: &str) -> bool {
    let root = ["/src/lib.rs", "/src/main.rs"].iter().any(|root| path.ends_with(root));
    (root || path.contains("/src/bin/")) && !path.starts_with(FUZZER)
}

fn forbids_unsafe(tokens: &[Token<'_>]) -> bool {
    let forbid = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
    (0..tokens.len()).any(|at| follows(tokens, at, &forbid))
}

/// Files that can be read in one go.
pub fn sizes(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust() {
        let all = file.text.lines().count();
        let own = all - if file.test { all } else { test_lines(file) };
        let excused = LONG.iter().any(|(path, _)| *path == file.path);
        if all > HARD_LIMIT {
            faults.push(format!("{}: {all} lines, more than {HARD_LIMIT}: divide it", file.path));
        } else if own > SOFT_LIMIT && !excused {
            faults.push(format!(
                "{}: {own} lines without tests, more than {SOFT_LIMIT}: divide it by theme, or give a \
                 reason in LONG in tests/tidy",
                file.path
            ));
        } else if own <= SOFT_LIMIT && excused {
            faults.push(format!("LONG in tests/tidy: {} needs no excuse: strike it", file.path));
        }
    }
    for (path, _) in LONG.iter().filter(|(path, _)| tree.file(path).is_none()) {
        faults.push(format!("LONG in tests/tidy: {path} is gone: strike it"));
    }
    faults
}

fn test_lines(file: &File) -> usize {
    let tokens = file.tokens();
    let line = |at: usize| tokens.get(at).map_or(0, |token| token.line);
    test_items(&tokens).iter().map(|item| line(item.end - 1) - line(item.start) + 1).sum()
}

/// Every source begins by saying what it is for.
pub fn first_lines(tree: &Tree) -> Vec<Fault> {
    let missing = tree.rust().filter(|file| !file.text.starts_with("//! "));
    missing
        .map(|file| format!("{}:1: begin with `//! ` and what the file is for", file.path))
        .collect()
}

/// What must not stay in a source.
pub fn leftovers(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust() {
        let tokens = file.tokens();
        for (at, token) in tokens.iter().enumerate() {
            let todo = if follows(&tokens, at, &["#", "[", "ignore"]) {
                "a test that is not run: repair it, or skip it at run time with a reason that is counted"
            } else if follows(&tokens, at, &["todo", "!"])
                || follows(&tokens, at, &["unimplemented", "!"])
            {
                "write it, or leave it out"
            } else {
                continue;
            };
            faults.push(format!("{}:{}: {}: {todo}", file.path, token.line, token.text));
        }
        let shipped = file.shipped();
        for at in (0..shipped.len()).filter(|at| follows(&shipped, *at, &[".", "unwrap", "(", ")"]))
        {
            let line = shipped.get(at).map_or(0, |token| token.line);
            faults.push(format!(
                "{}:{line}: unwrap: data from a peer must not end a call by a panic; return an error",
                file.path
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, source: &str) -> Tree {
        Tree::of(&[(path, source)])
    }

    #[test]
    fn unsafe_code_is_refused_outside_of_the_kernel_crate_and_unproven_inside() {
        assert_eq!(unsafe_code(&tree("daemon/src/a.rs", "fn f() { unsafe { g() } }")).len(), 1);
        assert_eq!(unsafe_code(&tree("tests/e2e/a.rs", "unsafe fn f() {}")).len(), 1);
        assert_eq!(unsafe_code(&tree("daemon/sys/src/a.rs", "fn f() { unsafe { g() } }")).len(), 1);
        let proven = "fn f() {\n    // SAFETY: g takes no pointer.\n    unsafe { g() }\n}";
        assert_eq!(unsafe_code(&tree("daemon/sys/src/a.rs", proven)), [""; 0]);
        assert_eq!(unsafe_code(&tree("a/src/lib.rs", "//! A.\n")).len(), 1);
        assert_eq!(
            unsafe_code(&tree("a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n")),
            [""; 0]
        );
        assert_eq!(unsafe_code(&tree("a/b.rs", "// unsafe {\nlet x = \"unsafe\";")), [""; 0]);
    }

    #[test]
    fn long_files_are_told_and_tests_do_not_count() {
        let told = |source: &str| {
            let faults = sizes(&tree("a/src/b.rs", source));
            faults.into_iter().filter(|fault| fault.starts_with("a/")).count()
        };
        assert_eq!(told(&"x;\n".repeat(300)), 0);
        assert_eq!(told(&"x;\n".repeat(301)), 1);
        let tests =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "x;\n".repeat(290), "y;\n".repeat(90));
        assert_eq!(told(&tests), 0);
        assert_eq!(told(&format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "y;\n".repeat(600))), 1);
    }

    #[test]
    fn leftovers_are_told() {
        let count = |source: &str| leftovers(&tree("a/src/b.rs", source)).len();
        assert_eq!(count("#[test] #[ignore] fn f() {}"), 1);
        assert_eq!(count("fn f() { todo!() }"), 1);
        assert_eq!(count("fn f() { g().unwrap() }"), 1);
        assert_eq!(count("#[cfg(test)] mod tests { fn f() { g().unwrap() } }"), 0);
        assert_eq!(count("fn f() { g().unwrap_or_default() }"), 0);
        assert_eq!(first_lines(&tree("a.rs", "use b;")).len(), 1);
    }
}
