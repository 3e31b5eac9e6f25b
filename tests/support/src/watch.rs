//! Waits that end: a watchdog around a test, and patience for what happens soon.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon;

/// How long a test may take that does not say otherwise, in seconds.
pub const USUAL: u64 = 20;
/// How long [`until`] looks.
const SOON: Duration = Duration::from_secs(5);
/// Between two looks.
const STEP: Duration = Duration::from_millis(2);

/// Runs `body`, and fails if it takes longer than `seconds`. Brokers that it started are killed
/// then, so that nothing is left behind.
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
    if ended.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
        daemon::kill_those_of(thread.thread().id());
        panic!("{name} took more than {seconds} seconds");
    }
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Waits until something holds, and fails if it does not within five seconds.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(happens_within(SOON, holds), "not within {SOON:?}: {what}");
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
