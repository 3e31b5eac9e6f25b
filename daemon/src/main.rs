//! `sockbrokerd`: see the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser as _;
use sockbrokerd::startup::{self, args::Args};

fn main() -> ExitCode {
    match startup::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A failure to write the error cannot be reported.
            drop(writeln!(std::io::stderr(), "sockbrokerd: {error}"));
            ExitCode::from(error.code())
        }
    }
}
