//! The other processes of a measurement: this program in another role.
//!
//! A peer uses its standard input as its socket, and ends when the socket is closed.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser as _;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sockbroker_sys::socket;
use sockbroker_sys::stream::send_stream;
use sockbrokerd::startup::{self, args::Args};

use crate::client::{BLOCK, TIMEOUT, set_send_buffer};
use crate::error::{self, Result};
use crate::measure::FILLING;
use crate::{link_peers, opener_peer, program, remote_lab};

/// The environment variable with the role of a process. The command line belongs to the broker.
const VARIABLE: &str = "SOCKBROKER_BENCH_ROLE";
/// The read size of the echo.
const ECHO_READ: usize = 64 << 10;

/// The role of a process of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `sockbrokerd`.
    Broker,
    /// Answers each request with an answer, both of fixed length: a blocking ping-pong, or a stream of both.
    Echo { request: usize, answer: usize },
    /// The same over TLS. The folder of the certificates is its current one.
    TlsEcho { request: usize, answer: usize },
    /// Serves connections behind a link with a delay.
    LinkServer,
    /// Measures from the other end of that link. Both are ports.
    LinkClient { broker: u16, source: u16 },
    /// Writes until the socket is closed.
    Source,
    /// Answers each byte with a new raw socket.
    Opener,
    /// The opener of a broker, alone.
    BareOpener,
    /// `sockbroker exec`.
    Launcher,
    /// The program that `sockbroker exec` runs.
    Program,
}

impl Role {
    /// Returns the role of this process, unless it is the one that measures.
    pub(crate) fn of_this_process() -> Option<Self> {
        // A process that the broker started, without the variables of its environment.
        if std::env::args().nth(1).is_some_and(|first| first == "--role") {
            return Some(Self::Broker);
        }
        let text = std::env::var(VARIABLE).ok()?;
        let mut words = text.split(' ');
        let word = words.next();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let mut numbers = numbers.into_iter();
        let mut size = || numbers.next();
        match word? {
            "broker" => Some(Self::Broker),
            "echo" => Some(Self::Echo { request: size()?, answer: size()? }),
            "tls-echo" => Some(Self::TlsEcho { request: size()?, answer: size()? }),
            "link-server" => Some(Self::LinkServer),
            "link-client" => {
                let mut port = || u16::try_from(size()?).ok();
                Some(Self::LinkClient { broker: port()?, source: port()? })
            }
            "source" => Some(Self::Source),
            "opener" => Some(Self::Opener),
            "bare-opener" => Some(Self::BareOpener),
            "launcher" => Some(Self::Launcher),
            "program" => Some(Self::Program),
            _ => None,
        }
    }

    fn to_argument(self) -> String {
        match self {
            Self::Broker => "broker".to_owned(),
            Self::Echo { request, answer } => format!("echo {request} {answer}"),
            Self::TlsEcho { request, answer } => format!("tls-echo {request} {answer}"),
            Self::LinkServer => "link-server".to_owned(),
            Self::LinkClient { broker, source } => format!("link-client {broker} {source}"),
            Self::Source => "source".to_owned(),
            Self::Opener => "opener".to_owned(),
            Self::BareOpener => "bare-opener".to_owned(),
            Self::Launcher => "launcher".to_owned(),
            Self::Program => "program".to_owned(),
        }
    }

    /// Runs the role to its end.
    pub(crate) fn run(self) -> ExitCode {
        // If the benchmark is killed, its peers end too.
        if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
            error::report(&error.to_string());
        }
        let result = match self {
            Self::Broker => startup::run(&Args::parse()).map_err(|error| error.to_string()),
            Self::Echo { request, answer } => {
                echo(request, answer).map_err(|error| error.to_string())
            }
            Self::TlsEcho { request, answer } => {
                tls_echo(request, answer).map_err(|error| error.to_string())
            }
            Self::LinkServer => link_peers::serve().map_err(|error| error.to_string()),
            Self::LinkClient { broker, source } => {
                link_peers::client(broker, source).map_err(|error| error.to_string())
            }
            Self::Source => source().map_err(|error| error.to_string()),
            Self::Opener => answer_with_sockets().map_err(|error| error.to_string()),
            Self::BareOpener => standard_input()
                .and_then(|stream| opener_peer::run(&stream))
                .map_err(|error| error.to_string()),
            Self::Program => program::run().map_err(|error| error.to_string()),
            Self::Launcher => match program::launch() {
                Ok(code) => return code,
                Err(error) => Err(error.to_string()),
            },
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error::report(&format!("{}: {error}", self.to_argument()));
                ExitCode::FAILURE
            }
        }
    }

    /// Returns the command that starts this program in this role.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.envs([self.variable()]);
        Ok(command)
    }

    /// Returns the environment variable that gives a process of this program this role, and its value.
    pub(crate) fn variable(self) -> (&'static str, String) {
        (VARIABLE, self.to_argument())
    }
}

/// A peer process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
}

impl Peer {
    /// Starts a peer and returns the other end of its socket.
    pub(crate) fn start(role: Role) -> Result<(Self, UnixStream)> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_read_timeout(Some(TIMEOUT))?;
        let child = role.command()?.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok((Self { child }, own))
    }

    /// Starts a peer that serves a connection, in a folder.
    pub(crate) fn serving(role: Role, connection: OwnedFd, folder: &Path) -> Result<Self> {
        let mut command = role.command()?;
        Ok(Self { child: command.current_dir(folder).stdin(Stdio::from(connection)).spawn()? })
    }

    /// Returns the process ID.
    pub(crate) fn process(&self) -> Pid {
        process(&self.child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Returns the process ID of a child.
pub(crate) fn process(child: &Child) -> Pid {
    // The conversion cannot fail: the kernel's type is signed.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Kills a child, if it still runs.
pub(crate) fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

fn standard_input() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

fn tls_echo(request: usize, answer: usize) -> Result<()> {
    let tcp = TcpStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    Ok(echo_over(remote_lab::accept(Path::new("."), tcp)?, request, answer)?)
}

fn echo(request: usize, answer: usize) -> io::Result<()> {
    echo_over(standard_input()?, request, answer)
}

fn echo_over(mut stream: impl Read + Write, request: usize, answer: usize) -> io::Result<()> {
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

fn answer_with_sockets() -> io::Result<()> {
    let mut stream = standard_input()?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        let made = socket::create(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
        send_stream(stream.as_fd(), &[IoSlice::new(&byte)], &[made.as_fd()])?;
    }
    Ok(())
}

fn source() -> io::Result<()> {
    let mut stream = standard_input()?;
    set_send_buffer(&stream)?;
    let block = vec![FILLING; BLOCK];
    loop {
        match stream.write_all(&block) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}
