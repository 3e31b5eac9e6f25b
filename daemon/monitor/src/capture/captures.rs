//! The captures of a process, with a thread for each.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use sockbroker_sys::events::Wake;

use super::order::{Command, Counts, Ended, Event, Failure, Opened, Reason};
use super::run::Run;

/// The stack of a thread, in bytes.
const STACK: usize = 128 << 10;
/// The commands of one capture that wait at a time.
const COMMANDS: usize = 1024;

/// Gets what captures report, on their threads.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// The captures by their numbers.
pub struct Captures {
    running: Arc<Mutex<All>>,
    report: Report,
}

/// Running captures.
type All = BTreeMap<u64, Running>;

/// A running capture.
struct Running {
    commands: SyncSender<Command>,
    wake: Arc<Wake>,
}

impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Captures")
    }
}

fn lock(running: &Mutex<All>) -> MutexGuard<'_, All> {
    // Every change is one step.
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Captures {
    pub fn new(report: Report) -> Self {
        Self { running: Arc::default(), report }
    }

    /// Starts the thread of a capture, which reports whether the capture is live.
    pub fn start(&self, capture: u64, opened: Opened, socket: OwnedFd) {
        if let Err(error) = self.spawn(capture, opened, socket) {
            let failure = Failure::from(error);
            (self.report)(Event::NotLive { capture, failure });
            (self.report)(Event::Closed { capture });
        }
    }

    fn spawn(&self, capture: u64, opened: Opened, socket: OwnedFd) -> io::Result<()> {
        let wake = Arc::new(Wake::new()?);
        let (commands, received) = sync_channel(COMMANDS);
        let mut running = lock(&self.running);
        let known = running.insert(capture, Running { commands, wake: wake.clone() });
        drop(running);
        debug_assert!(known.is_none(), "a number names one capture");
        let (all, report) = (self.running.clone(), self.report.clone());
        let thread = thread::Builder::new().name(format!("capture {capture}")).stack_size(STACK);
        let job = move || {
            follow(capture, opened, socket, (received, wake), (&all, &*report));
            lock(&all).remove(&capture);
            report(Event::Closed { capture });
        };
        if let Err(error) = thread.spawn(job) {
            lock(&self.running).remove(&capture);
            return Err(error);
        }
        Ok(())
    }

    /// Sends a capture a command.
    pub fn command(&self, capture: u64, command: Command) {
        let late = {
            let running = lock(&self.running);
            match running.get(&capture) {
                Some(known) => match known.commands.try_send(command) {
                    Ok(()) => {
                        known.wake.wake();
                        return;
                    }
                    Err(error) => match error {
                        std::sync::mpsc::TrySendError::Full(command)
                        | std::sync::mpsc::TrySendError::Disconnected(command) => command,
                    },
                },
                None => command,
            }
        };
        match late {
            Command::Counts { request } => (self.report)(Event::Counts { request, counts: None }),
            Command::SetFilter { request, .. } => {
                (self.report)(Event::Filter { request, result: None });
            }
            Command::Stop { .. } | Command::Close(_) => {}
        }
    }

    /// The number of captures whose sockets are open.
    pub fn running(&self) -> usize {
        lock(&self.running).len()
    }
}

/// The life of a capture. Its socket is closed when this returns, which takes some ten milliseconds.
fn follow(
    capture: u64,
    opened: Opened,
    socket: OwnedFd,
    commands: (Receiver<Command>, Arc<Wake>),
    (all, report): (&Mutex<All>, &dyn Fn(Event)),
) {
    let (mut run, live, stream) = match Run::begin(capture, opened, socket, commands) {
        Ok(begun) => begun,
        Err(error) => {
            let failure = Failure::from(error);
            return report(Event::NotLive { capture, failure });
        }
    };
    report(Event::Live { capture, live, stream });
    let ended = catch_unwind(AssertUnwindSafe(|| run.run(report))).unwrap_or_else(|_panic| {
        tracing::error!(capture, "the thread of a capture panicked");
        Ended { reason: Reason::Failed, counts: Counts::default(), complete: false }
    });
    report(Event::Ended { capture, ended });
    lock(all).remove(&capture);
    run.answer_late(report);
}
