//! When the packets of a file are due. Pure: times in, durations out.

use std::time::Duration;

use crate::error::{OpError, OpResult};

/// The most packets a second that can be requested.
const RATE_MAX: f64 = 1e9;
/// The longest delay in either direction, in seconds.
const DELAY_MAX: f64 = 366.0 * 86400.0;

/// What determines the time between packets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// Nothing: all packets are due together.
    AtOnce,
    /// The times of the file, divided by a factor.
    OfFile { factor: f64 },
    /// A number of packets a second.
    Rate { per_second: f64 },
}

/// The times of packets after the start of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pace: Pace,
    /// When the first packet is due, in seconds.
    delay: f64,
}

impl Schedule {
    /// A schedule, from the options of a call.
    pub fn new(speed: Option<f64>, per_second: Option<f64>, delay: f64) -> OpResult<Self> {
        let pace = match (speed, per_second) {
            (Some(_), Some(_)) => {
                return Err(OpError::value("speed and packets_per_second exclude each other"));
            }
            (None, None) => Pace::OfFile { factor: 1.0 },
            (Some(0.0), None) => Pace::AtOnce,
            (Some(factor), None) if factor.is_finite() && factor > 0.0 => Pace::OfFile { factor },
            (Some(_), None) => {
                return Err(OpError::value("speed must be a positive number, or 0 for no waiting"));
            }
            (None, Some(rate)) if rate > 0.0 && rate <= RATE_MAX => Pace::Rate { per_second: rate },
            (None, Some(_)) => {
                return Err(OpError::value("packets_per_second must be positive, at most 10^9"));
            }
        };
        if !(-DELAY_MAX..=DELAY_MAX).contains(&delay) {
            return Err(OpError::value("delay must be at most 31622400 seconds"));
        }
        Ok(Self { pace, delay })
    }

    /// When a packet is due after the start of the call. `index` counts from 0; `first` and `time` are the times of the
    /// first packet and of this one in the file, in nanoseconds. A time before that of the first packet counts as that.
    pub fn due(&self, index: usize, first: u64, time: u64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact to 104 days, and to microseconds beyond"
        )]
        let offset = match self.pace {
            Pace::AtOnce => 0.0,
            Pace::OfFile { factor } => time.saturating_sub(first) as f64 / 1e9 / factor,
            Pace::Rate { per_second } => index as f64 / per_second,
        };
        let seconds = (self.delay + offset).max(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn dues(schedule: Schedule, times: &[u64]) -> Vec<u128> {
        let due = |(index, time): (usize, &u64)| schedule.due(index, times[0], *time);
        times.iter().enumerate().map(due).map(|due| due.as_micros()).collect()
    }

    #[test]
    fn packets_are_due_at_the_times_of_the_file_times_the_speed() {
        let start = 1_700_000_000 * 1_000_000_000;
        let times = [0, 1, 1, 5, 1000].map(|offset| start + offset * MILLISECOND);
        let of = |speed, delay| dues(Schedule::new(speed, None, delay).unwrap(), &times);
        assert_eq!(of(None, 0.0), [0, 1000, 1000, 5000, 1_000_000]);
        assert_eq!(of(Some(2.0), 0.0), [0, 500, 500, 2500, 500_000]);
        assert_eq!(of(Some(0.5), 0.25), [250_000, 252_000, 252_000, 260_000, 2_250_000]);
        assert_eq!(of(Some(0.0), 0.0), [0; 5]);
        // Late by three milliseconds.
        assert_eq!(of(Some(1.0), -0.003), [0, 0, 0, 2000, 997_000]);
    }

    #[test]
    fn a_rate_ignores_the_times_of_the_file() {
        let schedule = Schedule::new(None, Some(4.0), 0.0).unwrap();
        assert_eq!(dues(schedule, &[9, 1, 5]), [0, 250_000, 500_000]);
        let schedule = Schedule::new(None, Some(1e9), 0.5).unwrap();
        assert_eq!(dues(schedule, &[9, 1, 5]), [500_000; 3]);
    }

    #[test]
    fn times_that_go_back_or_are_extreme_do_not_wrap() {
        let schedule = Schedule::new(None, None, 0.0).unwrap();
        assert_eq!(
            dues(schedule, &[10 * MILLISECOND, 4 * MILLISECOND, 11 * MILLISECOND]),
            [0, 0, 1000]
        );
        let slow = Schedule::new(Some(f64::MIN_POSITIVE), None, 0.0).unwrap();
        assert_eq!(slow.due(1, 0, u64::MAX), Duration::MAX);
        assert_eq!(slow.due(0, u64::MAX, 0), Duration::ZERO);
    }

    #[test]
    fn paces_that_mean_nothing_are_refused() {
        for (speed, rate, delay) in [
            (Some(1.0), Some(1.0), 0.0),
            (Some(-1.0), None, 0.0),
            (Some(f64::NAN), None, 0.0),
            (Some(f64::INFINITY), None, 0.0),
            (None, Some(0.0), 0.0),
            (None, Some(-3.0), 0.0),
            (None, Some(f64::NAN), 0.0),
            (None, Some(1.1e9), 0.0),
            (None, None, f64::NAN),
            (None, None, 1e9),
            (None, None, -1e9),
        ] {
            let made = Schedule::new(speed, rate, delay);
            assert!(matches!(made, Err(OpError::Argument(..))), "{speed:?} {rate:?} {delay}");
        }
    }
}
