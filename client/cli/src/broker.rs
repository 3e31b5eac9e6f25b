//! The hidden subcommand `broker`: runs this program as `sockbrokerd`, for `--private` and `demo`.

use std::io::Write as _;
use std::process;

use sockbrokerd::startup::{self, args::Args};

use crate::failure::{Exit, Failure};

/// Runs the broker until it ends. On an error it exits with the exit code of `sockbrokerd`.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    match startup::run_as_subcommand(&["broker"], args) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            drop(writeln!(std::io::stderr(), "sockbrokerd: {error}"));
            #[expect(clippy::exit, reason = "the broker's exit codes are its own")]
            process::exit(i32::from(error.code()))
        }
    }
}
