//! Log lines about refused connections: a few a minute for each principal and reason, and one with the number
//! that was left out. Without the limit anyone who can open the socket could fill the log.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::principal::PrincipalKey;

/// The period in which lines are counted together.
const PERIOD: Duration = Duration::from_mins(1);
/// Pairs of principal and reason that are counted separately; further principals share a count for each
/// reason.
const KEYS: usize = 64;

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A limit of this name.
    Limit(&'static str),
    /// The kernel does not report the peer's credentials.
    UnknownPeer,
    /// The broker lacks descriptors or memory to serve it.
    NotServed,
    /// The broker lacks descriptors or memory to accept it.
    NotAccepted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(name) => write!(f, "limit {name}"),
            Self::UnknownPeer => f.write_str("unknown credentials"),
            Self::NotServed => f.write_str("cannot be served"),
            Self::NotAccepted => f.write_str("cannot be accepted"),
        }
    }
}

/// What is counted together: a reason, and a principal where the kernel reports one.
type Key = (Reason, Option<PrincipalKey>);

/// The lines of one key since the first of them.
#[derive(Debug)]
struct Count {
    began: Instant,
    lines: u64,
    left_out: u64,
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    reason: Reason,
    principal: Option<PrincipalKey>,
    count: u64,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, principal, count } = self;
        let s = if *count == 1 { "" } else { "s" };
        write!(f, "{count} more connection{s} refused ({reason}")?;
        match principal {
            Some(principal) => write!(f, ", {principal})"),
            None => f.write_str(")"),
        }
    }
}

/// The lines of the last minute.
#[derive(Debug)]
pub struct Refusals {
    /// Lines a minute of one user and reason.
    lines: u64,
    counts: Mutex<HashMap<Key, Count>>,
}

impl Refusals {
    /// `lines` is the number of lines a minute for each user and reason.
    pub fn new(lines: u64) -> Self {
        Self { lines, counts: Mutex::default() }
    }

    // Counts are whole after every statement, so a panic of another call does not spoil them.
    fn counts(&self) -> MutexGuard<'_, HashMap<Key, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line about a refused connection, or counts it.
    pub fn report(&self, reason: Reason, principal: Option<PrincipalKey>, write: impl FnOnce()) {
        if self.admit(reason, principal, Instant::now()) {
            write();
        }
    }

    /// Writes how many lines were left out in the minutes that are over.
    pub fn sweep(&self) {
        for left_out in self.take_left_out(Some(Instant::now())) {
            left_out.write();
        }
    }

    /// Writes how many lines were left out so far, at the end of the broker.
    pub fn finish(&self) {
        for left_out in self.take_left_out(None) {
            left_out.write();
        }
    }

    /// When the next minute of a count is over.
    pub fn next_over(&self) -> Option<Instant> {
        self.counts().values().map(|count| count.began + PERIOD).min()
    }

    /// Whether lines of the last minute are counted.
    pub fn is_counting(&self) -> bool {
        !self.counts().is_empty()
    }

    /// Whether a line is written.
    fn admit(&self, reason: Reason, principal: Option<PrincipalKey>, now: Instant) -> bool {
        let mut counts = self.counts();
        let mut key = (reason, principal);
        if !counts.contains_key(&key) && counts.len() >= KEYS {
            key.1 = None;
        }
        let count = counts.entry(key).or_insert(Count { began: now, lines: 0, left_out: 0 });
        if count.lines < self.lines {
            count.lines += 1;
            return true;
        }
        count.left_out += 1;
        false
    }

    /// Takes the counts of minutes that are over, or all.
    fn take_left_out(&self, now: Option<Instant>) -> Vec<LeftOut> {
        let is_over = |count: &Count| {
            now.is_none_or(|now| now.saturating_duration_since(count.began) >= PERIOD)
        };
        let mut counts = self.counts();
        let over = counts.extract_if(|_, count| is_over(count));
        let left_out = over.map(|((reason, principal), count)| LeftOut {
            reason,
            principal,
            count: count.left_out,
        });
        left_out.filter(|left_out| left_out.count > 0).collect()
    }
}

impl LeftOut {
    fn write(&self) {
        let Self { reason, principal, count } = self;
        let uid = principal.as_ref().and_then(PrincipalKey::uid);
        let remote = principal.as_ref().filter(|_| uid.is_none()).map(ToString::to_string);
        tracing::warn!(uid, principal = remote, %reason, count, "{self}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> PrincipalKey {
        PrincipalKey::of_uid(uid)
    }

    const REASON: Reason = Reason::Limit("connections_per_user");

    #[test]
    fn a_minute_has_a_few_lines_and_one_with_the_number_left_out() {
        let refusals = Refusals::new(3);
        let begun = Instant::now();
        let mut written = 0;
        for second in 0..59 {
            let now = begun + Duration::from_secs(second);
            for _ in 0..1000 {
                written += u64::from(refusals.admit(REASON, Some(user(7)), now));
            }
            assert_eq!(refusals.take_left_out(Some(now)), []);
        }
        assert_eq!(written, 3);
        let over = begun + Duration::from_mins(1);
        let left_out = refusals.take_left_out(Some(over));
        assert_eq!(
            left_out,
            [LeftOut { reason: REASON, principal: Some(user(7)), count: 59_000 - 3 }]
        );
        assert_eq!(
            left_out[0].to_string(),
            "58997 more connections refused (limit connections_per_user, uid 7)"
        );
        assert!(refusals.admit(REASON, Some(user(7)), over), "another minute");
        assert_eq!(refusals.take_left_out(None), []);
    }

    #[test]
    fn each_user_and_each_reason_has_its_own_lines() {
        let (refusals, now) = (Refusals::new(1), Instant::now());
        assert!(refusals.admit(REASON, Some(user(7)), now));
        assert!(!refusals.admit(REASON, Some(user(7)), now));
        assert!(refusals.admit(REASON, Some(user(8)), now));
        assert!(refusals.admit(Reason::UnknownPeer, Some(user(7)), now));
        assert!(refusals.admit(Reason::NotAccepted, None, now));
        let left_out = refusals.take_left_out(None);
        assert_eq!(
            left_out[0].to_string(),
            "1 more connection refused (limit connections_per_user, uid 7)"
        );
    }

    #[test]
    fn many_users_do_not_make_many_lines() {
        let (refusals, now) = (Refusals::new(2), Instant::now());
        let written =
            (0..100_000).filter(|uid| refusals.admit(REASON, Some(user(*uid)), now)).count();
        assert!(written <= 64 + 2, "{written}");
        assert!(refusals.counts().len() <= KEYS + 1);
        let of_several = refusals.take_left_out(None);
        assert_eq!(
            of_several[0].to_string(),
            format!("{} more connections refused ({REASON})", 100_000 - 66)
        );
    }
}
