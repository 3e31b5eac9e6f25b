//! Suite `exec`: what `sockbroker exec` costs a program: its start, calls that are not about sockets, sockets that the
//! kernel gives it, and sockets of the broker.
//!
//! The same program runs natively and under the launcher, in turn.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sockbroker_sys::identity;

use crate::broker::Broker;
use crate::error::{self, Result};
use crate::measure::{Sample, in_turn, median_seconds, ratio};
use crate::peers::Role;
use crate::program::{Action, BROKER};
use crate::report::{Report, Row, Target};

/// The user of the program. It has no account, and no capability.
const USER: u32 = 4_200_150;
const ROUNDS: usize = 9;
const POLICY: &str = "version = 1\n[[rule]]\nname = \"raw\"\nsubject = { uids = [4200150] }\n\
                      allow = [\"create\", \"handover\"]\nhandover = \"unrevocable\"\n\
                      family = [\"AF_INET\"]\ntype = [\"SOCK_RAW\"]\nprotocol = [\"IPPROTO_ICMP\"]\n";

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        error::report("exec: not measured: needs root, to run the program as another user");
        return Ok(());
    }
    let broker = Broker::start_with("", POLICY)?;
    broker.open_to_all()?;
    let program = Executable::copy()?;
    let mut launched = Program::start(launched(&broker, &program))?;
    let mut native = Program::start(role_command(Role::Program, &program))?;
    for action in Action::ALL {
        let rounds = in_turn(ROUNDS, || launched.measure(action), || native.measure(action))?;
        let row = Row::new(action.name(), Sample::map(&rounds, ratio), "x native");
        report.add(row.target(Target::AtMost(action.most())));
    }
    drop((launched, native));
    let start = |mut command: Command| {
        median_seconds(20, || match command.stdin(Stdio::null()).status()? {
            status if status.success() => Ok(()),
            status => Err(format!("the program failed: {status}").into()),
        })
    };
    let rounds = in_turn(
        ROUNDS,
        || start(launched_as(&broker, &program, &["/bin/true".into()])),
        || start(Command::new("/bin/true")),
    )?;
    let more = Sample::map(&rounds, |(ours, theirs)| (ours - theirs) * 1e3);
    let row = Row::new("start and end, more than natively", more, "ms");
    report.add(row.target(Target::AtMost(3.0)));
    Ok(())
}

/// A copy of this program, which other users can execute wherever this one is.
struct Executable(PathBuf);

impl Executable {
    fn copy() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sockbroker-bench-{}", std::process::id()));
        fs::copy(std::env::current_exe()?, &path)?;
        Ok(Self(path))
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn role_command(role: Role, program: &Executable) -> Command {
    let mut command = Command::new(&program.0);
    command.envs([role.variable()]);
    command
}

/// The command that runs the program under the launcher, as another user.
fn launched(broker: &Broker, program: &Executable) -> Command {
    let (variable, value) = Role::Program.variable();
    let words = ["/usr/bin/env".into(), format!("{variable}={value}"), text(&program.0)];
    launched_as(broker, program, &words)
}

fn launched_as(broker: &Broker, program: &Executable, words: &[String]) -> Command {
    let mut command = role_command(Role::Launcher, program);
    command.env(BROKER, broker.path()).args(words).uid(USER).gid(USER);
    command
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A running program that measures what its standard input names.
struct Program {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = child.stdin.take();
        let answers = child.stdout.take().ok_or("no standard output")?;
        Ok(Self { child, requests, answers: BufReader::new(answers) })
    }

    fn measure(&mut self, action: Action) -> Result<f64> {
        let requests = self.requests.as_mut().ok_or("no standard input")?;
        writeln!(requests, "{}", action.word())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse().map_err(|_nothing| format!("{}: no answer", action.name()))?)
    }
}

impl Drop for Program {
    /// The program ends with its standard input.
    fn drop(&mut self) {
        drop(self.requests.take());
        drop(self.child.wait());
    }
}
