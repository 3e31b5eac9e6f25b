//! The program under test, and brokers for it.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use sockbroker_test_support::{Daemon, Start};

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbroker");
/// Seconds after which it is killed.
const LONGEST_WAIT: &str = "300";

/// A broker: the program's other part.
pub(crate) fn broker() -> Daemon {
    Start::new(PROGRAM).shell("set -- broker \"$@\"").start()
}

/// The program with these arguments, no environment of the broker's, and an end to its time.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "1", LONGEST_WAIT, PROGRAM]).args(arguments);
    for variable in ["SOCKBROKER", "SOCKBROKER_SESSION", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// The exit code.
    pub(crate) code: i32,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap(),
        }
    }
}

impl Ran {
    /// The output of a run that went well.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// The same, read as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.done()).expect("JSON")
    }

    /// The one line that a failed run said.
    pub(crate) fn failed_with(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        let line = self.err.strip_suffix('\n').expect("a line");
        assert!(line.starts_with("sockbroker: ") && !line.contains('\n'), "not one line: {line}");
        line.to_owned()
    }
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    command(arguments).output().unwrap().into()
}

/// Runs it to its end with this input.
pub(crate) fn run_with(arguments: &[&str], input: &[u8]) -> Ran {
    feed(start(arguments), input).wait_with_output().unwrap().into()
}

/// Runs it to its end with a broker.
pub(crate) fn ask(broker: &Daemon, arguments: &[&str]) -> Ran {
    let endpoint = endpoint(broker);
    run(&[&["--broker", &endpoint], arguments].concat())
}

/// The endpoint of a broker.
pub(crate) fn endpoint(broker: &Daemon) -> String {
    format!("unix:{}", broker.socket().display())
}

/// Starts it, with a pipe for its input.
pub(crate) fn start(arguments: &[&str]) -> Child {
    command(arguments).stdin(Stdio::piped()).spawn().unwrap()
}

/// Gives it this input and no more.
pub(crate) fn feed(mut child: Child, input: &[u8]) -> Child {
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input).unwrap();
    child
}
