//! The program `sockbrokerd`. Its code is in the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser as _;
use sockbrokerd::startup::{self, args::Args};

fn main() -> ExitCode {
    match startup::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // An error of standard error cannot be reported anywhere.
            drop(writeln!(std::io::stderr(), "sockbrokerd: {error}"));
            ExitCode::from(error.code())
        }
    }
}
