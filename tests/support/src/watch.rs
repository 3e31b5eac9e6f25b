//! Bounded waits: a watchdog for a test, and waits for events.
//!
//! A bound is not an expectation of speed. A wait ends when its event happens. It fails after minutes, when the
//! event will not happen any more.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{counts, running};

/// The longest that a usual test takes on an idle machine, in seconds.
pub const USUAL: u64 = 20;
/// The factor by which a test is allowed to take longer on a busy machine.
const BUSY: u64 = 15;
/// The factor by which a test with full counts is allowed to take longer.
const FULL: u64 = 6;
/// The bound of a wait for an event.
pub const HANG: Duration = Duration::from_mins(3);
/// The pause between two checks of a condition.
const STEP: Duration = Duration::from_millis(2);

/// Runs `body`, which takes at most `seconds` on an idle machine, or `FULL` times as long with full counts. If it takes
/// `BUSY` times as long, kills the brokers that it started, and fails.
pub fn bounded<T: Send + 'static>(seconds: u64, body: impl FnOnce() -> T + Send + 'static) -> T {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (alive, ended) = mpsc::channel::<()>();
    let named = thread::Builder::new().name(name.clone());
    let thread = named
        .spawn(move || {
            let _alive = alive;
            body()
        })
        .unwrap();
    let factor = if counts::are_full() { BUSY * FULL } else { BUSY };
    let bound = Duration::from_secs(seconds * factor);
    if ended.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
        running::kill_started_by(thread.thread().id());
        panic!("{name} hangs: it has not ended after {bound:?}");
    }
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Waits until a condition is true, and fails if it never is.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(happens_within(HANG, holds), "not within {HANG:?}: {what}");
}

/// Whether a condition becomes true within a time.
pub fn happens_within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(STEP);
    }
}

/// Sleeps: for events that must not happen, and for limits that are times.
pub fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}
