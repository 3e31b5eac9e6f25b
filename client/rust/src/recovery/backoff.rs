//! The pauses between attempts to connect again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// The first pause, and the longest one.
const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(500);

/// Pauses that double up to [`LONGEST`], each shortened by a random part so that clients do not return all at once.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The next pause: between a half and the whole of the present step.
    pub(crate) fn next(&mut self) -> Duration {
        let step = self.0;
        self.0 = (step * 2).min(LONGEST);
        let random = u32::from(u8::try_from(random() & 0xff).unwrap_or(0));
        step / 2 + step * random / 512
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..64).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2, "{pauses:?}");
        let late = &pauses[32..];
        assert!(late.iter().all(|pause| *pause <= LONGEST && *pause >= LONGEST / 2), "{pauses:?}");
        assert!(late.iter().any(|pause| *pause != late[0]), "{pauses:?}");
    }
}
