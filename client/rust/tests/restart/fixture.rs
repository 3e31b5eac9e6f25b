//! A broker whose service manager keeps its sockets, and the ways in which its processes end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use sockbroker_client::{Config, Endpoint};
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::{HANG, binary};

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process that serves the session.
    Worker,
    /// The service, without a warning.
    Crash,
    /// The service, in order.
    Restart,
}

impl End {
    pub(crate) const ALL: [Self; 3] = [Self::Worker, Self::Crash, Self::Restart];
}

/// A broker. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    answers: BufReader<ChildStdout>,
    socket: PathBuf,
}

impl Service {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/restart/serve.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(binary::broker())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut path = String::new();
        answers.read_line(&mut path).unwrap();
        assert!(path.starts_with('/'), "the broker did not start");
        Self { child, answers, socket: path.trim_end().into() }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket.clone())
    }

    /// Sends a command to the stand-in, and waits until it is done.
    pub(crate) fn command(&mut self, name: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{name}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), name);
    }

    /// Ends a process of the broker, whose worker has this number.
    pub(crate) fn end(&mut self, end: End, worker: u32) {
        match end {
            End::Worker => kill_process(worker),
            End::Crash => self.command("crash"),
            End::Restart => self.command("restart"),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

pub(crate) fn persistent() -> Config {
    Config::new().persist(true)
}

/// A native listener, and connections to it that do not wait for ever.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

pub(crate) fn bounded_stream(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    stream
}

/// Bytes without a period that a lost or repeated part could hide in.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

/// A time that is long for a call, and short for a test.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
