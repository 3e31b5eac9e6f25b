//! The command line of `sockbroker policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// The subcommands of `sockbroker policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Check(PolicyCheckArgs),
    Explain(ExplainArgs),
}

/// Check policy files as the broker reads them, and warn about likely mistakes.
///
/// Warns about rules that never match, are never reached or have no effect, about rules that deny without
/// a subject, about files without rules, and about users, groups, units and interfaces that do not exist
/// on this host. The exit code is 78 if a file cannot be used.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker policy check
  sockbroker policy check --strict /etc/sockbroker/policy.toml /etc/sockbroker/policy.d/*.toml")]
pub(crate) struct PolicyCheckArgs {
    /// Exit with code 1 if there is any warning.
    #[arg(long)]
    pub(crate) strict: bool,

    /// The files, in the order in which they are read. Default: the files of the system.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

/// Explain which rule decides an action, and why other rules do not.
///
/// An action is a verb, then constants of family, type and protocol, and operands: local=, remote=,
/// path=, interface=, netns=, option=, netlink=, snaplen=, lookup=required. `capture` with the name of an interface, or
/// with `any` or without one for all interfaces, shows which packets a capture lets through.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker policy explain 'create AF_PACKET SOCK_RAW'
  sockbroker policy explain capture eth0
  sockbroker policy explain --user alice connect remote=192.0.2.1:443
  sockbroker policy explain --uid 1000 --policy policy.toml bind local=0.0.0.0:80")]
pub(crate) struct ExplainArgs {
    /// The action, such as `connect remote=192.0.2.1:443`.
    #[arg(required = true)]
    pub(crate) action: Vec<String>,

    /// Explain for this user, with its groups on this host. Default: you.
    #[arg(long, value_name = "NAME", conflicts_with = "uid")]
    pub(crate) user: Option<String>,

    /// Explain for this user ID.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) uid: Option<u32>,

    /// Explain for a process in this control group and in its unit. Default: your own; for another user, none.
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Option<String>,

    /// The policy file; its drop-in folder is read too.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
}
