//! The command line: subcommands, arguments and their help.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::agent::AgentArgs;
use crate::dial_stdio::DialStdioArgs;
use crate::exec::ExecArgs;
use crate::failure::Failure;
use crate::global::Global;
use crate::nc::NcArgs;
use crate::ping::PingArgs;
use crate::pki::PkiCommand;
use crate::policy::PolicyCommand;
use crate::replay::ReplayArgs;
use crate::sniff::{SniffArgs, compatible};
use crate::token::TokenCommand;
use crate::value::seconds;

/// The text after the options in `--help` and in the manual page.
const AFTER: &str = "\
Environment:
  SOCKBROKER          the broker to use, as for --broker
  SOCKBROKER_SESSION  the session to use, as for --session
  NO_COLOR            if set to any text, the output has no colours

Exit codes:
  0   success
  1   the call failed; ping: no reply arrived;
      policy check --strict: there are warnings
  2   the command line is wrong; ping: another error
  69  no broker answers, or the connection to it ended
  71  a system call of this program failed
  74  a file, standard input or standard output cannot be read or written
  76  the broker's response is invalid
  77  the system refuses the namespaces that demo needs
  78  a policy file cannot be used
  exec ends as its program does: sockbroker exec --help lists its own codes

Examples:
  sockbroker demo
  sockbroker call socket.getservbyname servicename=http
  sockbroker --private nc -l 127.0.0.1 8080
  sockbroker sniff lo --count 10 --write lo.pcapng
  sockbroker sniff eth0 udp port 67
  sockbroker replay lo.pcapng -i lo
  sockbroker exec python3 -m http.server 80";

/// Use network sockets that a broker owns, without privileges.
///
/// Calls the broker's methods, lists open sockets, connects, pings and captures packets. Every subcommand
/// connects to a broker (`sockbrokerd`) over its Unix socket. With --private it starts its own broker,
/// which ends with the command.
#[derive(Debug, Parser)]
#[command(name = "sockbroker", version, after_long_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The shared options that a subcommand refuses. Its help does not list them.
const UNUSED: [(&str, &[&str]); 10] = [
    ("agent", &["private", "session", "persist", "reconnect_seconds", "json"]),
    ("dial-stdio", EVERY),
    ("nc", &["session", "json"]),
    ("exec", &["private", "json"]),
    ("demo", EVERY),
    ("completions", EVERY),
    ("man", EVERY),
    ("policy", &["broker", "private", "session", "persist", "reconnect_seconds"]),
    ("pki", EVERY),
    ("token", EVERY),
];

/// All shared options.
const EVERY: &[&str] = &["broker", "private", "session", "persist", "reconnect_seconds", "json"];

/// Returns the command line. The help of a subcommand lists only the options that it accepts.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let every: Vec<_> = command.get_arguments().cloned().collect();
    UNUSED.iter().fold(command, |command, (name, unused)| {
        let unused = every.iter().filter(|option| unused.contains(&option.get_id().as_str()));
        // A hidden option of the subcommand replaces the shared one: the subcommand still parses and refuses it.
        let hidden: Vec<_> = unused.map(|option| option.clone().hide(true)).collect();
        command.mut_subcommand(name, |found| found.args(hidden))
    })
}

