//! The words of `sockbroker policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// What can be asked of policy files.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Check(PolicyCheckArgs),
    Explain(ExplainArgs),
}

/// Read policy files as the broker would, and warn of what can hardly be meant.
///
/// Warns of rules that never match, are never reached or add nothing, of rules that deny without a
/// subject, of files without rules, and of users, groups, units and interfaces that this host does not
/// have. The exit code is 78 if a file cannot be used.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker policy check
  sockbroker policy check --strict /etc/sockbroker/policy.toml /etc/sockbroker/policy.d/*.toml")]
pub(crate) struct PolicyCheckArgs {
    /// End with exit code 1 if there is any warning.
    #[arg(long)]
    pub(crate) strict: bool,

    /// The files, in the order in which they are read; without any, those of the system.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

/// Tell which rule decides an action, and why the others do not.
///
/// An action is a verb, then constants of family, type and protocol, and operands: local=, remote=,
/// path=, interface=, option=, netlink=, snaplen=, lookup=required.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker policy explain 'create AF_PACKET SOCK_RAW'
  sockbroker policy explain --user alice connect remote=192.0.2.1:443
  sockbroker policy explain --uid 1000 --policy policy.toml bind local=0.0.0.0:80")]
pub(crate) struct ExplainArgs {
    /// The action.
    #[arg(required = true)]
    pub(crate) action: Vec<String>,

    /// For this user, with the groups it has on this host; without it, for yourself.
    #[arg(long, value_name = "NAME", conflicts_with = "uid")]
    pub(crate) user: Option<String>,

    /// For this user id.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) uid: Option<u32>,

    /// For a process of this control group, and of its unit. Without it yours, and for another user none.
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Option<String>,

    /// The policy file, with the drop-in folder beside it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,
}
