//! The hidden subcommand `broker`: this very program as `sockbrokerd`, for `--private` and `demo`.

use std::io::Write as _;
use std::process;

use sockbrokerd::startup::{self, args::Args};

use crate::failure::{Exit, Failure};

/// Runs the broker to its end, with its exit codes.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    match startup::run(args) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            drop(writeln!(std::io::stderr(), "sockbrokerd: {error}"));
            #[expect(clippy::exit, reason = "the broker's exit codes are its own")]
            process::exit(i32::from(error.code()))
        }
    }
}
