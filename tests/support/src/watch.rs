//! Waits that end: a watchdog around a test, and bounded waits for events.
//!
//! No bound is an expectation of speed. A wait ends on its event, and fails after minutes, when the
//! event will not come any more.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::running;

/// What a usual test takes at most on an idle machine, in seconds.
pub const USUAL: u64 = 20;
/// How many times as long a test may take on a busy machine before it counts as hung.
const BUSY: u64 = 15;
/// The bound of a wait for an event. An event that has not come by then does not come.
pub const HANG: Duration = Duration::from_mins(3);
/// Between two looks.
const STEP: Duration = Duration::from_millis(2);

/// Runs `body`, which takes at most `seconds` on an idle machine. Fails if it hangs: if it takes `BUSY`
/// times as long. Brokers that it started are killed then, so that nothing is left behind.
pub fn bounded<T: Send + 'static>(seconds: u64, body: impl FnOnce() -> T + Send + 'static) -> T {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (running, ended) = mpsc::channel::<()>();
    let named = thread::Builder::new().name(name.clone());
    let thread = named
        .spawn(move || {
            let _running = running;
            body()
        })
        .unwrap();
    let bound = Duration::from_secs(seconds * BUSY);
    if ended.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
        running::kill_those_of(thread.thread().id());
        panic!("{name} hangs: it has not ended after {bound:?}");
    }
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Waits until something holds, and fails if it never does.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(happens_within(HANG, holds), "not within {HANG:?}: {what}");
}

/// Whether something comes to hold within a time.
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

/// Lets time pass: for what must not happen, and for limits that are times.
pub fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}
