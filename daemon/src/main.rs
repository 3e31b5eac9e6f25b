//! `sockbrokerd`: see the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match sockbrokerd::startup::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if even this fails.
            drop(writeln!(std::io::stderr(), "sockbrokerd: {error}"));
            ExitCode::from(error.code())
        }
    }
}
