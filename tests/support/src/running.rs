//! The brokers that run, by the thread that started them: the watchdog kills the brokers of a test that hangs.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static RUNNING: Mutex<Vec<(ThreadId, u32)>> = Mutex::new(Vec::new());

/// Adds a broker of the current thread.
pub(crate) fn add(process: u32) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.push((thread::current().id(), process));
}

/// Removes a broker that ends.
pub(crate) fn remove(process: u32) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|(_, other)| *other != process);
}

/// Kills the brokers that a thread started, so that its waits for them fail.
pub(crate) fn kill_started_by(thread: ThreadId) {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, process) in running.iter().filter(|(starter, _)| *starter == thread) {
        kill(Pid::from_raw((*process).try_into().unwrap()), Signal::SIGKILL).ok();
    }
}
