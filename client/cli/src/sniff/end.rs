//! Waits for the end of a capture, and ends it on a signal, whatever is blocked.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use sockbroker_proto::api::capture::{CaptureInterface, CaptureStats};
use sockbroker_proto::handle::Handle;

use super::counts::numbers;
use super::record::{Recording, Tally};
use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::screen::report;

/// How long to wait after a signal while nothing of what was captured can be recorded. A write to a pipe can block.
pub(crate) const GRACE: Duration = Duration::from_millis(220);
/// How long to wait after a signal for an output that takes what was captured slowly.
const LONGEST_END: Duration = Duration::from_secs(2);
/// How long to wait for the broker's counters if the capture is blocked.
const LAST_CALL: Duration = Duration::from_millis(50);

/// How often a program whose capture outlives the broker makes a call: the one after a restart returns to the session, which
/// waits for that no longer than `reattach_seconds`.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// An event during the capture.
pub(super) enum Event {
    /// A signal to end.
    Signal,
    /// A signal to print numbers.
    Progress,
    /// The time of the last file has passed.
    LastPeriod,
    /// The session has a connection.
    Kept,
    /// The broker has counted.
    Counted(Option<CaptureStats>),
    /// The broker has counted when the first signal arrived.
    CountedAtSignal(Option<CaptureStats>),
    /// The broker has ended the capture.
    Stopped(Result<CaptureStats, Failure>),
    /// The capture is recorded to its end, or recording has failed.
    Recorded(Option<Box<Recording>>, Result<(), Failure>),
}

/// A running capture.
pub(super) struct Running {
    pub(super) connection: Arc<Connection>,
    pub(super) handle: Handle,
    pub(super) interfaces: Vec<CaptureInterface>,
    pub(super) events: Sender<Event>,
    pub(super) tally: Arc<Tally>,
    /// Whether the session outlives the process that serves it.
    pub(super) is_persistent: bool,
}

/// How long the end still waits for the output.
struct OutputDeadline {
    deadline: Instant,
    last: Instant,
    /// The progress of the output at the last deadline.
    steps: u64,
}

impl OutputDeadline {
    fn begin(steps: u64) -> Self {
        let now = Instant::now();
        Self { deadline: now + GRACE, last: now + LONGEST_END, steps }
    }

    fn rest(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Sets another deadline if the output has gone on since the last one.
    fn renew(&mut self, steps: u64) -> bool {
        let goes_on = std::mem::replace(&mut self.steps, steps) != steps;
        self.deadline = (Instant::now() + GRACE).min(self.last);
        goes_on && self.deadline > Instant::now()
    }
}

impl Running {
    /// Waits for the end. Returns the numbers of the broker, if it reported them, and the result.
    pub(super) fn wait(
        &self,
        happened: &Receiver<Event>,
    ) -> (Option<CaptureStats>, Result<(), Failure>) {
        let (mut stopped, mut recorded) = (None, None);
        let (mut is_stopping, mut is_calling) = (false, false);
        let (mut output_deadline, mut at_signal): (Option<OutputDeadline>, _) = (None, None);
        while stopped.is_none() || recorded.is_none() {
            let event = match &mut output_deadline {
                None if self.is_persistent => match happened.recv_timeout(KEEP_INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.keep_once(&mut is_calling);
                        continue;
                    }
                    event => event.ok(),
                },
                None => happened.recv().ok(),
                Some(output_deadline) => match happened.recv_timeout(output_deadline.rest()) {
                    Err(RecvTimeoutError::Timeout) if output_deadline.renew(self.tally.steps()) => {
                        continue;
                    }
                    event => event.ok(),
                },
            };
            match event {
                // The output is blocked.
                None => break,
                Some(Event::Progress) => self.count(),
                Some(Event::Kept) => is_calling = false,
                Some(Event::Counted(stats)) => {
                    report(&numbers(self.tally.captured(), stats.as_ref()).join(", "));
                }
                Some(Event::Stopped(result)) => stopped = Some(result),
                Some(Event::CountedAtSignal(stats)) => at_signal = stats,
                Some(Event::Signal) => {
                    if output_deadline.is_none() {
                        output_deadline = Some(OutputDeadline::begin(self.tally.steps()));
                        self.call("capture.stats", |stats| Event::CountedAtSignal(stats.ok()));
                    }
                    self.stop_once(&mut is_stopping);
                }
                Some(Event::LastPeriod) => self.stop_once(&mut is_stopping),
                Some(Event::Recorded(recording, result)) => {
                    recorded = Some((recording, result));
                    self.stop_once(&mut is_stopping);
                }
            }
        }
        // Dropping it closes the handle: the broker has counted.
        let recorded = recorded.map_or(Ok(()), |(_recording, result)| result);
        match stopped {
            Some(Ok(stats)) => {
                let result = recorded.and_then(|()| explain(&stats, &self.interfaces));
                (Some(stats), result)
            }
            Some(Err(failure)) => (None, recorded.and(Err(failure))),
            None => (at_signal.or_else(|| self.last_count(happened)), recorded),
        }
    }

