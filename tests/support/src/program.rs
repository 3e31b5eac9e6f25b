//! Runs a program with a deadline, and collects its output.

use std::fmt::Write;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The exit code and the output of a program.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended the program, or if it was killed at the deadline.
    pub code: Option<i32>,
    /// Standard output, then standard error.
    pub output: String,
}

/// Runs a program in a new process group. Kills the group after `timeout`.
pub fn run(command: &mut Command, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (printed, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let mut output = String::new();
    let mut late = false;
    for part in [printed, errors] {
        let left = deadline.saturating_duration_since(Instant::now());
        match part.recv_timeout(left) {
            Ok(text) => output.push_str(&text),
            Err(_) => late = true,
        }
    }
    if late {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let killed = killpg(group, Signal::SIGKILL);
        write!(output, "\nkilled after {timeout:?}: {killed:?}").unwrap();
    }
    let status = child.wait().unwrap();
    Outcome { code: if late { None } else { status.code() }, output }
}

/// Reads a pipe to its end on a thread.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
    receiver
}
