//! `sockbroker exec`: runs an unmodified program, and gives it the sockets that the kernel refuses.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use serde_json::json;
use sockbroker_client::blocking::Broker;
use sockbroker_client::{Endpoint, Error};
use sockbroker_launcher::{Ended, Inherited, LaunchError, Output, Plan};
use sockbroker_proto::api::policy::Effective;

use crate::connection::{CALLER, Connection, decode, failure};
use crate::failure::{Exit, Failure};
use crate::global::Global;

/// Run an unmodified program with sockets of the broker.
///
/// The kernel makes every call of the program. If it refuses a raw socket, a packet socket, a port below
/// 1024 or a privileged option, the broker makes this call on the program's own socket, under its policy.
/// Data does not pass through the broker. Static programs, threads and child processes are served too. A
/// call that the policy refuses is reported once, with the rule and the missing grant.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  that of the program; it also ends by the program's signal
  1    the namespace of --netns does not exist, or no rule names it
  2    the command line is wrong
  69   no broker answers
  71   the program could not be put under the filter, or the supervisor has
       ended before it
  126  the program cannot be executed
  127  there is no such program

Security:
  What the policy grants to you the program can use, and so can every
  program that it starts.
  Programs in a sandbox that shares the network of the host have the sockets
  too. Run exec inside a sandbox that should have them, and not around one
  that should not.
  The program runs with no_new_privs: sudo, su, ping with file capabilities
  and other programs that gain privileges when they are executed do not gain
  them.
  A raw or packet socket cannot be revoked, and its holder can send any
  packet. The broker passes one only under a rule with
  handover = \"unrevocable\".

Network namespaces:
  The sockets are in the network namespace of this program, also if the
  broker has another one.
  With --netns NAME the broker makes every socket, except AF_UNIX, in the
  namespace NAME, and none is made if the broker refuses it. If NAME does not
  exist, or no rule names it, the program is not started. The files of
  /etc/netns/NAME replace those of /etc, and the program has no other
  network, where this system permits user namespaces: otherwise a line
  reports that it does not.
  /proc/net and /sys/class/net do not show the namespace NAME, and programs
  that ask D-Bus for names get those of this machine.

Limits:
  Programs in another network namespace are not served. io_uring is not
  served. Programs that other processes of the user must not inspect
  (PR_SET_DUMPABLE) are not served.
  A signal whose handler has no SA_RESTART can interrupt socket(2), which
  then fails with EINTR.
  nmap also needs NMAP_PRIVILEGED=1 in its environment, or --root.

Examples:
  sockbroker exec python3 -m http.server 80
  sockbroker exec tcpdump -i eth0
  sockbroker exec --netns lab1 curl http://192.0.2.1/
  sockbroker exec --root dhcping -s 192.0.2.1")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct ExecArgs {
    /// Let the program see itself as root, in a user namespace. For programs that test for root.
    #[arg(long)]
    root: bool,

    /// Make all sockets of the program in this network namespace: a name of `ip netns list`. `caller`, the
    /// default, is that of this program.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,

    /// If no broker answers, run the program without one.
    #[arg(long)]
    optional: bool,

    /// Do not report refused calls.
    #[arg(long, conflicts_with = "log")]
    quiet: bool,

    /// Report refused calls in this file, not on standard error.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    log: Option<PathBuf>,

    /// Let any signal interrupt a call in progress, as before Linux 5.19.
    #[arg(long, hide = true)]
    no_killable: bool,

    /// Wait for this many milliseconds before each call of the broker.
    #[arg(long, value_name = "MILLISECONDS", hide = true, default_value_t = 0)]
    delay: u64,

    /// The program, and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM",
        value_hint = ValueHint::CommandWithArguments
    )]
    program: Vec<OsString>,
}

pub(crate) fn run(global: &Global, args: &ExecArgs) -> Result<Exit, Failure> {
    if global.private || global.json {
        return Err(Failure::usage("exec does not accept --private or --json"));
    }
    let inherited = Inherited::list()
        .map_err(|error| Failure::system("cannot list the open descriptors", &error))?;
    let connect = Connection::connector(global)?;
    let broker = match connect() {
        Ok(broker) => broker,
        Err(Error::Connect { .. }) if args.optional => {
            return sockbroker_launcher::execute(args.program.clone())
                .map_or_else(|error| Err(launch_failure(&error)), |ended| Ok(exit_of(ended)));
        }
        Err(error) => return Err(failure("connect", &error)),
    };
    if !matches!(broker.endpoint(), Endpoint::Unix(_)) {
        let endpoint = broker.endpoint();
        let text = format!("exec needs a broker on this machine: {endpoint} passes no sockets");
        return Err(Failure::usage(text));
    }
    let netns = args.netns.clone().filter(|netns| netns != CALLER);
    if let Some(netns) = &netns {
        require_grant(&broker, netns)?;
    }
    let plan = Plan {
        arguments: args.program.clone(),
        root: args.root,
        netns,
        output: output(args)?,
        killable: !args.no_killable,
        delay: Duration::from_millis(args.delay),
    };
    let ended = sockbroker_launcher::run(plan, broker, connect, &inherited);
    ended.map(exit_of).map_err(|error| launch_failure(&error))
}

/// Fails if no rule names the network namespace: every call of the program would be refused.
fn require_grant(broker: &Broker, netns: &str) -> Result<(), Failure> {
    const CALL: &str = "policy.whoami";
    let found = broker.call(CALL, json!([])).map_err(|error| failure(CALL, &error))?;
    let Effective { owner, rules, .. } = decode(CALL, found)?;
    if owner || rules.iter().any(|rule| names_netns(&rule.says, netns)) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "--netns: EACCES: no rule allows sockets of the network namespace {netns}; a rule that allows them has: netns = [{netns:?}]"
        ),
    ))
}

/// Whether a rule allows something in a network namespace, by its text in the rule language.
fn names_netns(says: &str, netns: &str) -> bool {
    let Some((_, list)) = says.split_once("netns = [") else { return false };
    let list = list.split(']').next().unwrap_or_default();
    let named = |value: &str| [netns, "any"].contains(&value.trim().trim_matches('"'));
    says.starts_with("allow") && list.split(',').any(named)
}

fn output(args: &ExecArgs) -> Result<Output, Failure> {
    Ok(match &args.log {
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            Output::File(file.map_err(|error| {
                Failure::stream(&format!("cannot open {}", path.display()), &error)
            })?)
        }
        None if args.quiet => Output::Discarded,
        None => Output::StandardError,
    })
}

fn exit_of(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Program(code),
        // The code that a shell reports for the signal.
        Ended::Signal(signal) => {
            Exit::Program(u8::try_from(signal).unwrap_or_default().saturating_add(128))
        }
        Ended::Unsupervised => Exit::System,
    }
}

fn launch_failure(error: &LaunchError) -> Failure {
    match error {
        LaunchError::Network(error) => failure("--netns", error),
        LaunchError::Argument(_) | LaunchError::System { .. } => {
            Failure::new(Exit::System, format!("cannot start the program: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_name_a_namespace_are_found() {
        for (says, expected) in [
            ("allow = [\"create\"], netns = [\"lab1\", \"lab2\"]", true),
            ("allow = [\"create\"], netns = [\"any\"]", true),
            ("allow = [\"create\"], netns = [\"lab10\"], path = [\"lab2\"]", false),
            ("allow = [\"create\"]", false),
            ("deny = [\"create\"], netns = [\"lab2\"]", false),
        ] {
            assert_eq!(names_netns(says, "lab2"), expected, "{says}");
        }
    }
}