    /// Ends the capture. What it has captured can still be read.
    fn stop_once(&self, is_stopping: &mut bool) {
        if !std::mem::replace(is_stopping, true) {
            self.call("capture.stop", Event::Stopped);
        }
    }

    /// Returns to the session if its process has ended.
    fn keep_once(&self, is_calling: &mut bool) {
        if !std::mem::replace(is_calling, true) {
            self.call("capture.stats", |_stats| Event::Kept);
        }
    }

    fn count(&self) {
        self.call("capture.stats", |stats| Event::Counted(stats.ok()));
    }

    /// Calls a method of the capture, on a thread of its own.
    fn call(
        &self,
        method: &'static str,
        event: impl FnOnce(Result<CaptureStats, Failure>) -> Event + Send + 'static,
    ) {
        let (connection, events) = (Arc::clone(&self.connection), self.events.clone());
        let parameters = json!([self.handle]);
        thread::spawn(move || {
            let result = connection.call_typed(method, parameters);
            // The connection must not outlive the program because of this thread.
            drop(connection);
            drop(events.send(event(result)));
        });
    }

    /// Returns the broker's numbers if it answers in time.
    fn last_count(&self, happened: &Receiver<Event>) -> Option<CaptureStats> {
        self.count();
        let deadline = Instant::now() + LAST_CALL;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match happened.recv_timeout(rest).ok()? {
                Event::Counted(stats) | Event::CountedAtSignal(stats) => return stats,
                Event::Stopped(result) => return result.ok(),
                Event::Signal
                | Event::Progress
                | Event::LastPeriod
                | Event::Kept
                | Event::Recorded(..) => {}
            }
        }
    }
}

/// Fails if the capture ended for a reason that the user did not choose.
pub(crate) fn explain(
    stats: &CaptureStats,
    interfaces: &[CaptureInterface],
) -> Result<(), Failure> {
    let reason = match stats.ended.as_deref() {
        Some("interface") => "the interface was removed",
        Some("policy") => "the policy of the broker does not grant it any more",
        Some("failed") => "the broker failed; its log has the reason",
        _ => return Ok(()),
    };
    let names: Vec<_> = interfaces.iter().map(|found| found.name.as_str()).collect();
    let names = if names.is_empty() { "any".to_owned() } else { names.join(", ") };
    Err(Failure::new(Exit::Failed, format!("cannot capture on {names}: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_output_that_goes_on_gets_more_time() {
        let mut output_deadline = OutputDeadline::begin(5);
        let first = output_deadline.deadline;
        assert!(output_deadline.renew(6));
        assert!(output_deadline.deadline > first);
        assert!(!output_deadline.renew(6));
        assert!(output_deadline.renew(7));
        output_deadline.last = Instant::now();
        assert!(!output_deadline.renew(8));
    }
}
