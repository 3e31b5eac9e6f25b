//! Shows on standard error how many bytes were sent and received.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::copy::Traffic;

/// How often the line is updated.
const PERIOD: Duration = Duration::from_millis(250);

/// A status line that a thread updates. If standard error is not a terminal, it prints one line at the end.
#[derive(Debug)]
pub(crate) struct Progress {
    end: mpsc::SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Starts the thread that shows this traffic.
    pub(crate) fn begin(traffic: &Arc<Traffic>) -> Self {
        let (end, ended) = mpsc::sync_channel(1);
        let traffic = Arc::clone(traffic);
        let thread = thread::spawn(move || {
            let (start, terminal) = (Instant::now(), io::stderr().is_terminal());
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                if terminal {
                    // Best effort: a failed status line must not stop the copy.
                    drop(write!(io::stderr(), "\r\x1b[K{}", line(&traffic, start.elapsed())));
                }
            }
            let clear = if terminal { "\r\x1b[K" } else { "" };
            drop(writeln!(io::stderr(), "{clear}{}", line(&traffic, start.elapsed())));
        });
        Self { end, thread }
    }

    /// Prints the final numbers and ends the thread.
    pub(crate) fn end(self) {
        drop(self.end);
        // The panic handler has already reported a panic of the thread.
        drop(self.thread.join());
    }
}

fn line(traffic: &Traffic, time: Duration) -> String {
    let amount = |bytes: u64| format!("{} ({}/s)", size(bytes), size(rate(bytes, time)));
    let seconds = time.as_secs_f64();
    format!(
        "sent {}, received {}, {seconds:.1} s",
        amount(traffic.sent()),
        amount(traffic.received())
    )
}

/// Bytes per second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

/// Formats a number of bytes with a suitable unit, in powers of 1000.
fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 1000;
    for name in ["kB", "MB", "GB"] {
        if bytes / unit < 1000 {
            let tenths = bytes / (unit / 10);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        unit *= 1000;
    }
    format!("{} TB", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_with_a_suitable_unit() {
        let sizes = [0, 999, 1000, 1_234_567, 987_000_000_000].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.2 MB", "987.0 GB"]);
        assert_eq!(size(5_000_000_000_000_000), "5000 TB");
    }

    #[test]
    fn rates_are_bytes_per_second() {
        assert_eq!(rate(500, Duration::from_millis(250)), 2000);
        assert_eq!(rate(7, Duration::ZERO), 7000);
    }
}
