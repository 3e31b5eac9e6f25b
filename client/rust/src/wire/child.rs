//! A private broker: a child process that serves its standard input and output.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::unix;
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};

/// The name of the program.
const PROGRAM: &str = "sockbrokerd";
/// The environment variable that names the program to start.
const VARIABLE: &str = "SOCKBROKERD";
/// How long dropping waits for a killed child to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The child process. Dropping this value kills it and reaps it.
#[derive(Debug)]
pub(crate) struct ChildBroker(Child);

/// The command that starts a private broker: `$SOCKBROKERD`, else `sockbrokerd` in the folder of the
/// current program, else `sockbrokerd` in `PATH`.
pub(crate) fn default_command() -> Command {
    let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let sibling = || {
        let current = std::env::current_exe().ok()?;
        Some(current.with_file_name(PROGRAM)).filter(|program| program.is_file())
    };
    let mut command = Command::new(named.or_else(sibling).unwrap_or_else(|| PROGRAM.into()));
    // A private broker has no more privileges than its caller, so the host's policy does not apply.
    command.args(["--stdio", "--built-in-policy"]);
    command
}

/// The command of an [`Endpoint::Stdio`].
pub(crate) fn command_of(words: &[OsString]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().cloned().unwrap_or_default());
    command.args(words);
    command
}

/// The [`Endpoint::Stdio`] of a command.
pub(crate) fn endpoint_of(command: &Command) -> Endpoint {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    Endpoint::Stdio(words.map(Into::into).collect())
}

/// Starts a command with one Unix socket as its standard input and output, so that descriptors can
/// be passed over it.
pub(crate) fn spawn(mut command: Command) -> Result<(UnixStream, ChildBroker)> {
    let mut start = || -> io::Result<_> {
        let (ours, theirs) = UnixStream::pair()?;
        let output = OwnedFd::from(theirs.try_clone()?);
        let child = command.stdin(OwnedFd::from(theirs)).stdout(output).spawn()?;
        Ok((unix::with_send_buffer(ours)?, ChildBroker(child)))
    };
    let started = start();
    let endpoint = endpoint_of(&command);
    // `Command` keeps the child's end of the socket. While it is open, the child's exit cannot be
    // seen on our end.
    drop(command);
    started.map_err(|error| Error::Connect { attempts: vec![Attempt::new(&endpoint, &error)] })
}

impl Drop for ChildBroker {
    /// Best effort: an error of kill or wait has no receiver.
    fn drop(&mut self) {
        drop(self.0.kill());
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            pause();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a killed process exits within moments")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}
