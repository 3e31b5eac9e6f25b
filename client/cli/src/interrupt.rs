//! Ctrl-C, SIGTERM and SIGHUP: noticed, so that what was begun can be ended well.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::failure::Failure;

/// How long a waiting call may take before the flag is looked at again, in seconds.
pub(crate) const POLL_INTERVAL: f64 = 0.1;
/// Signals that come together are one: timeout(1) sends its own to the program and to its group.
const TOGETHER: Duration = Duration::from_millis(300);

/// Whether the user wants an end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first signal sets the flag instead of ending the process. A later one ends it,
    /// for a user who does not want to wait for a broker that does not answer.
    pub(crate) fn catch() -> Result<Self, Failure> {
        Self::with(|| {})
    }

    /// The same; each signal also calls this, on a thread of its own.
    pub(crate) fn with(mut notify: impl FnMut() + Send + 'static) -> Result<Self, Failure> {
        let mut wanted = vec![SIGINT, SIGTERM];
        // nohup(1) ignores it so that the program outlives its terminal.
        if !is_ignored(SIGHUP) {
            wanted.push(SIGHUP);
        }
        let mut signals =
            Signals::new(wanted).map_err(|error| Failure::system("cannot mind signals", &error))?;
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        thread::spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                set.store(true, Ordering::Relaxed);
                notify();
                let since = first.get_or_insert_with(Instant::now).elapsed();
                if since > TOGETHER {
                    // It does not come back; where it fails the process just goes on.
                    drop(emulate_default_handler(signal));
                }
            }
        });
        Ok(Self(flag))
    }

    /// Whether a signal came.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether this process was started with the signal ignored, `SigIgn` of `proc_pid_status(5)`.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
