//! The brokers that run, so that a test that hangs leaves none behind.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Process ids, with the threads that started them.
static RUNNING: Mutex<Vec<(ThreadId, u32)>> = Mutex::new(Vec::new());

/// Records a broker that this thread started.
pub(crate) fn add(number: u32) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.push((thread::current().id(), number));
}

/// Forgets a broker before its process id can be reused.
pub(crate) fn remove(number: u32) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|(_, other)| *other != number);
}

/// Kills the brokers that a thread started. Its waits for them then fail.
pub(crate) fn kill_those_of(thread: ThreadId) {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, number) in running.iter().filter(|(starter, _)| *starter == thread) {
        kill(pid(*number), Signal::SIGKILL).ok();
    }
}

/// A process id as system calls take it.
pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap())
}
