//! The captures of a process, with a thread for each.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_sys::events::Wake;

use super::keep::Found;
use super::lot::{CaptureLot, Left};
use super::order::{Command, Counts, Ended, Event, Failure, Opened, Reason};
use super::run::{Control, Run};

/// The stack of a thread, in bytes.
const STACK: usize = 128 << 10;
/// The commands of one capture that wait at a time.
const COMMANDS: usize = 1024;

/// The end of a capture that cannot count.
const FAILED: Ended = Ended {
    reason: Reason::Failed,
    counts: Counts { seen: 0, captured: 0, dropped: 0, unread: 0, bytes: 0 },
    complete: false,
};

/// Gets what captures report, on their threads.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// The captures by their numbers.
pub struct Captures {
    running: Arc<Shared>,
    report: Report,
    /// Where those lie that outlive this process.
    lot: Option<Arc<CaptureLot>>,
}

/// Running captures, and the notice that one has ended.
#[derive(Default)]
struct Shared {
    all: Mutex<All>,
    ended: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, All> {
        // Every change is one step.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, capture: u64) {
        self.lock().remove(&capture);
        self.ended.notify_all();
    }
}

/// Running captures.
type All = BTreeMap<u64, Running>;

/// A running capture.
struct Running {
    commands: SyncSender<Command>,
    wake: Arc<Wake>,
    /// Whether it outlives this process.
    kept: Arc<AtomicBool>,
}

/// How a capture begins.
enum Beginning {
    New(Box<Opened>, OwnedFd),
    Left(Box<Found>),
}

impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Captures")
    }
}

impl Captures {
    pub fn new(report: Report) -> Self {
        Self { running: Arc::default(), report, lot: None }
    }

    /// Captures that can outlive this process, in this lot.
    #[must_use]
    pub fn in_lot(self, lot: CaptureLot) -> Self {
        Self { lot: Some(Arc::new(lot)), ..self }
    }

    /// Starts the thread of a capture, which reports whether the capture is live.
    pub fn start(&self, capture: u64, opened: Opened, socket: OwnedFd) {
        if let Err(error) = self.spawn(capture, Beginning::New(Box::new(opened), socket)) {
            let failure = Failure::from(error);
            (self.report)(Event::NotLive { capture, failure });
            (self.report)(Event::Closed { capture });
        }
    }

    /// Continues what an earlier process has left. It is announced before it reports anything.
    pub fn resume(&self, left: Left, announce: impl FnOnce(Opened, Counts)) {
        let capture = left.capture;
        let found = match left.read() {
            Ok(found) => found,
            Err(reason) => {
                tracing::error!(capture, reason, "a capture cannot be continued");
                if let Some(lot) = &self.lot {
                    lot.unpark(capture);
                }
                return;
            }
        };
        announce(found.opened.clone(), found.count.counts());
        if let Err(error) = self.spawn(capture, Beginning::Left(Box::new(found))) {
            tracing::error!(capture, %error, "a capture cannot be continued");
            (self.report)(Event::Ended { capture, ended: FAILED });
        }
    }

    fn spawn(&self, capture: u64, beginning: Beginning) -> io::Result<()> {
        let wake = Arc::new(Wake::new()?);
        let (commands, received) = sync_channel(COMMANDS);
        let kept = Arc::new(AtomicBool::new(matches!(beginning, Beginning::Left(_))));
        let running = Running { commands, wake: wake.clone(), kept: kept.clone() };
        let known = self.running.lock().insert(capture, running);
        debug_assert!(known.is_none(), "a number names one capture");
        let (all, report, lot) = (self.running.clone(), self.report.clone(), self.lot.clone());
        let thread = thread::Builder::new().name(format!("capture {capture}")).stack_size(STACK);
        let job = move || {
            let control = Control { commands: received, wake, lot, kept };
            follow(capture, beginning, control, (&all, &*report));
            all.remove(capture);
            report(Event::Closed { capture });
        };
        if let Err(error) = thread.spawn(job) {
            self.running.remove(capture);
            return Err(error);
        }
        Ok(())
    }

    /// Ends the captures that do not outlive this process, which is about to end, and waits for them, at most this long.
    pub fn interrupt(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        let ends = |running: &Running| !running.kept.load(Ordering::Acquire);
        let ending: Vec<_> = {
            let running = self.running.lock();
            running.iter().filter(|(_, one)| ends(one)).map(|(capture, _)| *capture).collect()
        };
        for capture in ending {
            self.command(capture, Command::Close(Reason::Interrupted));
        }
        let mut running = self.running.lock();
        while running.values().any(ends) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.running.ended.wait_timeout(running, left);
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a capture a command.
    pub fn command(&self, capture: u64, command: Command) {
        let late = {
            let running = self.running.lock();
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
            Command::Keep { request } => (self.report)(Event::Kept { request, result: None }),
            Command::Stop { .. } | Command::Close(_) => {}
        }
    }

    /// The number of captures whose sockets are open.
    pub fn running(&self) -> usize {
        self.running.lock().len()
    }
}

/// The life of a capture. Its socket is closed when this returns, which takes some ten milliseconds.
fn follow(
    capture: u64,
    beginning: Beginning,
    control: Control,
    (all, report): (&Shared, &dyn Fn(Event)),
) {
    let lot = control.lot.clone();
    let unpark = || {
        if let Some(lot) = &lot {
            lot.unpark(capture);
        }
    };
    let is_left = matches!(beginning, Beginning::Left(_));
    let begun = match beginning {
        Beginning::New(opened, socket) => {
            let begun = Run::begin(capture, *opened, socket, control);
            begun.map(|(run, live, stream)| (run, Some((live, stream))))
        }
        Beginning::Left(found) => Run::resume(capture, *found, control).map(|run| (run, None)),
    };
    let mut run = match begun {
        Ok((run, Some((live, stream)))) => {
            report(Event::Live { capture, live, stream });
            run
        }
        Ok((run, None)) => run,
        Err(error) => {
            let failure = Failure::from(error);
            tracing::debug!(capture, errno = failure.0, "a capture does not begin");
            unpark();
            return report(if is_left {
                Event::Ended { capture, ended: FAILED }
            } else {
                Event::NotLive { capture, failure }
            });
        }
    };
    let ended = catch_unwind(AssertUnwindSafe(|| run.run(report))).unwrap_or_else(|_panic| {
        tracing::error!(capture, "the thread of a capture panicked");
        FAILED
    });
    unpark();
    report(Event::Ended { capture, ended });
    all.remove(capture);
    run.answer_late(report);
}
