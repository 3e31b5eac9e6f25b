//! The other processes of a measurement: this program again, in another role.
//!
//! A peer's socket is its standard input, and it ends with it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser as _;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sockbrokerd::startup::{self, args::Args};

use crate::client::LONGEST_WAIT;
use crate::measure::{BLOCK, FILLING, Result, hold_a_block};
use crate::report::warn;

/// The variable that tells a process its role. The broker's command line is left to the broker.
const VARIABLE: &str = "SOCKBROKER_BENCH_ROLE";
/// How much the echo reads at a time.
const ECHO_READ: usize = 64 << 10;

/// What a process of this program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `sockbrokerd`.
    Broker,
    /// Answers so many bytes with so many others: a blocking ping-pong, or a stream of both.
    Echo { request: usize, answer: usize },
    /// Writes without end.
    Source,
}

impl Role {
    /// The role of this process, unless it is the one that measures.
    pub(crate) fn of_this_process() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let mut words = text.split(' ');
        let word = words.next();
        let mut size = || words.next()?.parse().ok();
        match word? {
            "broker" => Some(Self::Broker),
            "echo" => Some(Self::Echo { request: size()?, answer: size()? }),
            "source" => Some(Self::Source),
            _ => None,
        }
    }

    fn spelt(self) -> String {
        match self {
            Self::Broker => "broker".to_owned(),
            Self::Echo { request, answer } => format!("echo {request} {answer}"),
            Self::Source => "source".to_owned(),
        }
    }

    /// Does what the role asks until it is over.
    pub(crate) fn play(self) -> ExitCode {
        // A benchmark that was killed leaves nothing behind.
        if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
            warn(&error.to_string());
        }
        let result = match self {
            Self::Broker => startup::run(&Args::parse()).map_err(|error| error.to_string()),
            Self::Echo { request, answer } => {
                echo(request, answer).map_err(|error| error.to_string())
            }
            Self::Source => source().map_err(|error| error.to_string()),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                warn(&format!("{}: {error}", self.spelt()));
                ExitCode::FAILURE
            }
        }
    }

    /// This program in this role.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VARIABLE, self.spelt());
        Ok(command)
    }
}

/// A peer with a socket to it; ends when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
}

impl Peer {
    /// Starts a peer, and gives the other end of its socket.
    pub(crate) fn start(role: Role) -> Result<(Self, UnixStream)> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_read_timeout(Some(LONGEST_WAIT))?;
        let child = role.command()?.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok((Self { child }, own))
    }

    /// Its number.
    pub(crate) fn process(&self) -> Pid {
        process(&self.child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A child's number.
pub(crate) fn process(child: &Child) -> Pid {
    // A process number fits: the kernel's type is the signed one.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Ends a child at once. One that has ended already needs nothing more.
pub(crate) fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

fn standard_input() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

fn echo(request: usize, answer: usize) -> io::Result<()> {
    let mut stream = standard_input()?;
    let mut buffer = vec![0; ECHO_READ];
    let answers = vec![FILLING; ECHO_READ.max(answer)];
    let mut received = 0;
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        received += n;
        let mut owed = (received / request) * answer;
        received %= request;
        while owed > 0 {
            let some = answers.get(..owed).unwrap_or(&answers);
            stream.write_all(some)?;
            owed -= some.len();
        }
    }
}

fn source() -> io::Result<()> {
    let mut stream = standard_input()?;
    hold_a_block(&stream)?;
    let block = vec![FILLING; BLOCK];
    loop {
        match stream.write_all(&block) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}
