//! Tests that cannot run here: said and counted, never passed over in silence.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Says that a test is skipped and why: a line `SKIPPED (reason): test` on standard error, past the
/// test runner's capture, for the gate to count.
pub fn skip(reason: &str, test: &str) {
    SKIPPED.fetch_add(1, Ordering::Relaxed);
    // One write, so that lines of parallel tests do not mix; a leading end of line, since the runner
    // may have begun one.
    let line = format!("\nSKIPPED ({reason}): {test}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// How many were skipped in this process.
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
}

/// The reasons in the output of a process that ran tests.
pub fn reasons(output: &str) -> impl Iterator<Item = &str> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("SKIPPED ("));
    lines.filter_map(|line| line.split("): ").next())
}

/// Whether this process is root; says that the test is skipped otherwise.
pub fn root_or_skip(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root", test);
    }
    root
}

/// Whether a program is installed; says that the test is skipped otherwise.
pub fn program_or_skip(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"), test);
    }
    found
}
