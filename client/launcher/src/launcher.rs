//! The process that the shell knows. It has the program's signals, stops and end.

use std::ffi::{CString, NulError, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, pidfd_open, pidfd_send_signal,
    set_child_subreaper, setrlimit, waitpid,
};
use sockbroker_client::blocking::Broker;

use crate::channel::{self, End, Next, Report};
use crate::delegation::{self, Delegation};
use crate::kernel::inherited::Inherited;
use crate::kernel::notify::Listener;
use crate::kernel::process::{Forked, fork, leave};
use crate::kernel::signals;
use crate::refusal::{Lines, Output};
use crate::supervisor::{self, Program};
use crate::takeover;

/// The program, and how it is run.
#[derive(Debug)]
pub struct Plan {
    /// The program and its arguments.
    pub arguments: Vec<OsString>,
    /// Whether it sees itself as root, in a user namespace.
    pub root: bool,
    /// The network namespace of its sockets; that of this process if absent.
    pub netns: Option<String>,
    /// Where refusals are reported.
    pub output: Output,
    /// Whether only fatal signals interrupt calls in progress, where the kernel supports it. For tests.
    pub killable: bool,
    /// A pause before each call of the broker. For tests.
    pub delay: Duration,
}

/// How the program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has exited with this code.
    Code(u8),
    /// A signal has ended it, and could not end this process.
    Signal(i32),
    /// It has ended after its supervisor.
    Unsupervised,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// An argument contains NUL.
    #[error("an argument of the program contains a zero byte")]
    Argument(#[from] NulError),
    /// The broker cannot use the network namespace.
    #[error(transparent)]
    Network(#[from] sockbroker_client::Error),
    /// A system call failed.
    #[error("{call}: {error}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        error: io::Error,
    },
}

/// Names the call of an error.
trait During<T> {
    fn during(self, call: &'static str) -> Result<T, LaunchError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, call: &'static str) -> Result<T, LaunchError> {
        self.map_err(|error| LaunchError::System { call, error: error.into() })
    }
}

fn strings(arguments: Vec<OsString>) -> Result<Vec<CString>, NulError> {
    arguments.into_iter().map(|argument| CString::new(argument.into_vec())).collect()
}

