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

use std::ffi::OsStr;
use std::path::Path;

use clap::Parser as _;

use crate::failure::{Exit, Failure};
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

/// Answers one question of Wireshark, or captures.
pub(crate) fn run() -> Result<Exit, Failure> {
    let args = ExtcapArgs::parse();
    let interface = args.extcap_interface.as_deref().map(Interface::parse).transpose()?;
    match args.question(interface)? {
        Question::Interfaces => answers::interfaces(),
        Question::LinkTypes => answers::link_types(),
        Question::Options(interface) => answers::options(&args, &interface),
        Question::Filter(expression) => answers::filter(&expression),
        Question::Capture(interface, fifo) => capture::run(&args, &interface, fifo),
    }
}
