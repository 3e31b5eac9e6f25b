//! The rate of starts of workers, for each account.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Starts of this second, by account.
#[derive(Debug)]
pub(super) struct Starts {
    most: u64,
    began: Option<Instant>,
    counts: HashMap<u32, u64>,
}

impl Starts {
    /// At most this many starts a second for one account.
    pub(super) fn new(most: u64) -> Self {
        Self { most, began: None, counts: HashMap::new() }
    }

    /// Counts a start, unless the account has reached the limit.
    pub(super) fn admit(&mut self, account: u32, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= second) {
            self.began = Some(now);
            self.counts.clear();
        }
        let count = self.counts.entry(account).or_default();
        *count += 1;
        *count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_limited_for_each_user_and_second() {
        let (mut starts, now) = (Starts::new(2), Instant::now());
        let admitted = [7, 7, 7, 8].map(|uid| starts.admit(uid, now));
        assert_eq!(admitted, [true, true, false, true]);
        assert!(starts.admit(7, now + Duration::from_secs(1)));
    }
}
