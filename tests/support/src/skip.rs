//! Tests that cannot run here. Each process of tests names their reasons in one closing line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// Set for the inner run of a test in namespaces, to the name of the test.
pub(crate) const INNER_RUN: &str = "SOCKBROKER_TEST_NAMESPACE";

/// How many tests were skipped for each reason.
static SKIPPED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Counts a test as skipped. When the process exits, it prints one line of all of them on standard error:
/// `SKIPPED 3 tests: 2 needs root; 1 tshark is not installed`.
///
/// In the inner run of a test in namespaces it prints `SKIPPED (reason): test` at once, which the outer run reads.
#[expect(clippy::print_stdout, reason = "it goes to the output of the test that is skipped")]
pub fn skip(reason: &str, test: &str) {
    if std::env::var_os(INNER_RUN).is_some() {
        // One write, so that lines do not mix. The runner may have begun a line.
        let line = format!("\nSKIPPED ({reason}): {test}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    // For those who ask the runner to show the output of tests that passed.
    println!("skipped: {reason}: {test}");
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if skipped.is_empty() {
        sockbroker_sys::process::at_exit(print_closing_line).unwrap();
    }
    *skipped.entry(reason.to_owned()).or_default() += 1;
}

/// Prints the closing line, past the test runner's capture.
extern "C" fn print_closing_line() {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let total: usize = skipped.values().sum();
    let mut line = format!("SKIPPED {total} tests:");
    for (number, (reason, count)) in skipped.iter().enumerate() {
        let separator = if number == 0 { "" } else { ";" };
        // Writing to a string cannot fail.
        let _written = write!(line, "{separator} {count} {reason}");
    }
    line.push('\n');
    // Nobody is left to report a failure to.
    let _written = std::io::stderr().write_all(line.as_bytes());
}

/// The reasons in the output of a process that printed a line for each skipped test.
pub fn reasons(output: &str) -> impl Iterator<Item = &str> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("SKIPPED ("));
    lines.filter_map(|line| line.split("): ").next())
}

/// Whether this process is root. Counts the test as skipped otherwise.
pub fn root_or_skip(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root", test);
    }
    root
}

/// Whether a program is installed. Counts the test as skipped otherwise.
pub fn program_or_skip(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"), test);
    }
    found
}
