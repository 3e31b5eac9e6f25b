//! The process that answers the calls of the programs, and waits for their ends.
//!
//! It is an ancestor of every program, as Yama requires of a process that reads another's memory. It has a session of
//! its own, so that a signal of the terminal does not stop it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_child_subreaper, setsid, wait,
};

use crate::answer::{Context, answer, answer_at_once, answer_unserved};
use crate::channel::{self, End, Received, Report};
use crate::delegation::Delegation;
use crate::filter::{self, Sockets};
use crate::in_progress::{InProgress, Key, REJOIN_TIME};
use crate::jobs::Jobs;
use crate::kernel::inherited::{Inherited, close_standard};
use crate::kernel::notify::{Listener, Notification};
use crate::kernel::process::{Forked, Namespaces, execute, fork, leave};
use crate::kernel::shared::{RECEIVERS, Slot};
use crate::kernel::signals::{Mask, restore, restore_pipe_signal};
use crate::namespaces::{enter_empty_network, enter_user_namespace};
use crate::refusal::Lines;
use crate::remote::{Network, first_unprivileged_port};
use crate::takeover::Last;

/// What the program is and how it is started.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name and arguments.
    pub(crate) arguments: Vec<CString>,
    /// Whether it is root of a user namespace.
    pub(crate) root: bool,
    /// The network namespace of its sockets, if it is not that of this process.
    pub(crate) netns: Option<String>,
    /// Whether to ask for `WAIT_KILLABLE_RECV`.
    pub(crate) killable: bool,
    pub(crate) mask: Mask,
}

/// The code of a program that could not be put under the filter (`EX_OSERR`).
const NOT_FILTERED: i32 = 71;
/// The codes of a shell for a program that cannot be executed, and that does not exist.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// What the program reports before it is executed.
#[derive(Debug)]
struct Prepared {
    how: Filtered,
    listener: Option<Listener>,
    /// Whether it has an empty network of its own.
    is_isolated: bool,
}

/// How the program stands under the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filtered {
    Killable,
    /// An older kernel: signals interrupt calls that were received.
    Interruptible,
    /// Another supervisor serves this process already.
    Already,
}

/// Runs the supervisor in this process, which has just been forked.
pub(crate) fn run(
    program: &Program,
    launcher: End,
    delegation: Delegation,
    lines: Lines,
    inherited: &Inherited,
) -> ! {
    match supervise(program, launcher, delegation, lines, inherited) {
        Ok(()) => leave(0),
        Err(error) => {
            complain(&format!("the supervisor has failed: {error}"));
            leave(NOT_FILTERED)
        }
    }
}

#[expect(clippy::print_stderr, reason = "a process without another way to report")]
fn complain(text: &str) {
    eprintln!("sockbroker: {text}");
}

