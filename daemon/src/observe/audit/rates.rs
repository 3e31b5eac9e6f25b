//! The limits on audit records a second, for each principal and in all.
//!
//! Half of the rate in all is used in the order of arrival. The other half is divided equally among the
//! principals with records in this second or the one before, with one more part for a further one. So a
//! principal that is refused without pause leaves room for the records of others. Limits and fields say
//! `user` for a principal.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::principal::PrincipalKey;

/// The rates, and how many users are counted separately.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records a second in all.
    pub in_all: u64,
    /// Records a second of one user.
    pub per_user: u64,
    /// Users that are counted separately; all further ones share one count.
    pub users: usize,
}

/// What is done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written, with the number of this user's records that were dropped before it.
    Written(u64),
    /// It is dropped because of the user's limit.
    UserDropped,
    /// It is dropped because of the limit in all.
    Dropped,
}

/// Whom a record is about; `None` for an event of the broker itself.
pub(super) type About = Option<PrincipalKey>;

/// The records of this second.
#[derive(Debug)]
pub(super) struct Rates {
    limits: Limits,
    began: Instant,
    /// Records in the half that is used in the order of arrival.
    open: u64,
    written: u64,
    /// The number of users with records in the second before.
    before: u64,
    active: u64,
    users: HashMap<About, Count>,
    /// The records of users that are not counted separately.
    rest: Count,
    /// Drops of users that were removed.
    forgotten: u64,
}

/// The records of one user.
#[derive(Debug, Default)]
struct Count {
    records: u64,
    /// Records in the user's part of the second half.
    reserved: u64,
    /// Records dropped since the last one that was written.
    dropped: u64,
}

impl Rates {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            began: now,
            open: 0,
            written: 0,
            before: 0,
            active: 0,
            users: HashMap::new(),
            rest: Count::default(),
            forgotten: 0,
        }
    }

    /// Decides about a record.
    pub(super) fn admit(&mut self, about: About, now: Instant) -> Verdict {
        if now.saturating_duration_since(self.began) >= Duration::from_secs(1) {
            self.begin_second(now);
        }
        let Limits { in_all, per_user, users } = self.limits;
        let is_apart = self.users.contains_key(&about) || self.users.len() < users;
        let count = if is_apart { self.users.entry(about).or_default() } else { &mut self.rest };
        self.active += u64::from(count.records == 0);
        count.records += 1;
        if count.records > per_user {
            count.dropped += 1;
            return Verdict::UserDropped;
        }
        let open = in_all / 2;
        let parts = match self.active.max(self.before) {
            1 => 1,
            several => several + 1,
        };
        let part = (in_all - open) / parts;
        let is_open = self.open < open;
        if self.written >= in_all || !(is_open || count.reserved < part) {
            return Verdict::Dropped;
        }
        if is_open {
            self.open += 1;
        } else {
            count.reserved += 1;
        }
        self.written += 1;
        Verdict::Written(std::mem::take(&mut count.dropped))
    }

    /// Returns the drops of removed users, once.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// Moves the beginning of this second back.
    #[cfg(test)]
    pub(super) fn began_before(&mut self, time: Duration) {
        self.began -= time;
    }

    fn begin_second(&mut self, now: Instant) {
        self.began = now;
        self.before = self.active;
        (self.open, self.written, self.active) = (0, 0, 0);
        let is_full = self.users.len() >= self.limits.users;
        self.users.retain(|_, count| {
            let stays = count.records > 0 || (count.dropped > 0 && !is_full);
            if !stays {
                self.forgotten += count.dropped;
            }
            (count.records, count.reserved) = (0, 0);
            stays
        });
        (self.rest.records, self.rest.reserved) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(in_all: u64, per_user: u64, users: usize) -> (Rates, Instant) {
        let now = Instant::now();
        (Rates::new(Limits { in_all, per_user, users }, now), now)
    }

    fn written(rates: &mut Rates, uid: u32, records: usize, now: Instant) -> usize {
        let verdicts = (0..records).map(|_| rates.admit(Some(PrincipalKey::of_uid(uid)), now));
        verdicts.filter(|verdict| matches!(verdict, Verdict::Written(_))).count()
    }

    #[test]
    fn one_user_does_not_exhaust_the_rate_in_all() {
        let (mut rates, now) = rates(100, 60, 8);
        assert_eq!(written(&mut rates, 1, 1000, now), 60);
        assert_eq!(written(&mut rates, 2, 30, now), 16, "one part of three");
    }

    #[test]
    fn many_users_leave_an_equal_part_to_each() {
        let (mut rates, mut now) = rates(100, 60, 8);
        for second in 0..3 {
            let floods: usize = (1..=4).map(|uid| written(&mut rates, uid, 1000, now)).sum();
            let quiet = written(&mut rates, 9, 7, now);
            let new = written(&mut rates, 10 + second, 7, now);
            assert!(floods + quiet + new <= 100, "{floods}, {quiet} and {new}");
            if second > 0 {
                assert_eq!((quiet, new), (7, 7));
            }
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn a_user_alone_has_the_whole_rate() {
        let (mut rates, now) = rates(3, 60, 8);
        assert_eq!(written(&mut rates, 1, 10, now), 3);
        assert_eq!(written(&mut rates, 1, 10, now + Duration::from_millis(999)), 0);
        assert_eq!(written(&mut rates, 1, 10, now + Duration::from_secs(1)), 3);
    }

    #[test]
    fn the_next_record_of_a_user_has_the_number_of_its_dropped_ones() {
        let (mut rates, now) = rates(100, 2, 8);
        let next = now + Duration::from_secs(3);
        for verdict in [Verdict::Written(0), Verdict::Written(0), Verdict::UserDropped] {
            assert_eq!(rates.admit(Some(PrincipalKey::of_uid(1)), now), verdict);
        }
        assert_eq!(rates.admit(Some(PrincipalKey::of_uid(2)), next), Verdict::Written(0));
        assert_eq!(rates.admit(Some(PrincipalKey::of_uid(1)), next), Verdict::Written(1));
        assert_eq!(rates.admit(Some(PrincipalKey::of_uid(1)), next), Verdict::Written(0));
    }

    #[test]
    fn memory_for_users_is_bounded_and_every_drop_is_counted() {
        let (mut rates, mut now) = rates(1_000_000, 1, 8);
        let mut reported = 0;
        for uid in 0..1000 {
            for _ in 0..2 {
                if let Verdict::Written(dropped) = rates.admit(Some(PrincipalKey::of_uid(uid)), now)
                {
                    reported += dropped;
                }
            }
            assert!(rates.users.len() <= 8);
            now += Duration::from_millis(50);
            reported += rates.take_forgotten();
        }
        let dropped = 1000 + 1000 - 1000_u64;
        let waiting: u64 = rates.users.values().map(|count| count.dropped).sum();
        assert!(reported + waiting + rates.rest.dropped >= dropped);
    }
}
