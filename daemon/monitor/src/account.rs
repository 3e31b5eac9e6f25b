//! Accounts: the users for whom the monitor counts.
//!
//! A user with subordinate ids (`subuid(5)`) can start processes of 65 536 users. What these use counts for the one user.

use serde::{Deserialize, Serialize};

/// The user ids that count for other users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts(Vec<Subordinate>);

/// A range of subordinate ids, and their user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subordinate {
    pub first: u32,
    pub last: u32,
    pub user: u32,
}

impl Accounts {
    /// Accounts with these ranges. Of two that overlap, the one that begins later counts for their common ids.
    pub fn new(mut ranges: Vec<Subordinate>) -> Self {
        ranges.sort_unstable();
        Self(ranges)
    }

    /// The user for whom a user counts.
    pub fn of(&self, uid: u32) -> u32 {
        let before = self.0.partition_point(|range| range.first <= uid);
        let last = before.checked_sub(1).and_then(|index| self.0.get(index));
        last.filter(|range| uid <= range.last).map_or(uid, |range| range.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_count_for_their_user() {
        let range = |first, last, user| Subordinate { first, last, user };
        let accounts = Accounts::new(vec![range(200, 299, 8), range(100, 199, 7)]);
        let users = [99, 100, 199, 200, 299, 300].map(|uid| accounts.of(uid));
        assert_eq!(users, [99, 7, 7, 8, 8, 300]);
        assert_eq!(Accounts::default().of(5), 5);
    }
}