fn supervise(
    program: &Program,
    launcher: End,
    delegation: Delegation,
    lines: Lines,
    inherited: &Inherited,
) -> io::Result<()> {
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let (ours, theirs) = channel::pair()?;
    let child = match fork()? {
        Forked::Child => {
            drop((ours, launcher));
            become_program(program, theirs)
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    setsid()?;
    inherited.close();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    if !lines.use_standard_error() {
        rustix::stdio::dup2_stderr(&null)?;
    }
    let launcher = Arc::new(launcher);
    let pid = child.as_raw_nonzero().get();
    match prepared(&ours)? {
        Some(Prepared { how: Filtered::Already, .. }) => {
            lines.note("another sockbroker serves this program already; it decides");
            launcher.report(Report::Started { pid }, &[])?;
        }
        Some(Prepared { how, listener: Some(listener), is_isolated }) => {
            if let (Some(netns), false) = (&program.netns, is_isolated) {
                lines.note(&format!(
                    "the program has the sockets of the network namespace {netns:?}, and else the network and the \
                     files of this process: this system refuses namespaces to it"
                ));
            }
            let (last, slots, file) = Last::create()?;
            launcher.report(Report::Started { pid }, &[listener.as_fd(), file.as_fd()])?;
            // An older kernel chooses the CPU.
            drop(listener.wake_on_same_cpu());
            let context = Context {
                listener,
                calls: InProgress::default(),
                delegation,
                lines,
                network: Network::of(pid.cast_unsigned())?,
                first_unprivileged: first_unprivileged(program),
                in_named_namespace: program.netns.is_some(),
                rejoin_time: rejoin_time(how),
            };
            Receivers::start(context, last, slots)?;
        }
        // It has reported the reason, and exits.
        Some(Prepared { listener: None, .. }) | None => {
            launcher.report(Report::Started { pid }, &[])?;
        }
    }
    watch(&launcher, child)?;
    ours.send([0; 5], &[])?;
    drop(ours);
    reap(&launcher, child, &null)
}

/// The first port that the program can bind itself.
fn first_unprivileged(program: &Program) -> u16 {
    // That of another namespace is not known.
    if program.netns.is_some() { u16::MAX } else { first_unprivileged_port() }
}

fn rejoin_time(how: Filtered) -> Duration {
    if how == Filtered::Interruptible { REJOIN_TIME } else { Duration::ZERO }
}

/// Waits for the program's report. `None` if it ended without one.
fn prepared(program: &End) -> io::Result<Option<Prepared>> {
    Ok(match program.receive(true)? {
        Received::Message { data: [kind, isolated, ..], descriptors } => {
            let how = match kind {
                0 => Filtered::Killable,
                1 => Filtered::Interruptible,
                _ => Filtered::Already,
            };
            let listener = descriptors.into_iter().next().map(Listener::from);
            Some(Prepared { how, listener, is_isolated: isolated == 1 })
        }
        Received::End | Received::Nothing => None,
    })
}

/// Kills the program if the launcher is killed: to others they are one process.
fn watch(launcher: &Arc<End>, program: Pid) -> io::Result<()> {
    let launcher = launcher.clone();
    let named = thread::Builder::new().name("watch".to_owned());
    named
        .spawn(move || {
            loop {
                let mut entries = [PollFd::from_borrowed_fd(launcher.as_fd(), PollFlags::IN)];
                match rustix::io::retry_on_intr(|| poll(&mut entries, None)) {
                    // The launcher sends nothing.
                    Ok(_) if !entries[0].revents().is_empty() => break,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
            // Has no effect on a program that has ended, whose id is in use until `reap` has seen the end.
            kill_process(program, Signal::KILL).ok();
        })
        .map(drop)
}

/// Waits for the ends of all programs, and reports those of the first one.
fn reap(launcher: &End, program: Pid, null: &File) -> io::Result<()> {
    loop {
        let ended = match wait(WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
            Ok(Some((pid, status))) if pid == program => of_status(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(report) = ended else { continue };
        // Fails if the launcher has been killed.
        drop(launcher.report(report, &[]));
        if matches!(report, Report::Exited { .. } | Report::Killed { .. }) {
            // Programs in the background go on. This process must not keep a pipe of the shell open for them.
            rustix::stdio::dup2_stderr(null)?;
        }
    }
}

fn of_status(status: WaitStatus) -> Option<Report> {
    if status.stopped() {
        return Some(Report::Stopped { signal: status.stopping_signal()? });
    }
    if status.continued() {
        return Some(Report::Continued);
    }
    if let Some(code) = status.exit_status() {
        return Some(Report::Exited { code });
    }
    status.terminating_signal().map(|signal| Report::Killed { signal })
}

/// What the threads that receive calls share.
struct Receivers {
    context: Arc<Context>,
    jobs: Jobs<Key>,
    last: Last,
    /// How many of them wait for a call.
    waiting: AtomicUsize,
}

impl Receivers {
    fn start(
        context: Context,
        last: Last,
        slots: &'static mut [Slot; RECEIVERS],
    ) -> io::Result<()> {
        let context = Arc::new(context);
        let receivers =
            Arc::new(Self { context, jobs: Jobs::new(), last, waiting: AtomicUsize::new(0) });
        for slot in slots {
            let receivers = receivers.clone();
            let named = thread::Builder::new().name("receiver".to_owned());
            named.spawn(move || receivers.receive(slot))?;
        }
        Ok(())
    }

    /// Receives calls as fast as they come: until a call is received, any signal interrupts it.
    fn receive(&self, slot: &mut Slot) {
        loop {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let received = self.context.listener.receive(slot);
            let others_wait = self.waiting.fetch_sub(1, Ordering::Relaxed) > 1;
            match received {
                Ok(Some(call)) => {
                    // While it is in the slot: without either it would wait for ever if the supervisor is killed.
                    self.last.note(call.id);
                    self.begin(call, others_wait);
                }
                // `reap` ends this process.
                Ok(None) if self.context.listener.is_over() => return,
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// Makes a call in this thread if another one receives the next, and else in a thread of its own.
    fn begin(&self, call: Notification, others_wait: bool) {
        let context = &self.context;
        let key = (call.tid, call.call);
        if !context.calls.begin(key, call.id) || answer_at_once(context, key) {
            return;
        }
        if others_wait {
            return answer(context, key);
        }
        let worker = context.clone();
        if let Err(key) = self.jobs.add(key, move |key| answer(&worker, key)) {
            context.lines.note("too many calls wait for the broker: it does not make further ones");
            answer_unserved(context, key);
        }
    }
}

/// Becomes the program. Does not return.
fn become_program(program: &Program, supervisor: End) -> ! {
    match put_under_filter(program) {
        Ok(Prepared { how, listener, is_isolated }) => {
            let kind = match how {
                Filtered::Killable => 0,
                Filtered::Interruptible => 1,
                Filtered::Already => 2,
            };
            let descriptors: Vec<BorrowedFd<'_>> =
                listener.iter().map(|listener| listener.as_fd()).collect();
            let acknowledged = supervisor
                .send([kind, is_isolated.into(), 0, 0, 0], &descriptors)
                .and_then(|()| supervisor.receive(true));
            // Without a supervisor nothing would answer the calls of the program.
            if !matches!(acknowledged, Ok(Received::Message { .. })) {
                leave(NOT_FILTERED);
            }
        }
        Err(error) => {
            complain(&format!("cannot put the program under a seccomp filter: {error}"));
            leave(NOT_FILTERED);
        }
    }
    drop(supervisor);
    leave(start(&program.arguments, &program.mask))
}

/// Executes a program with the signals and the descriptors that this process was started with. Returns the code of a
/// program that cannot be executed.
pub(crate) fn start(arguments: &[CString], mask: &Mask) -> i32 {
    restore_pipe_signal();
    drop(restore(mask));
    close_standard();
    let error = execute(arguments);
    let name = arguments.first().map(|name| name.to_string_lossy().into_owned());
    complain(&format!("cannot execute {}: {error}", name.unwrap_or_default()));
    if error.raw_os_error() == Some(libc::ENOENT) { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn put_under_filter(program: &Program) -> io::Result<Prepared> {
    let is_isolated = match &program.netns {
        Some(name) => enter_empty_network(name, program.root).is_ok(),
        None => false,
    };
    if program.root && !is_isolated {
        enter_user_namespace(Namespaces::User, true)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    let reported = match program.netns {
        Some(_) => Sockets::OfNetworks,
        None => Sockets::Privileged,
    };
    let filter = filter::program(reported);
    let older = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let installed = match program.killable.then(|| Listener::install(&filter, true)) {
        Some(Err(error)) if older(&error) => None,
        other => other,
    };
    let (how, installed) = match installed {
        Some(installed) => (Filtered::Killable, installed),
        None => (Filtered::Interruptible, Listener::install(&filter, false)),
    };
    match installed {
        Ok(listener) => Ok(Prepared { how, listener: Some(listener), is_isolated }),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && program.netns.is_none() => {
            Ok(Prepared { how: Filtered::Already, listener: None, is_isolated })
        }
        Err(error) => Err(error),
    }
}