/// Executes a program in this process, without a broker. Returns the code of a program that cannot be executed.
///
/// # Errors
///
/// [`LaunchError`].
pub fn execute(arguments: Vec<OsString>) -> Result<Ended, LaunchError> {
    let arguments = strings(arguments)?;
    let mask = signals::block_all().during("sigprocmask")?;
    let code = supervisor::start(&arguments, &mask);
    Ok(Ended::Code(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Runs a program to its end. `inherited` was listed when this process started; `reconnect` connects to the broker
/// again, after it was restarted. This process must have one thread.
///
/// If a signal ends the program, it also ends this process.
///
/// # Errors
///
/// [`LaunchError`] if the program could not be started.
pub fn run(
    plan: Plan,
    broker: Broker,
    reconnect: impl Fn() -> sockbroker_client::Result<Broker> + Send + Sync + 'static,
    inherited: &Inherited,
) -> Result<Ended, LaunchError> {
    let Plan { arguments, root, netns, output, killable, delay } = plan;
    let arguments = strings(arguments)?;
    let mask = signals::block_all().during("sigprocmask")?;
    let signals = signals::descriptor().during("signalfd")?;
    let (ours, theirs) = channel::pair().during("socketpair")?;
    // If the supervisor ends, its children become those of this process.
    set_child_subreaper(Some(rustix::process::getpid())).during("prctl")?;
    if let Some(netns) = &netns {
        delegation::enter(&broker, netns)?;
    }
    let in_named_namespace = netns.is_some();
    let program = Program { arguments, root, netns, killable, mask };
    let supervisor = match fork().during("fork")? {
        Forked::Child => {
            drop((ours, signals));
            let netns = program.netns.as_deref();
            let delegation = Delegation::new(broker, Box::new(reconnect), netns, delay);
            supervisor::run(&program, theirs, delegation, Lines::new(output), inherited)
        }
        Forked::Parent(supervisor) => supervisor,
    };
    drop((theirs, broker, output));
    inherited.close();
    let null = File::options().read(true).write(true).open("/dev/null").during("open")?;
    rustix::stdio::dup2_stdin(&null).during("dup2")?;
    rustix::stdio::dup2_stdout(&null).during("dup2")?;
    let signals = File::from(signals);
    let launcher =
        Launcher { supervisor, channel: ours, signals, program: None, in_named_namespace };
    let ended = launcher.watch()?;
    if let Ended::Signal(signal) = ended {
        // The program has dumped core, if at all.
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
        signals::die_by(signal);
    }
    Ok(ended)
}

/// The program as the launcher knows it.
#[derive(Debug)]
struct Started {
    pid: Pid,
    /// Names the process even if its id is used again.
    process: Option<OwnedFd>,
    listener: Option<Listener>,
    last: Option<File>,
}

/// The launcher while the program runs: the supervisor, the signals, and the program.
#[derive(Debug)]
struct Launcher {
    supervisor: Pid,
    channel: End,
    signals: File,
    program: Option<Started>,
    in_named_namespace: bool,
}

impl Launcher {
    fn watch(mut self) -> Result<Ended, LaunchError> {
        let mut pending = Vec::new();
        loop {
            let mut entries = [
                PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| poll(&mut entries, None)).during("poll")?;
            if let Some(ended) = self.take_reports()? {
                return Ok(ended);
            }
            pending.extend(self.sent_signals().during("read")?);
            if let Some(Started { process: Some(process), .. }) = &self.program {
                for signal in pending.drain(..) {
                    // The program may have ended meanwhile.
                    pidfd_send_signal(process, signal).ok();
                }
            }
        }
    }

    /// Takes all reports, and acts on the newest: an older stop is over.
    fn take_reports(&mut self) -> Result<Option<Ended>, LaunchError> {
        let mut stopped = None;
        loop {
            let (report, descriptors) = match self.channel.next_report().during("recvmsg")? {
                Next::Report(report, descriptors) => (report, descriptors),
                Next::Nothing => break,
                Next::End => return self.replace_supervisor().map(Some),
            };
            match report {
                Report::Started { pid } => self.started(pid, descriptors),
                Report::Stopped { signal } => stopped = Some(signal),
                Report::Continued => stopped = None,
                Report::Exited { code } => {
                    return Ok(Some(Ended::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX))));
                }
                Report::Killed { signal } => return Ok(Some(Ended::Signal(signal))),
            }
        }
        if let Some(signal) = stopped {
            signals::stop_by(signal).during("sigprocmask")?;
        }
        Ok(None)
    }

    fn started(&mut self, pid: i32, descriptors: Vec<OwnedFd>) {
        let Some(pid) = Pid::from_raw(pid) else { return };
        let mut descriptors = descriptors.into_iter();
        let listener = descriptors.next().map(Listener::from);
        let last = descriptors.next().map(File::from);
        let process = pidfd_open(pid, PidfdFlags::empty()).ok();
        self.program = Some(Started { pid, process, listener, last });
    }

    /// The signals that a process has sent to this one alone, or to its group. The program has those of the terminal.
    fn sent_signals(&mut self) -> io::Result<Vec<Signal>> {
        let mut found = Vec::new();
        // `struct signalfd_siginfo`, whose first fields are number, errno and code.
        let mut info = [0; 128];
        loop {
            match self.signals.read(&mut info) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(error) => return Err(error),
            }
            let field = |place: usize| {
                let bytes = info.get(place..).and_then(|rest| rest.first_chunk());
                bytes.map_or(0, |bytes| i32::from_ne_bytes(*bytes))
            };
            let (number, code) = (field(0), field(8));
            let is_sent = [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL].contains(&code);
            if is_sent && number != libc::SIGCHLD {
                found.extend(Signal::from_named_raw(number));
            }
        }
    }

    /// The supervisor has ended before the program. From now on the kernel makes all calls.
    #[expect(clippy::print_stderr, reason = "the supervisor, which reports otherwise, has ended")]
    fn replace_supervisor(&mut self) -> Result<Ended, LaunchError> {
        // It reported its own failure if it has exited.
        waitpid(Some(self.supervisor), WaitOptions::empty()).ok();
        let Some(Started { pid, listener, last, .. }) = self.program.take() else {
            return Ok(Ended::Unsupervised);
        };
        eprintln!("sockbroker: the supervisor has ended: the kernel makes calls alone");
        if let Some(listener) = listener
            && fork().during("fork")? == Forked::Child
        {
            // Programs in the background can outlive this process.
            drop(takeover::answer_all(&listener, last.as_ref(), self.in_named_namespace));
            leave(0);
        }
        loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return Ok(Ended::Unsupervised),
            }
        }
    }
}
