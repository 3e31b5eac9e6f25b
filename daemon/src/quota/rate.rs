//! A rate limit: an amount a second for one user.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::LimitExceeded;

/// A rate limit. After a second without traffic the amount of one second passes at once. What exceeds it
/// is a debt, and the next message waits until the debt is paid.
#[derive(Debug)]
pub(super) struct Rate {
    limit: LimitExceeded,
    began: Instant,
    /// When the debt is paid, in nanoseconds since one second before `began`.
    paid: AtomicU64,
}

/// One second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

impl Rate {
    pub(super) fn new(limit: LimitExceeded) -> Self {
        Self { limit, began: Instant::now(), paid: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        let passed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        passed.saturating_add(SECOND)
    }

    /// How long until the debt is paid.
    pub(super) fn delay(&self) -> Option<(Duration, LimitExceeded)> {
        let debt = self.paid.load(Ordering::Relaxed).checked_sub(self.now())?;
        (debt > 0).then(|| (Duration::from_nanos(debt), self.limit))
    }

    /// Adds an amount to the debt.
    pub(super) fn charge(&self, amount: u64) {
        let cost = u128::from(amount) * u128::from(SECOND) / u128::from(self.limit.value.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let saved = self.now() - SECOND;
        let pay = |paid: u64| paid.max(saved).saturating_add(cost);
        self.paid.update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }
}
