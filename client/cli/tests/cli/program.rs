//! Runs the program under test, and starts brokers for it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use sockbroker_test_support::daemon::terminate_process;
use sockbroker_test_support::{Daemon, Start};

/// The path of the program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbroker");
/// The seconds after which timeout(1) ends the program.
const LONGEST_WAIT: &str = "300";

/// Starts a broker with the hidden subcommand `broker`.
pub(crate) fn broker() -> Daemon {
    Start::new(PROGRAM).shell("set -- broker \"$@\"").start()
}

/// Returns the command with these arguments, without the broker's environment variables, under timeout(1).
pub(crate) fn command(arguments: &[&str]) -> Command {
    command_of(Path::new(PROGRAM), arguments)
}

/// Like [`command`], by another path of the program.
pub(crate) fn command_of(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "1", LONGEST_WAIT]).arg(program).args(arguments);
    for variable in ["SOCKBROKER", "SOCKBROKER_SESSION", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The output and the exit code of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap(),
        }
    }
}

impl Outcome {
    /// Returns standard output. Fails if the exit code is not 0.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Like [`Outcome::success`], parsed as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.success()).expect("JSON")
    }

    /// Returns the one line on standard error. Fails if the exit code differs from `code`.
    pub(crate) fn failure(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        let line = self.err.strip_suffix('\n').expect("a line");
        assert!(line.starts_with("sockbroker: ") && !line.contains('\n'), "not one line: {line}");
        line.to_owned()
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    command(arguments).output().unwrap().into()
}

/// Runs the program to its end with this standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &[u8]) -> Outcome {
    feed(start(arguments), input).wait_with_output().unwrap().into()
}

/// Runs the program to its end against this broker.
pub(crate) fn run_at(broker: &Daemon, arguments: &[&str]) -> Outcome {
    let endpoint = endpoint(broker);
    run(&[&["--broker", &endpoint], arguments].concat())
}

/// Returns the endpoint of a broker for `--broker`.
pub(crate) fn endpoint(broker: &Daemon) -> String {
    format!("unix:{}", broker.socket().display())
}

/// Ends a program that runs under timeout(1). timeout(1) itself ends without its child if a signal reaches it directly
/// after its fork, and otherwise passes it on twice: the second one can end the program at once.
pub(crate) fn end(process: &mut Child) -> ExitStatus {
    let parent = process.id();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    if let Ok(child) = children.unwrap_or_default().trim().parse() {
        terminate_process(child);
    }
    process.wait().unwrap()
}

/// Starts the program with a pipe as its standard input.
pub(crate) fn start(arguments: &[&str]) -> Child {
    command(arguments).stdin(Stdio::piped()).spawn().unwrap()
}

/// Writes the standard input of the program and closes it.
pub(crate) fn feed(mut child: Child, input: &[u8]) -> Child {
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input).unwrap();
    child
}
