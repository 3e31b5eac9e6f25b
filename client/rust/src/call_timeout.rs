//! The time limit for calls of a broker, which threads and tasks share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The value for "no limit".
const UNLIMITED: u64 = u64::MAX;

/// A duration in nanoseconds that can be changed at any time, or [`UNLIMITED`].
#[derive(Debug)]
pub(crate) struct CallTimeout(AtomicU64);

impl Default for CallTimeout {
    fn default() -> Self {
        Self(AtomicU64::new(UNLIMITED))
    }
}

impl CallTimeout {
    pub(crate) fn set(&self, limit: Option<Duration>) {
        let nanoseconds = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(UNLIMITED));
        self.0.store(nanoseconds.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            UNLIMITED => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_beyond_the_range_are_no_limit() {
        let timeout = CallTimeout::default();
        assert_eq!(timeout.get(), None);
        for (set, get) in [
            (Some(Duration::from_millis(3)), Some(Duration::from_millis(3))),
            (Some(Duration::ZERO), Some(Duration::ZERO)),
            (Some(Duration::MAX), None),
            (None, None),
        ] {
            timeout.set(set);
            assert_eq!(timeout.get(), get);
        }
    }
}
