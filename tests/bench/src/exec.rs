//! Suite `exec`: what `sockbroker exec` costs a program: its start, calls that are not about sockets, sockets that the
//! kernel gives it, and sockets of the broker.
//!
//! The same program runs natively and under the launcher, in turn.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::getppid;
use rustix::net::bind;
use sockbroker_client::Endpoint;
use sockbroker_client::blocking;
use sockbroker_launcher::{Ended, Inherited, Output, Plan};
use sockbroker_sys::identity;

use crate::broker::Broker;
use crate::error::{self, Result};
use crate::measure::{Sample, in_turn, median_seconds, number, ratio};
use crate::peers::Role;
use crate::report::{Report, Row, Target};

/// The user of the program. It has no account, and no capability.
const USER: u32 = 4_200_150;
const ROUNDS: usize = 9;
const POLICY: &str = "version = 1\n[[rule]]\nname = \"raw\"\nsubject = { uids = [4200150] }\n\
                      allow = [\"create\", \"handover\"]\nhandover = \"unrevocable\"\n\
                      family = [\"AF_INET\"]\ntype = [\"SOCK_RAW\"]\nprotocol = [\"IPPROTO_ICMP\"]\n";
/// The environment variable with the path of the broker's socket, for the launcher.
const BROKER: &str = "SOCKBROKER_BENCH_BROKER";

/// What the program does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A call that the filter passes.
    ParentId,
    /// A socket that the kernel gives every program.
    Plain,
    /// The same socket, with a port that the kernel selects.
    Bind,
    /// A socket that the kernel gives to root alone.
    Raw,
    /// A datagram of 1 KiB there and back.
    Data,
}

impl Action {
    const ALL: [Self; 5] = [Self::ParentId, Self::Plain, Self::Bind, Self::Raw, Self::Data];

    fn word(self) -> &'static str {
        match self {
            Self::ParentId => "getppid",
            Self::Plain => "plain",
            Self::Bind => "bind",
            Self::Raw => "raw",
            Self::Data => "data",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ParentId => "getppid()",
            Self::Plain => "socket() of UDP, and its close",
            Self::Bind => "the same with bind() to port 0",
            Self::Raw => "raw socket() by the broker, and its close",
            Self::Data => "1 KiB sent and received by UDP",
        }
    }

    fn most(self) -> f64 {
        match self {
            Self::ParentId => 1.3,
            Self::Plain => 1.05,
            Self::Bind => 3.0,
            Self::Raw => 15.0,
            Self::Data => 1.0,
        }
    }

    /// Returns the median of one action, in seconds.
    fn measure(self) -> Result<f64> {
        /// A clock read costs as much as a short call: such calls are measured in groups.
        const GROUP: usize = 1000;
        match self {
            Self::ParentId => {
                let group = median_seconds(60, || {
                    for _ in 0..GROUP {
                        std::hint::black_box(getppid());
                    }
                    Ok(())
                })?;
                Ok(group / number(GROUP))
            }
            Self::Plain => median_seconds(5000, || {
                drop(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None)?);
                Ok(())
            }),
            Self::Bind => {
                let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
                median_seconds(2000, || {
                    let kind = SockType::Datagram;
                    let made = socket(AddressFamily::Inet, kind, SockFlag::empty(), None)?;
                    Ok(bind(&made, &any)?)
                })
            }
            Self::Raw => median_seconds(500, || {
                let kind = SockType::Raw;
                drop(socket(AddressFamily::Inet, kind, SockFlag::empty(), SockProtocol::Icmp)?);
                Ok(())
            }),
            Self::Data => {
                let stream = UdpSocket::bind("127.0.0.1:0")?;
                stream.connect(stream.local_addr()?)?;
                let mut buffer = [0; 1024];
                median_seconds(5000, || {
                    stream.send(&buffer)?;
                    stream.recv(&mut buffer)?;
                    Ok(())
                })
            }
        }
    }
}

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

/// A running program that measures what it is told on standard input.
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

/// The role [`Role::Program`].
#[expect(clippy::print_stdout, reason = "the parent reads the figures there")]
pub(crate) fn program() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let action = Action::ALL.into_iter().find(|action| action.word() == line);
        println!("{:e}", action.ok_or("unknown action")?.measure()?);
    }
    Ok(())
}

/// The role [`Role::Launcher`]: `sockbroker exec` with the arguments of this process.
pub(crate) fn launcher() -> Result<ExitCode> {
    let inherited = Inherited::list()?;
    let endpoint = Endpoint::Unix(std::env::var_os(BROKER).ok_or("no broker")?.into());
    let connect = move || blocking::Broker::connect_to(&endpoint);
    let plan = Plan {
        arguments: std::env::args_os().skip(1).collect(),
        root: false,
        netns: None,
        output: Output::StandardError,
        killable: true,
        delay: Duration::ZERO,
    };
    Ok(match sockbroker_launcher::run(plan, connect()?, connect, &inherited)? {
        Ended::Code(code) => ExitCode::from(code),
        Ended::Signal(_) | Ended::Unsupervised => ExitCode::FAILURE,
    })
}
