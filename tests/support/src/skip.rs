//! Skips tests whose requirements the machine does not meet. Each test process prints one line with the reasons.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// The environment variable that names the test in the inner run of [`inside`](crate::namespace::inside).
pub(crate) const INNER_TEST: &str = "SOCKBROKER_TEST_NAMESPACE";

/// The number of skipped tests, by reason.
static SKIPPED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Counts a test as skipped. When the process exits, it prints one line on standard error:
/// `SKIPPED 3 tests: 2 needs root; 1 tshark is not installed`.
///
/// In the inner run of [`inside`](crate::namespace::inside) it immediately prints `SKIPPED (reason): test`, for
/// the outer run.
#[expect(clippy::print_stdout, reason = "it belongs to the output of the skipped test")]
pub fn skip(reason: &str, test: &str) {
    if std::env::var_os(INNER_TEST).is_some() {
        // One write, so that lines do not mix. The test runner can be in the middle of a line.
        let line = format!("\nSKIPPED ({reason}): {test}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    // Shown if the test runner prints the output of successful tests.
    println!("skipped: {reason}: {test}");
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if skipped.is_empty() {
        sockbroker_sys::process::at_exit(print_closing_line).unwrap();
    }
    *skipped.entry(reason.to_owned()).or_default() += 1;
}

/// Prints the line, outside of the capture of the test runner.
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
    // Best effort: the process is exiting.
    let _written = std::io::stderr().write_all(line.as_bytes());
}

/// Returns the reasons in the output of an inner run, which has one line for each skipped test.
pub fn reasons(output: &str) -> impl Iterator<Item = &str> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("SKIPPED ("));
    lines.filter_map(|line| line.split("): ").next())
}

/// Whether this process is root. Otherwise counts the test as skipped.
pub fn root_or_skip(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root", test);
    }
    root
}

/// Whether a program is installed. Otherwise counts the test as skipped.
pub fn program_or_skip(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"), test);
    }
    found
}
