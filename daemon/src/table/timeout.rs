//! A socket's timeout: Python's three modes, kept in nanoseconds as CPython keeps it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::OpError;

/// How long a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timeout {
    /// Without a limit: `settimeout(None)`.
    Blocking,
    /// Not at all: `settimeout(0)`.
    NonBlocking,
    /// This long: `settimeout(seconds)`.
    After(Duration),
}

/// Why a number is not a timeout, as CPython sees it (`socket_parse_timeout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutError {
    Negative,
    /// Beyond the range of `struct timeval`.
    TooLarge,
}

impl Timeout {
    /// From Python's value in seconds. Rounds up to nanoseconds, as CPython does.
    pub fn from_seconds(seconds: Option<f64>) -> Result<Self, TimeoutError> {
        let Some(seconds) = seconds else {
            return Ok(Self::Blocking);
        };
        if seconds < 0.0 {
            return Err(TimeoutError::Negative);
        }
        let nanoseconds = (seconds * 1e9).ceil();
        // 2^63 ns is CPython's own limit (_PyTime_FromSecondsObject).
        if !nanoseconds.is_finite() || nanoseconds >= 9_223_372_036_854_775_808.0 {
            return Err(TimeoutError::TooLarge);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 <= nanoseconds < 2^63, checked above"
        )]
        let nanoseconds = nanoseconds as u64;
        Ok(if nanoseconds == 0 {
            Self::NonBlocking
        } else {
            Self::After(Duration::from_nanos(nanoseconds))
        })
    }

    /// Python's value in seconds.
    pub fn seconds(self) -> Option<f64> {
        match self {
            Self::Blocking => None,
            Self::NonBlocking => Some(0.0),
            Self::After(duration) => Some(duration.as_secs_f64()),
        }
    }

    /// Whether the socket has `O_NONBLOCK`: in every mode but the blocking one.
    pub fn sets_nonblocking(self) -> bool {
        self != Self::Blocking
    }
}

impl From<TimeoutError> for OpError {
    fn from(error: TimeoutError) -> Self {
        match error {
            TimeoutError::Negative => Self::value("timeout value out of range: it is negative"),
            TimeoutError::TooLarge => Self::overflow("timeout doesn't fit into C timeval"),
        }
    }
}

/// A timeout that several calls read while one changes it.
#[derive(Debug)]
pub struct TimeoutCell(AtomicI64);

const BLOCKING: i64 = -1;

impl TimeoutCell {
    /// A cell that holds `timeout`.
    pub fn new(timeout: Timeout) -> Self {
        Self(AtomicI64::new(pack(timeout)))
    }

    pub fn get(&self) -> Timeout {
        match self.0.load(Ordering::Acquire) {
            0 => Timeout::NonBlocking,
            nanoseconds => match u64::try_from(nanoseconds) {
                Ok(nanoseconds) => Timeout::After(Duration::from_nanos(nanoseconds)),
                Err(_) => Timeout::Blocking,
            },
        }
    }

    /// Sets it for calls that start later.
    pub fn set(&self, timeout: Timeout) {
        self.0.store(pack(timeout), Ordering::Release);
    }
}

fn pack(timeout: Timeout) -> i64 {
    match timeout {
        Timeout::Blocking => BLOCKING,
        Timeout::NonBlocking => 0,
        Timeout::After(duration) => i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_modes_of_python_round_trip() {
        for seconds in [None, Some(0.0), Some(0.25), Some(3600.0), Some(1e-9)] {
            let timeout = Timeout::from_seconds(seconds).unwrap();
            assert_eq!(TimeoutCell::new(timeout).get().seconds(), seconds);
        }
    }

    #[test]
    fn a_positive_timeout_never_rounds_down_to_none() {
        assert_eq!(Timeout::from_seconds(Some(1e-12)), Ok(Timeout::After(Duration::from_nanos(1))));
    }

    #[test]
    fn impossible_timeouts_are_refused() {
        assert_eq!(Timeout::from_seconds(Some(-1e-9)), Err(TimeoutError::Negative));
        assert_eq!(Timeout::from_seconds(Some(1e10)), Err(TimeoutError::TooLarge));
        assert_eq!(Timeout::from_seconds(Some(f64::INFINITY)), Err(TimeoutError::TooLarge));
    }
}