/// The failure of a command line that cannot be parsed. Prints help and the errors that clap describes well, and ends the
/// program.
pub(crate) fn refused(error: &clap::Error) -> Failure {
    let text = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let option = text(ContextKind::InvalidArg);
    let is_sniff = text(ContextKind::Usage).contains("sockbroker sniff ");
    if error.kind() == ErrorKind::UnknownArgument && is_sniff && option.starts_with('-') {
        return Failure::usage(compatible::instead(&option));
    }
    error.exit()
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Call(CallArgs),
    Discover(DiscoverArgs),
    Info(InfoArgs),
    Handles(HandlesArgs),
    /// List all sessions of the broker. Requires the grant `admin`.
    Sessions,
    Nc(NcArgs),
    Ping(PingArgs),
    Sniff(SniffArgs),
    Replay(ReplayArgs),
    Exec(ExecArgs),
    /// Demonstrate the broker in its own namespaces: needs no root, no configuration and no running broker.
    ///
    /// Creates a user and a network namespace, starts a broker there with CAP_NET_RAW and CAP_NET_ADMIN,
    /// drops all of its own capabilities, and then uses raw, packet and TCP sockets through the broker. It
    /// prints each call and how long the call took.
    Demo,
    /// Check policy files, or explain which rule decides an action; needs no broker.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Create certificates for clients on other machines, and for their broker; needs no broker.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Create tokens for clients on other machines; needs no broker.
    #[command(subcommand)]
    Token(TokenCommand),
    DialStdio(DialStdioArgs),
    Agent(AgentArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// Run as the broker, with the command line of sockbrokerd.
    #[command(hide = true)]
    Broker(sockbrokerd::startup::args::Args),
}

/// Call one method and print its result as JSON.
///
/// Parameters are one JSON array (by position), one JSON object, or arguments NAME=VALUE. A value that
/// parses as JSON is JSON; any other value is a string: port=80 is a number, family=AF_INET is a string,
/// address='["127.0.0.1",80]' is an array. Quote a string that looks like JSON twice: host='"1"'.
/// NAME=@FILE passes the bytes of a file, NAME=@- the bytes of standard input, both as base64.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker call socket.getservbyname servicename=http
  sockbroker call socket.getaddrinfo host=localhost port=80 type=SOCK_STREAM
  sockbroker call socket.htons '[80]'
  export SOCKBROKER_SESSION=$(sockbroker call --raw session.open linger=60 | jq -r .token)")]
pub(crate) struct CallArgs {
    /// The method, such as socket.getaddrinfo; `sockbroker discover` lists the methods.
    pub(crate) method: String,

    /// Arguments NAME=VALUE, or one JSON array or object.
    #[arg(value_name = "JSON | NAME=VALUE")]
    pub(crate) parameters: Vec<String>,

    /// Print a string or received bytes unchanged, and any other result as JSON on one line.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// List the methods of the broker, or describe one.
#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// The method to describe, or a prefix of the methods to list.
    pub(crate) method: Option<String>,
}

/// Show the broker, its confinement and its policy, and which user it sees you as.
///
/// Prints a summary, then the endpoint, the versions, your user and session, the user and the confinement
/// of the broker, and its policy. The output of --json includes the limits.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Also show every limit of the broker.
    #[arg(long)]
    pub(crate) limits: bool,
}

/// List your open handles in all of your sessions.
#[derive(Debug, Args)]
pub(crate) struct HandlesArgs {
    /// List the handles of the session with this number. Requires the grant `admin`.
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    pub(crate) of: Option<u64>,

    /// List the handles of all users. Requires the grant `admin`.
    #[arg(long)]
    pub(crate) all: bool,

    /// Repeat the list until Ctrl-C, every SECONDS (default: 1).
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "1", value_parser = seconds)]
    pub(crate) watch: Option<f64>,
}

/// Print the completion script of a shell; bash, fish and zsh also complete method names.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// Show a manual page, or write all manual pages to a folder.
///
/// On a terminal, man(1) shows the page. Otherwise its source is printed (roff), for `man -l -`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The subcommand, such as `sniff` or `policy explain`, or the name of the page. Default: the page of the program.
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "folder")]
    pub(crate) page: Vec<String>,

    /// Write the page of the program and the page of each subcommand to this folder.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_a_subcommand_lists_only_accepted_options() {
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
                let option = option.replace('_', "-");
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
    fn shared_options_are_accepted_after_the_subcommand() {
        let cli = Cli::try_parse_from(["sockbroker", "info", "--broker", "unix:/x", "--json"]);
        let global = cli.unwrap().global;
        assert_eq!((global.broker.as_deref(), global.json), (Some("unix:/x"), true));
        assert!(Cli::try_parse_from(["sockbroker", "--private", "--broker", "a", "info"]).is_err());
    }
}
