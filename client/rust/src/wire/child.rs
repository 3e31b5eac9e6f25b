//! A broker as a child process, spoken to over its standard input and output.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::wire::unix;

/// The name of the program.
const PROGRAM: &str = "sockbrokerd";
/// The variable that names the program to start.
const VARIABLE: &str = "SOCKBROKERD";
/// How long a child that was told to end may take, before it is left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A broker that ends with this value: its input is closed by then, and it is killed.
#[derive(Debug)]
pub(crate) struct ChildBroker(Child);

/// The command that starts a private broker: `$SOCKBROKERD`, else the program beside this one, else
/// what `PATH` has.
pub(crate) fn usual_command() -> Command {
    let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.with_file_name(PROGRAM)).filter(|program| program.is_file())
    };
    let mut command = Command::new(named.or_else(beside).unwrap_or_else(|| PROGRAM.into()));
    // It is the caller's own and can do what the caller can: the host's policy is not about it.
    command.args(["--stdio", "--built-in-policy"]);
    command
}

/// Starts a command with one socket as its standard input and output, so that descriptors can pass.
pub(crate) fn spawn(mut command: Command) -> Result<(UnixStream, ChildBroker)> {
    let mut start = || -> io::Result<_> {
        let (ours, theirs) = UnixStream::pair()?;
        let output = OwnedFd::from(theirs.try_clone()?);
        let child = command.stdin(OwnedFd::from(theirs)).stdout(output).spawn()?;
        Ok((unix::prepared(ours)?, ChildBroker(child)))
    };
    let started = start();
    // The command holds the child's end; as long as it does, the end of the child cannot be seen.
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let endpoint = Endpoint::Stdio(words.map(Into::into).collect());
    drop(command);
    started.map_err(|error| Error::Connect { attempts: vec![Attempt::new(&endpoint, &error)] })
}

impl Drop for ChildBroker {
    /// Nobody is left to be told if it cannot be killed or does not end; it is waited for no longer
    /// than a second.
    fn drop(&mut self) {
        drop(self.0.kill());
        let deadline = Instant::now() + LONGEST_WAIT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            pause();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a process that was killed ends within moments")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}
