//! `sockbroker-extcap`: captures for Wireshark and tshark, by their interface for programs that capture (`extcap(4)`).
//!
//! It is the same program under another name. Wireshark runs it once for each question, and once for each capture, which
//! the program writes to a FIFO.

mod names;
mod args;
mod sentence;
mod interface;
mod resolve;
mod brokers;
mod answers;
mod control;
mod join;
mod log;
mod running;
mod toolbar;
mod capture;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Parser as _;

use crate::failure::{Exit, Failure};
use crate::screen::report;
use args::{ExtcapArgs, Question};
use interface::Interface;
pub(crate) use names::NAME;

/// Whether the program was started by this name.
pub(crate) fn is_name(program: Option<&OsStr>) -> bool {
    program.map(Path::new).and_then(Path::file_name).is_some_and(|name| name == NAME)
}

/// The command line, for the manual page.
pub(crate) fn command() -> clap::Command {
    <ExtcapArgs as clap::CommandFactory>::command()
}

/// The FIFO of a command line that cannot be parsed.
fn fifo_of(words: impl Iterator<Item = OsString>) -> Option<OsString> {
    words.skip_while(|word| word != "--fifo").nth(1)
}

/// Answers one question of Wireshark, or captures.
pub(crate) fn run() -> Result<Exit, Failure> {
    let args = match ExtcapArgs::try_parse() {
        Ok(args) => args,
        Err(error) => match fifo_of(std::env::args_os()) {
            Some(fifo) if error.use_stderr() => {
                // Best effort: the exit code reports the failure too.
                drop(error.print());
                capture::release(Path::new(&fifo));
                return Err(Failure::usage(""));
            }
            _ => error.exit(),
        },
    };
    let interface = args.extcap_interface.as_deref().map(Interface::parse).transpose();
    let question = interface.and_then(|interface| args.question(interface));
    let question = question.map_err(|failure| match &args.fifo {
        Some(fifo) => {
            report(&format!("{NAME}: {failure}"));
            capture::release(fifo);
            failure.without_message()
        }
        None => failure,
    });
    match question? {
        Question::Interfaces => answers::interfaces(),
        Question::LinkTypes => answers::link_types(),
        Question::Options(interface) => answers::options(&args, &interface),
        Question::Filter(expression) => answers::filter(&expression),
        Question::Capture(interface, fifo) => capture::run(&args, &interface, fifo),
    }
}
