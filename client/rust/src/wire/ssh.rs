//! Reaching a broker through ssh: by a forwarded socket, or else by a program on the other host.
//!
//! A forwarded socket serves any number of connections over one connection of ssh. They are not sessions of sshd
//! (`MaxSessions`). The user of the login connects to the broker. Where sshd forbids to forward sockets,
//! `sockbroker dial-stdio` carries one connection.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use super::private_folder::PrivateFolder;
use super::unix::{self, Interest, Readiness};
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::host_files;
use crate::ssh_target::SshTarget;

/// How long ssh may take to log in, and to forward the socket or to reach the broker, without and with a person who
/// answers its questions.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(45);
const LOGIN_TIMEOUT_INTERACTIVE: Duration = Duration::from_secs(150);
/// How long a broker may take to answer through ssh.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the client tries whether ssh has created the socket.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// The most bytes of the messages of ssh that an error contains.
const LOG_BYTES_MAX: u64 = 4096;
/// A request that every broker answers.
const PROBE: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"socket.htons\",\"params\":[1]}\n";

/// Starts ssh, and ends it once standard input ends: when the client drops its end of the pipe, or when it is killed.
/// `PR_SET_PDEATHSIG` would already act at the end of the thread that started ssh. At SIGTERM, ssh ends the program of
/// `ProxyCommand` and restores the terminal. It can notice a SIGTERM that comes just before it waits as late as
/// `ServerAliveInterval`: further ones follow, and SIGKILL at last, after which that program remains. The folder is
/// removed after ssh has ended, and then standard output ends. Ctrl-C reaches the client alone, which can then still use
/// the broker.
const FORWARD_SCRIPT: &str = r#"trap '' INT QUIT
exec 3<&0
folder=$1
shift
ssh "$@" </dev/null >/dev/null 3<&- &
ssh=$!
trap '' HUP TERM
{ read -r line <&3; for _ in 1 2 3 4 5; do kill $ssh; sleep 1 3<&-; done; kill -9 $ssh; } >/dev/null 2>&1 &
watcher=$!
wait $ssh
kill -9 $watcher
rm -rf -- "$folder""#;
/// Starts ssh with standard input in both directions, and ends it like the other script, once the socket that is standard
/// output closes. ssh alone does not notice the end of the client while it has nothing to write.
const PROGRAM_SCRIPT: &str = r#"trap '' INT QUIT
exec 3<&1 4<&0
ssh "$@" <&4 >&4 3<&- 4<&- &
ssh=$!
exec 4<&- </dev/null >/dev/null
trap '' HUP TERM
{ read -r line <&3; for _ in 1 2 3 4 5; do kill $ssh; sleep 1 3<&-; done; kill -9 $ssh; } 2>/dev/null &
watcher=$!
wait $ssh
kill -9 $watcher"#;

/// A way to a broker.
#[derive(Debug)]
pub(crate) enum Connected {
    Forward(Forward),
    Program(UnixStream, Program),
}

/// The running ssh that forwards the socket. Dropping this value ends it.
#[derive(Debug)]
pub(crate) struct Forward {
    child: Child,
    folder: PrivateFolder,
    log: Log,
    target: SshTarget,
}

/// The running ssh whose standard input and output lead to the broker. Dropping this value ends it.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    /// ssh ends when it is closed.
    lifeline: Option<UnixStream>,
    log: Log,
    target: SshTarget,
}

/// The messages of ssh, in a file without a name.
#[derive(Debug)]
struct Log(File);

impl Log {
    fn new() -> io::Result<Self> {
        let file = memfd_create("sockbroker-ssh", MemfdFlags::CLOEXEC)?;
        Ok(Self(file.into()))
    }

    /// Adds the last messages to a text.
    fn added_to(&self, what: &str) -> String {
        let messages = self.messages();
        if messages.is_empty() { what.to_owned() } else { format!("{what}: {messages}") }
    }

