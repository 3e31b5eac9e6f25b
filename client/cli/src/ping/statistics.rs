//! The statistics of ping, and their text.

use std::fmt;
use std::time::Duration;

/// Counts requests and replies, and the round-trip times.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) sent: u64,
    /// Replies received, without duplicates.
    pub(crate) received: u64,
    /// Further replies to answered requests.
    pub(crate) duplicates: u64,
    pub(crate) errors: u64,
    /// From the first request to the end.
    pub(crate) time: Duration,
    least: f64,
    most: f64,
    sum: f64,
    sum_of_squares: f64,
}

/// Round-trip times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Times {
    pub(crate) min: f64,
    pub(crate) avg: f64,
    pub(crate) max: f64,
    /// The standard deviation, as ping(8) computes it.
    pub(crate) mdev: f64,
}

impl Statistics {
    /// Counts a reply with this round-trip time.
    pub(crate) fn reply(&mut self, time: Duration) {
        let time = milliseconds(time);
        self.least = if self.received == 0 { time } else { self.least.min(time) };
        self.most = self.most.max(time);
        self.sum += time;
        self.sum_of_squares += time * time;
        self.received += 1;
    }

    /// Returns the round-trip times, if any reply arrived.
    #[expect(clippy::cast_precision_loss, reason = "no run receives 2^52 replies")]
    pub(crate) fn times(&self) -> Option<Times> {
        (self.received > 0).then(|| {
            let (count, avg) = (self.received as f64, self.sum / self.received as f64);
            let mdev = (self.sum_of_squares / count - avg * avg).max(0.0).sqrt();
            Times { min: self.least, avg, max: self.most, mdev }
        })
    }

    /// Returns the percentage of requests without a reply, rounded down as ping(8) does.
    pub(crate) fn loss(&self) -> u64 {
        let lost = self.sent.saturating_sub(self.received);
        (lost * 100).checked_div(self.sent).unwrap_or(0)
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets transmitted, {} received", self.sent, self.received)?;
        if self.duplicates > 0 {
            write!(f, ", +{} duplicates", self.duplicates)?;
        }
        if self.errors > 0 {
            write!(f, ", +{} errors", self.errors)?;
        }
        write!(f, ", {}% packet loss, time {}ms", self.loss(), self.time.as_millis())?;
        if let Some(Times { min, avg, max, mdev }) = self.times() {
            write!(f, "\nrtt min/avg/max/mdev = {min:.3}/{avg:.3}/{max:.3}/{mdev:.3} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_has_the_text_of_ping() {
        let mut statistics = Statistics { sent: 3, errors: 1, ..Statistics::default() };
        statistics.reply(Duration::from_millis(1));
        statistics.reply(Duration::from_millis(3));
        statistics.time = Duration::from_millis(2040);
        let report = "3 packets transmitted, 2 received, +1 errors, 33% packet loss, time 2040ms\n\
            rtt min/avg/max/mdev = 1.000/2.000/3.000/1.000 ms";
        assert_eq!(statistics.to_string(), report);
    }

    #[test]
    fn summary_without_replies_has_no_times() {
        let statistics = Statistics { sent: 2, ..Statistics::default() };
        assert_eq!(
            statistics.to_string(),
            "2 packets transmitted, 0 received, 100% packet loss, time 0ms"
        );
        assert_eq!(Statistics::default().loss(), 0);
    }
}
