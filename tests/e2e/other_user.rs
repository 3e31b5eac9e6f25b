//! A client that runs as another user than the broker, through socat.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sockbroker_test_support::message::request;
use sockbroker_test_support::skip::{program_or_skip, root_or_skip};
use sockbroker_test_support::user::NOBODY;
use sockbroker_test_support::{Answer, Daemon};

/// The user and the group of a client that no rule names.
pub(crate) const UNKNOWN: u32 = 4_200_009;

/// A client of another user, with newline-delimited JSON.
pub(crate) struct OtherUser {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl OtherUser {
    /// Connects a client of the user nobody, whom a rule of the broker has to name. Allows all users to reach the socket.
    pub(crate) fn nobody(broker: &Daemon) -> Self {
        Self::connect(broker, NOBODY)
    }

    /// Connects a client of an unknown user. Allows all users to reach the socket.
    pub(crate) fn unknown(broker: &Daemon) -> Self {
        Self::connect(broker, UNKNOWN)
    }

    fn connect(broker: &Daemon, uid: u32) -> Self {
        let mode = |bits| fs::Permissions::from_mode(bits);
        fs::set_permissions(broker.folder().path(), mode(0o711)).unwrap();
        fs::set_permissions(broker.socket(), mode(0o666)).unwrap();
        let mut command = Command::new("socat");
        command.arg("-").arg(format!("UNIX-CONNECT:{}", broker.socket().display()));
        command.uid(uid).gid(uid).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.current_dir("/").spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Answer {
        let line = format!("{}\n", request(1, method, params));
        self.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).expect("an answer").into()
    }
}

impl Drop for OtherUser {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Whether this machine can run such a client. Otherwise counts the test as skipped.
pub(crate) fn available_or_skip(test: &str) -> bool {
    root_or_skip(test) && program_or_skip("socat", test)
}