    /// The last messages, without what ssh draws around them, and without its own name.
    fn messages(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let length = self.0.metadata()?.len();
            let mut text = vec![0; usize::try_from(length.min(LOG_BYTES_MAX)).unwrap_or_default()];
            self.0.read_exact_at(&mut text, length.saturating_sub(LOG_BYTES_MAX))?;
            Ok(text)
        };
        let text = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // ssh draws frames of `@` around warnings.
        let is_frame = |one: char| one == '@' || one.is_whitespace();
        let lines = text.lines().map(|line| line.trim_matches(is_frame));
        let lines = lines.map(|line| line.strip_prefix("ssh: ").unwrap_or(line));
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

/// Connects. The error contains the messages of ssh.
pub(crate) fn connect(target: &SshTarget) -> Result<Connected> {
    let forward = Forward::start(target)?;
    let deadline = Instant::now() + login_timeout();
    let stream = forward.wait_for_socket(deadline)?;
    match answers(&stream) {
        Ok(true) => Ok(Connected::Forward(forward)),
        // sshd forbids to forward, or cannot connect: it does not report which. The program on the other host does.
        Ok(false) => {
            drop(forward);
            let (stream, program) = Program::start(target)?;
            Ok(Connected::Program(stream, program))
        }
        Err(error) => Err(forward.failure(&format!("the broker does not answer: {error}"))),
    }
}

/// Whether a broker answers; `false` if ssh closes the connection first.
fn answers(stream: &UnixStream) -> io::Result<bool> {
    let gone = |error: &io::Error| {
        [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind())
    };
    match unix::send(stream, &[IoSlice::new(PROBE)], &[]) {
        Err(error) if gone(&error) => return Ok(false),
        result => result?,
    };
    if unix::wait(stream, Interest::Readable, Some(Instant::now() + ANSWER_TIMEOUT))?
        == Readiness::TimedOut
    {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match unix::receive(stream, &mut [0], &mut VecDeque::new()) {
        Err(error) if gone(&error) => Ok(false),
        result => Ok(result?.bytes > 0),
    }
}

impl Forward {
    fn start(target: &SshTarget) -> Result<Self> {
        let start = || -> io::Result<_> {
            let (folder, log) = (PrivateFolder::new()?, Log::new()?);
            let mut command = command(FORWARD_SCRIPT, Some(&folder), &log, target)?;
            let forward = format!("{}:{}", folder.path().join("socket").display(), target.path());
            command.args([
                "-nN",
                "-o",
                // The configuration can have other forwardings, whose ports another ssh uses already.
                "ExitOnForwardFailure=no",
                "-o",
                "StreamLocalBindUnlink=yes",
            ]);
            command.args(["-o", "ControlMaster=no", "-o", "ControlPath=none", "-L", &forward]);
            command.args(["--", &target.destination()]);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            Ok(Self { child, folder, log, target: target.clone() })
        };
        start().map_err(|error| failure(target, &format!("cannot start ssh: {error}")))
    }

    /// The path of the socket on this host.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Waits until ssh has created the socket, and connects to it.
    fn wait_for_socket(&self, deadline: Instant) -> Result<UnixStream> {
        loop {
            if let Ok(stream) = unix::connect(&self.socket(), ANSWER_TIMEOUT) {
                return Ok(stream);
            }
            // It has no content, and becomes readable when ssh ends.
            let Some(output) = &self.child.stdout else { return Err(self.failure("no pipe")) };
            let next = Some(Instant::now() + RETRY_INTERVAL);
            match unix::wait(output, Interest::Readable, next) {
                Ok(Readiness::TimedOut) if Instant::now() < deadline => {}
                Ok(Readiness::TimedOut) => return Err(self.failure("ssh does not log in in time")),
                Ok(_) => return Err(self.failure("ssh failed")),
                Err(error) => return Err(self.failure(&error.to_string())),
            }
        }
    }

    fn failure(&self, what: &str) -> Error {
        let mut reason = self.log.added_to(what);
        // Nobody can confirm the key in `BatchMode`. One that has changed must not be confirmed without a look at it.
        if reason.contains("Host key verification failed") && !reason.contains("HAS CHANGED") {
            let command = login_command(&self.target);
            let advice = ["\nto add an unknown key, run `", &command, "` once, and confirm it"];
            reason.push_str(&advice.concat());
        }
        failure(&self.target, &reason)
    }

    /// Whether ssh has ended.
    pub(crate) fn has_ended(&self) -> bool {
        // Its standard output has no content, and becomes readable when ssh ends.
        let waited = |output| unix::wait(output, Interest::Readable, Some(Instant::now()));
        let waited = self.child.stdout.as_ref().map(waited);
        !matches!(waited, Some(Ok(Readiness::TimedOut)))
    }

    /// The error of a connection through ssh that cannot be made any more.
    pub(crate) fn lost(&self) -> Error {
        let what = format!("ssh to {} has ended", self.target.host());
        Error::disconnected(self.log.added_to(&what))
    }
}

impl Drop for Forward {
    /// Best effort: an error has no receiver.
    fn drop(&mut self) {
        // The end of its standard input ends it.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

impl Program {
    fn start(target: &SshTarget) -> Result<(UnixStream, Self)> {
        let start = || -> io::Result<_> {
            let log = Log::new()?;
            let mut command = command(PROGRAM_SCRIPT, None, &log, target)?;
            command.args(["--", &target.destination(), "sockbroker", "dial-stdio"]);
            if let Some(path) = target.named_path() {
                command.args(["--socket", path]);
            }
            let (ours, theirs) = UnixStream::pair()?;
            let (lifeline, watched) = UnixStream::pair()?;
            command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(watched));
            let child = command.spawn()?;
            let program = Self { child, lifeline: Some(lifeline), log, target: target.clone() };
            Ok((unix::with_send_buffer(ours)?, program))
        };
        start().map_err(|error| failure(target, &format!("cannot start ssh: {error}")))
    }

    /// How long the first call may take: it waits for ssh to log in.
    pub(crate) fn first_call_timeout() -> Duration {
        login_timeout()
    }

    /// Adds the messages of ssh to the error of the first call.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let what = match error {
            Error::Disconnected { .. } => "failed",
            Error::Timeout { .. } => "does not answer in time",
            other => return other,
        };
        let (path, host) = (self.target.path(), self.target.host());
        if is_program_missing(&self.log.messages()) {
            // sshd does not report why it does not forward. It permits it unless it is configured otherwise.
            let reason = format!(
                "no broker answers at {path} on {host}: probably none runs there, or its socket has another path \
                 (ssh://HOST/PATH); if it does run there, sshd forbids to forward sockets (AllowStreamLocalForwarding), \
                 and `sockbroker` has to be installed there"
            );
            return failure(&self.target, &reason);
        }
        let what = format!(
            "no broker answers at {path} on {host}, and `sockbroker dial-stdio` there {what}"
        );
        failure(&self.target, &self.log.added_to(&what))
    }
}

impl Drop for Program {
    /// Best effort: an error has no receiver.
    fn drop(&mut self) {
        drop(self.lifeline.take());
        drop(self.child.wait());
    }
}

/// The command that starts ssh, without what follows its common options.
fn command(
    script: &str,
    folder: Option<&PrivateFolder>,
    log: &Log,
    target: &SshTarget,
) -> io::Result<Command> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]);
    if let Some(folder) = folder {
        command.arg(folder.path());
    }
    if let Some(configuration) = host_files::find(target.host(), host_files::SSH_CONFIG) {
        command.arg("-F").arg(configuration);
    }
    // No terminal, no forwarded agent, no X11.
    command.args(["-Tax", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"]);
    command.args([
        "-o",
        "LogLevel=INFO",
        "-o",
        "RemoteCommand=none",
        "-o",
        "PermitLocalCommand=no",
    ]);
    if !is_interactive() {
        command.args(["-o", "BatchMode=yes"]);
    }
    if let Some(port) = target.port() {
        command.arg("-p").arg(port.to_string());
    }
    command.stderr(log.0.try_clone()?);
    Ok(command)
}

/// The command by which a person logs in with the same options.
fn login_command(target: &SshTarget) -> String {
    let configuration = host_files::find(target.host(), host_files::SSH_CONFIG);
    let file = configuration.map(|file| format!("-F {} ", file.display())).unwrap_or_default();
    let port = target.port().map(|port| format!("-p {port} ")).unwrap_or_default();
    format!("ssh {file}{port}{}", target.destination())
}

/// Whether the shell on the other host does not find the program, by its message.
fn is_program_missing(messages: &str) -> bool {
    let mut lines = messages.lines();
    lines.any(|line| {
        let of_sh = line.contains("sockbroker: ") && line.trim_end().ends_with("not found");
        of_sh || line.contains("command not found: sockbroker")
    })
}

/// Whether a person can answer questions of ssh.
fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn login_timeout() -> Duration {
    if is_interactive() { LOGIN_TIMEOUT_INTERACTIVE } else { LOGIN_TIMEOUT }
}

fn failure(target: &SshTarget, reason: &str) -> Error {
    let endpoint = Endpoint::Ssh(target.clone());
    Error::Connect { attempts: vec![Attempt { endpoint, reason: reason.to_owned(), errno: None }] }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn errors_contain_the_messages_of_ssh_without_their_frame() {
        let log = Log::new().unwrap();
        assert_eq!(log.added_to("ssh failed"), "ssh failed");
        let text =
            "@@@@@@\r\n@    WARNING: HAS CHANGED!     @\r\n@@@@@@\r\n\r\nverification failed.\r\n";
        (&log.0).write_all(text.as_bytes()).unwrap();
        let expected = "ssh failed: WARNING: HAS CHANGED!\nverification failed.";
        assert_eq!(log.added_to("ssh failed"), expected);
        let log = Log::new().unwrap();
        (&log.0).write_all(b"ssh: connect to host lab7 port 22: Connection refused\r\n").unwrap();
        let expected = "ssh failed: connect to host lab7 port 22: Connection refused";
        assert_eq!(log.added_to("ssh failed"), expected);
        (&log.0).write_all("x".repeat(9000).as_bytes()).unwrap();
        assert_eq!(log.added_to("").len(), 4096 + 2);
    }

    #[test]
    fn a_missing_program_is_known_by_the_message_of_the_shell() {
        for text in [
            "bash: line 1: sockbroker: command not found",
            "welcome\nsh: 1: sockbroker: not found\n",
            "zsh:1: command not found: sockbroker",
        ] {
            assert!(is_program_missing(text), "{text}");
        }
        for text in ["", "sockbroker: connect to /run/s: not there", "Connection refused"] {
            assert!(!is_program_missing(text), "{text}");
        }
    }
}
