//! Programs that run to their end, with all they print, and not for ever.

use std::fmt::Write;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` if a signal ended it, or if it was too late.
    pub code: Option<i32>,
    /// What it printed, standard output before standard error.
    pub output: String,
}

/// Runs a program in a process group of its own. After `patience` the group is killed.
pub fn run(command: &mut Command, patience: Duration) -> Ended {
    let deadline = Instant::now() + patience;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let (printed, said) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let mut output = String::new();
    let mut late = false;
    for part in [printed, said] {
        let left = deadline.saturating_duration_since(Instant::now());
        match part.recv_timeout(left) {
            Ok(text) => output.push_str(&text),
            Err(_) => late = true,
        }
    }
    if late {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let killed = killpg(group, Signal::SIGKILL);
        write!(output, "\nkilled after {patience:?}: {killed:?}").unwrap();
    }
    let status = child.wait().unwrap();
    Ended { code: if late { None } else { status.code() }, output }
}

/// All that can be read from a pipe, once it ends.
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
