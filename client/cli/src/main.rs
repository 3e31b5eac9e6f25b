//! `sockbroker`: the command line of the broker.
//!
//! Under the name `sockbroker-extcap` it captures for Wireshark ([`extcap`]). Each subcommand is a module. They share [`args`] (the command line), [`connection`] (the connection
//! to a broker), [`failure`] (the error line and the exit code) and [`screen`] (standard output).

#![forbid(unsafe_code)]

mod failure;
mod global;
mod args;
mod screen;
mod table;
mod value;
mod connection;
mod interrupt;
mod broker;
mod call;
mod dial_stdio;
mod discover;
mod info;
mod list;
mod nc;
mod ping;
mod sniff;
mod extcap;
mod replay;
mod demo;
mod exec;
mod policy;
mod synopsis;
mod generate;

use std::io::Write as _;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use args::{Cli, Command};
use failure::{Exit, Failure};

fn main() -> ExitCode {
    let (name, result) = if extcap::is_name(std::env::args_os().next().as_deref()) {
        (extcap::NAME, extcap::run())
    } else {
        let matches = args::command().try_get_matches();
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
        ("sockbroker", cli.map_err(|error| args::refused(&error)).and_then(|cli| run(&cli)))
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let line = failure.to_string();
            if !line.is_empty() {
                // Best effort: the exit code reports the failure too.
                drop(writeln!(std::io::stderr(), "{name}: {line}"));
            }
            failure.exit().into()
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Call(args) => call::run(global, args),
        Command::Discover(args) => discover::run(global, args),
        Command::Info(args) => info::run(global, args),
        Command::Handles(args) => list::handles(global, args),
        Command::Sessions => list::sessions(global),
        Command::Nc(args) => nc::run(global, args),
        Command::Ping(args) => ping::run(global, args),
        Command::Sniff(args) => sniff::run(global, args),
        Command::Replay(args) => replay::run(global, args),
        Command::Demo => global.refuse("demo").and_then(|()| demo::run()),
        Command::Exec(args) => exec::run(global, args),
        Command::Policy(command) => policy::run(global, command),
        Command::Completions(args) => {
            global.refuse("completions").and_then(|()| generate::completions(args))
        }
        Command::Man(args) => global.refuse("man").and_then(|()| generate::man(args)),
        Command::DialStdio(args) => {
            global.refuse("dial-stdio").and_then(|()| dial_stdio::run(args))
        }
        Command::Broker(args) => broker::run(args),
    }
}
