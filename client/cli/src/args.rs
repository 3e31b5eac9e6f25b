//! The words of the command line.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::global::Global;
use crate::nc::NcArgs;
use crate::ping::PingArgs;
use crate::policy::PolicyCommand;
use crate::sniff::SniffArgs;
use crate::value::seconds;

/// What stands behind the options in `--help` and in the manual page.
const AFTER: &str = "\
Environment:
  SOCKBROKER          the broker to use, as for --broker
  SOCKBROKER_SESSION  the session to use, as for --session
  NO_COLOR            if set, nothing is coloured

Exit codes:
  0   done
  1   the call failed; for ping: no reply came; for policy check --strict: there are warnings
  2   the command line is wrong; for ping: something else failed
  69  no broker answers, or it went away
  71  the system refused something that is not the broker's business
  74  a file, standard input or standard output cannot be read or written
  76  the broker's answer cannot be understood
  77  the system forbids the namespaces that demo needs
  78  a policy file cannot be used

Examples:
  sockbroker demo
  sockbroker call socket.getservbyname servicename=http
  sockbroker --private nc -l 127.0.0.1 8080
  sockbroker sniff lo --count 10 --write lo.pcapng";

/// Uses network sockets that a broker owns, without privileges of its own.
///
/// Calls the broker's methods, lists what is open, connects, pings and captures. Every subcommand talks to a broker (`sockbrokerd`) over its Unix socket, or with --private to
/// one that it starts for itself and that ends with it.
#[derive(Debug, Parser)]
#[command(name = "sockbroker", version, after_long_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that a subcommand has no use for, which its help does not list.
const UNUSED: [(&str, &[&str]); 5] = [
    ("nc", &["session", "json"]),
    ("demo", &["broker", "private", "session", "json"]),
    ("completions", &["broker", "private", "session", "json"]),
    ("man", &["broker", "private", "session", "json"]),
    ("policy", &["broker", "private", "session"]),
];

/// The command line, in whose help each subcommand has the options that it can use.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let every: Vec<_> = command.get_arguments().cloned().collect();
    UNUSED.iter().fold(command, |command, (name, unused)| {
        let unused = every.iter().filter(|option| unused.contains(&option.get_id().as_str()));
        // They go before those of all: the subcommand still refuses them by itself, in its own words.
        let hidden: Vec<_> = unused.map(|option| option.clone().hide(true)).collect();
        command.mut_subcommand(name, |found| found.args(hidden))
    })
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Call(CallArgs),
    Discover(DiscoverArgs),
    Info(InfoArgs),
    Handles(HandlesArgs),
    /// List all sessions of the broker. Needs the grant `admin`.
    Sessions,
    Nc(NcArgs),
    Ping(PingArgs),
    Sniff(SniffArgs),
    /// Show the whole story in a place of its own: no root, no configuration, no broker needed.
    ///
    /// Makes a user and a network namespace, starts a broker there that holds CAP_NET_RAW and
    /// CAP_NET_ADMIN, gives every capability of its own up, and then uses raw, packet and TCP
    /// sockets through the broker, saying which calls went over the wire and how long they took.
    Demo,
    /// Check policy files, or tell which rule decides an action; needs no broker.
    #[command(subcommand)]
    Policy(PolicyCommand),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// Be the broker: the command line of sockbrokerd.
    #[command(hide = true)]
    Broker(sockbrokerd::startup::args::Args),
}

/// Call one method and print its result as JSON.
///
/// Parameters are one JSON array (by position) or object, or words NAME=VALUE. A value is JSON if
/// it parses as JSON, else a text: port=80 is a number, family=AF_INET a text,
/// address='["127.0.0.1",80]' an array. A text that looks like JSON is quoted twice: host='"1"'.
/// NAME=@FILE takes the bytes of a file, NAME=@- those of standard input, both as base64.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker call socket.getservbyname servicename=http
  sockbroker call socket.getaddrinfo host=localhost port=80 type=SOCK_STREAM
  sockbroker call socket.htons '[80]'
  export SOCKBROKER_SESSION=$(sockbroker call --raw session.open linger=60 | jq -r .token)")]
pub(crate) struct CallArgs {
    /// The method, such as socket.getaddrinfo; `sockbroker discover` lists them.
    pub(crate) method: String,

    /// NAME=VALUE, or one JSON array or object.
    #[arg(value_name = "JSON | NAME=VALUE")]
    pub(crate) parameters: Vec<String>,

    /// Print a text or received bytes as they are, and anything else as JSON on one line.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// List the methods of the broker, or describe one.
#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// The method to describe, or the beginning of the names to list.
    pub(crate) method: Option<String>,
}

/// Show which broker this is, and as whom it sees you.
///
/// A summary; then endpoint, versions, subject and session, as whom the broker runs, what confines it,
/// and which policy it holds. --json has the limits too.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Show every limit of the broker, too.
    #[arg(long)]
    pub(crate) limits: bool,
}

/// List your open handles, in all of your sessions.
#[derive(Debug, Args)]
pub(crate) struct HandlesArgs {
    /// List those of this session, by its number. Needs the grant `admin`.
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    pub(crate) of: Option<u64>,

    /// List those of everybody. Needs the grant `admin`.
    #[arg(long)]
    pub(crate) all: bool,

    /// List them again and again until Ctrl-C, every second or as often as this.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "1", value_parser = seconds)]
    pub(crate) watch: Option<f64>,
}

/// Print what lets a shell complete the command line; bash, fish and zsh complete names of methods, too.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// Print the manual page, or write all of them to a folder.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The subcommand, else the page of the program.
    #[arg(conflicts_with = "folder")]
    pub(crate) page: Option<String>,

    /// Write a page for the program and one for each subcommand to this folder.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_options_that_the_subcommand_can_use() {
        let help = |names: &[&str]| {
            let mut command = command();
            command.build();
            let found = names
                .iter()
                .fold(&mut command, |command, name| command.find_subcommand_mut(name).unwrap());
            found.render_long_help().to_string()
        };
        for (name, unused) in UNUSED {
            for option in unused {
                assert!(!help(&[name]).contains(&format!("--{option}")), "{name}: {option}");
            }
        }
        assert!(!help(&["policy", "explain"]).contains("--broker"));
        for option in ["broker", "private", "session", "json"] {
            assert!(help(&["info"]).contains(&format!("--{option}")), "{option}");
        }
        assert!(
            help(&["nc"]).contains("--broker") && help(&["policy", "check"]).contains("--json")
        );
    }

    #[test]
    fn options_of_every_subcommand_may_stand_behind_it() {
        let cli = Cli::try_parse_from(["sockbroker", "info", "--broker", "unix:/x", "--json"]);
        let global = cli.unwrap().global;
        assert_eq!((global.broker.as_deref(), global.json), (Some("unix:/x"), true));
        assert!(Cli::try_parse_from(["sockbroker", "--private", "--broker", "a", "info"]).is_err());
    }
}
