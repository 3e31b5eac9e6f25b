//! The programs of suite `capture` that write packets to a file: `sockbroker sniff -w`, and tcpdump as the reference.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::broker::Broker;
use crate::cpu_time::{children_time, cpu_time, cpu_time_of};
use crate::error::Result;
use crate::peers;
use crate::traffic::RECEIVER;

/// A program that writes packets to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `sockbroker sniff -w`.
    Live,
    /// The same with `--bulk`.
    Bulk,
    /// `tcpdump -w`.
    Tcpdump,
}

/// What a program reports at its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded {
    /// Packets in the file.
    pub(crate) captured: f64,
    /// Packets that the kernel saw, with those that it dropped.
    pub(crate) seen: f64,
    pub(crate) dropped: f64,
    /// The CPU time of the program, and of the broker if it has a part in it, in seconds.
    pub(crate) cpu: f64,
}

/// The program of this project that captures, which is built beside this one.
pub(crate) fn command_line() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name("sockbroker");
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} is missing: build the package sockbroker-cli likewise", path.display()).into())
}

/// Whether tcpdump is installed.
pub(crate) fn has_tcpdump() -> bool {
    let version = Command::new("tcpdump").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// A program that captures. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    child: Child,
    errors: BufReader<ChildStderr>,
    broker: Option<&'a Broker>,
    /// The CPU time before the first packet: of the program, and of the broker.
    before: (f64, f64),
}

impl<'a> Recorder<'a> {
    /// Starts a program and waits until it captures. `output` is its standard output, for the file `-`.
    pub(crate) fn start(
        tool: Tool,
        broker: &'a Broker,
        file: &Path,
        output: Stdio,
    ) -> Result<Self> {
        let mut command = match tool {
            Tool::Live | Tool::Bulk => {
                let mut command = Command::new(command_line()?);
                command.arg("--broker").arg(format!("unix:{}", broker.path().display()));
                command.arg("sniff");
                if tool == Tool::Bulk {
                    command.arg("--bulk");
                }
                command
            }
            Tool::Tcpdump => {
                let mut command = Command::new("tcpdump");
                // It stays root, because the folder is private.
                command.args(["-n", "-Z", "root"]);
                command
            }
        };
        command.args(["-i", RECEIVER, "-w"]).arg(file);
        let mut child =
            command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).spawn()?;
        let mut errors = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut line = String::new();
        while !line.contains("listening on ") {
            line.clear();
            if errors.read_line(&mut line)? == 0 {
                peers::end(&mut child);
                return Err(format!("{tool:?} does not capture").into());
            }
        }
        let broker = (tool != Tool::Tcpdump).then_some(broker);
        let mut recorder = Self { child, errors, broker, before: (0.0, 0.0) };
        recorder.before = (cpu_time(recorder.process())?, recorder.broker_time()?);
        Ok(recorder)
    }

    pub(crate) fn process(&self) -> Pid {
        peers::process(&self.child)
    }

    fn broker_time(&self) -> Result<f64> {
        self.broker.map_or(Ok(0.0), |broker| cpu_time_of(&broker.processes()?))
    }

    /// Ends the program by SIGINT. Everything that it has captured is in its file then.
    pub(crate) fn stop(mut self) -> Result<Recorded> {
        kill(self.process(), Signal::SIGINT)?;
        let mut text = String::new();
        self.errors.read_to_string(&mut text)?;
        // The program is the only child that ends meanwhile.
        let earlier = children_time()?;
        let status = self.child.wait()?;
        let program = children_time()? - earlier - self.before.0;
        let cpu = program + self.broker_time()? - self.before.1;
        if !status.success() {
            return Err(format!("a program that captures failed: {status}: {text}").into());
        }
        let number = |what: &str| -> Result<f64> {
            let line = text.lines().find(|line| line.contains(what)).ok_or("no numbers")?;
            Ok(line.split(' ').next().unwrap_or_default().parse()?)
        };
        let (captured, seen) = (number(" captured")?, number(" received by filter")?);
        Ok(Recorded { captured, seen, dropped: number(" dropped by kernel")?, cpu })
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        peers::end(&mut self.child);
    }
}
