//! The error of a measurement, and messages on standard error.

use std::io::Write as _;

/// The result of a step of a measurement.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Prints a message that is not a figure on standard error.
pub(crate) fn report(text: &str) {
    // Best effort: the exit code reports a failure too.
    drop(writeln!(std::io::stderr(), "sockbroker-bench: {text}"));
}
