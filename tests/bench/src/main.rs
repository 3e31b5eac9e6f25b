//! `sockbroker-bench [SUITE] [--json]`: what the broker costs, as ratios within one run.
//!
//! The broker and the peers are this program too, started in another [`Role`]. A missed target is reported, but only
//! a failed measurement fails the program.

#![forbid(unsafe_code)]

mod error;
mod report;
mod measure;
mod figures;
mod cpu_time;
mod placement;
mod program;
mod remote_lab;
mod link_peers;
mod opener_peer;
mod peers;
mod broker;
mod client;
mod exchange;
mod rpc;
mod bulk;
mod handles;
mod policy;
mod fairness;
mod opener;
mod processes;
mod restart;
mod exec;
mod library;
mod python;
mod traffic;
mod recorder;
mod capture;
mod replay;
mod link;
mod remote_link;
mod remote;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use error::Result;
use measure::{Load, Sample};
use peers::Role;
use report::{Report, Row};

#[derive(Debug, Parser)]
#[command(about = "Measures the broker against what the kernel can do at best.")]
struct Args {
    /// The suite to measure. Default: all suites but `capture`, `replay` and `remote`.
    suite: Option<Suite>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Small calls against a ping-pong of the same bytes.
    Rpc,
    /// Payload by attachment, in base64 and by descriptor, against native sockets.
    Bulk,
    /// Memory and time of idle handles and connections.
    Handles,
    /// Policy decisions, by the number of rules.
    Policy,
    /// The effect of a user at its limits on another user.
    Fairness,
    /// What the division into processes costs, and how a flood of one user affects another.
    Processes,
    /// What persistent sessions cost, and how long a restart of the service with them takes.
    Restart,
    /// What `sockbroker exec` costs a program.
    Exec,
    /// The Rust library: typed calls, calls in flight, streams, passed descriptors.
    Client,
    /// The Python package: small calls, payload, direct mode, creation.
    Python,
    /// Captures against tcpdump: CPU time, losses, delivery, end.
    Capture,
    /// Packets of a file on an interface, against tcpreplay.
    Replay,
    /// A broker of another machine, against TLS alone, socat and ssh, and over a link with a delay.
    Remote,
}

impl Suite {
    fn word(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Bulk => "bulk",
            Self::Handles => "handles",
            Self::Policy => "policy",
            Self::Fairness => "fairness",
            Self::Processes => "processes",
            Self::Restart => "restart",
            Self::Exec => "exec",
            Self::Client => "client",
            Self::Python => "python",
            Self::Capture => "capture",
            Self::Replay => "replay",
            Self::Remote => "remote",
        }
    }

    /// Whether it is measured without being named. The others need tcpdump, tcpreplay, socat and ssh, and CPUs without
    /// other load.
    fn is_usual(self) -> bool {
        !matches!(self, Self::Capture | Self::Replay | Self::Remote)
    }

    fn run(self, report: &mut Report) -> Result<()> {
        let load = Load::start()?;
        match self {
            Self::Rpc => rpc::run(report)?,
            Self::Bulk => bulk::run(report)?,
            Self::Handles => handles::run(report)?,
            Self::Policy => policy::run(report)?,
            Self::Fairness => fairness::run(report)?,
            Self::Processes => processes::run(report)?,
            Self::Restart => restart::run(report)?,
            Self::Exec => exec::run(report)?,
            Self::Client => library::run(report)?,
            Self::Python => python::run(report)?,
            Self::Capture => capture::run(report)?,
            Self::Replay => replay::run(report)?,
            Self::Remote => remote::run(report)?,
        }
        let others = Sample::of(&[load.percent_of_others()?]);
        report.add(Row::new("CPU time of other processes", others, "% of all"));
        Ok(())
    }
}

fn main() -> ExitCode {
    match Role::of_this_process() {
        Some(role) => role.run(),
        None => measure(&Args::parse()),
    }
}

fn measure(args: &Args) -> ExitCode {
    let mut report = Report::new(args.json);
    if cfg!(debug_assertions) {
        error::report("this is a debug build: measure with --release");
    }
    if let Err(error) = raise_open_files() {
        error::report(&format!("cannot raise the limit of open files: {error}"));
    }
    let mut complete = true;
    for suite in Suite::value_variants() {
        if !args.suite.map_or_else(|| suite.is_usual(), |wanted| wanted == *suite) {
            continue;
        }
        report.begin(suite.word());
        if let Err(error) = suite.run(&mut report) {
            complete = false;
            error::report(&format!("{}: not measured: {error}", suite.word()));
        }
    }
    if let Err(error) = report.end() {
        complete = false;
        error::report(&error.to_string());
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn raise_open_files() -> nix::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
