//! Start-up: from the command line to a serving broker, and its end.

pub mod args;
mod monitor;
mod worker;
mod beginning;
mod leases;
mod worker_ids;
mod opener;
mod caller;
mod reader;
mod gateway;
mod policy_reader;
mod credentials;
mod single;
pub mod listen;
pub mod confine;
mod first_steps;
mod error;
mod audit;
mod service;
mod remote;
mod sources;
mod subordinate;
mod memory;
mod id_map;
mod signals;

use std::io;

use sockbroker_monitor::reaper;
use sockbroker_monitor::role::Role;
use sockbroker_sys::{capability, child, process};

use crate::config;
use args::Args;
pub use error::StartError;

/// Runs the broker as its arguments say, until it is stopped.
pub fn run(args: &Args) -> Result<(), StartError> {
    if let Some(role) = args.role {
        return run_role(role, args);
    }
    let from = sources::config(args);
    let config = config::load(from.as_deref())?;
    if config.processes.workers && !args.stdio && !args.check {
        let fail = |error| StartError::System(format!("cannot use the capabilities: {error}"));
        capability::use_permitted().map_err(fail)?;
        monitor::run(args, &config, from.as_deref())
    } else {
        single::run(args, config)
    }
}

/// Runs the broker as a part of another program, which is the broker with these arguments first.
pub fn run_as_subcommand(
    subcommand: &'static [&'static str],
    args: &Args,
) -> Result<(), StartError> {
    sockbroker_monitor::role::set_subcommand(subcommand);
    run(args)
}

/// Runs a process that the broker started.
fn run_role(role: Role, args: &Args) -> Result<(), StartError> {
    let fail = |error: io::Error| StartError::System(format!("{}: {error}", role.word()));
    let parent = args.parent.unwrap_or_default();
    child::set_name(c"sockbrokerd").map_err(fail)?;
    sockbroker_monitor::role::begin(parent).map_err(fail)?;
    let channel = process::inherited_descriptor(0).map_err(fail)?;
    match role {
        Role::Worker => worker::run(channel, parent),
        Role::Opener => opener::run(channel),
        Role::Caller => {
            caller::run(channel, parent)?;
            // Threads that wait for a file system end with the process.
            reaper::exit()
        }
        Role::Reader => {
            reader::run(channel, parent)?;
            // The threads of captures end with the process.
            reaper::exit()
        }
        Role::Gateway => gateway::run(channel, parent),
        Role::PolicyReader => policy_reader::run(args, channel),
        Role::Reaper => {
            reaper::run(channel).map_err(fail)?;
            reaper::exit()
        }
    }
}
