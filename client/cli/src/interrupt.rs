//! Catches SIGINT (Ctrl-C), SIGTERM and SIGHUP, so that a subcommand can finish its output before it ends.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::failure::Failure;

/// The longest that a call waits before the caller checks the flag again, in seconds.
pub(crate) const POLL_INTERVAL: f64 = 0.1;
/// Signals within this time count as one: timeout(1) signals the program and then its process group.
const TOGETHER: Duration = Duration::from_millis(300);

/// A flag that the first signal sets.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches signals from now on. The first one sets the flag and does not end the process. A later one
    /// ends the process, in case the broker does not answer.
    pub(crate) fn catch() -> Result<Self, Failure> {
        Self::with(|| {})
    }

    /// Like [`Interrupt::catch`]. Each signal also calls `notify`, on the thread that waits for signals.
    pub(crate) fn with(mut notify: impl FnMut() + Send + 'static) -> Result<Self, Failure> {
        let mut wanted = vec![SIGINT, SIGTERM];
        // nohup(1) ignores SIGHUP so that the program continues without its terminal.
        if !is_ignored(SIGHUP) {
            wanted.push(SIGHUP);
        }
        let mut signals = Signals::new(wanted)
            .map_err(|error| Failure::system("cannot catch signals", &error))?;
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        thread::spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                set.store(true, Ordering::Relaxed);
                notify();
                let since = first.get_or_insert_with(Instant::now).elapsed();
                if since > TOGETHER {
                    // Ends the process. If that fails, the process continues.
                    drop(emulate_default_handler(signal));
                }
            }
        });
        Ok(Self(flag))
    }

    /// Whether a signal has arrived.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Calls `notify` for each SIGUSR1, on the thread that waits for it.
pub(crate) fn on_user_signal(mut notify: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let mut signals =
        Signals::new([SIGUSR1]).map_err(|error| Failure::system("cannot catch signals", &error))?;
    thread::spawn(move || signals.forever().for_each(|_signal| notify()));
    Ok(())
}

/// Whether this process ignores the signal, from `SigIgn` of `proc_pid_status(5)`.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
