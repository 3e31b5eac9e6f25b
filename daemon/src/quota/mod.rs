//! What one user has in use, over all of its connections and sessions, and how fast it may go.
//!
//! Shares are counted by two atomic numbers, the user's and everybody's; a rate is one. No lock is
//! taken on the way of a call, so a user at its limit costs the others nothing.

pub mod kernel_memory;
mod rate;
pub mod traffic;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::limits::{Limits, size};
use crate::error::LimitExceeded;
use crate::principal::PrincipalKey;
use crate::quota::rate::Rate;
use crate::quota::traffic::Traffic;

/// What is shared between users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Open sockets.
    Handles,
    /// Calls that wait.
    Calls,
    /// Bytes held for calls that wait, and for messages that are not yet whole.
    Bytes,
    /// Descriptors held for calls that wait.
    Descriptors,
    /// Bytes of what sessions keep by `session.restrict`.
    Restrictions,
    /// Bytes of what is kept for `call.resolve`.
    Resolvable,
    /// Bytes of kernel memory that options of sockets take.
    Kernel,
}

/// How many kinds of [`Share`] there are.
const SHARES: usize = 7;

/// The limits of all users.
#[derive(Debug)]
pub struct Quota {
    /// The most of each [`Share`] for one user, in the order of the enumeration.
    pub own: [LimitExceeded; SHARES],
    /// The most for all together.
    pub all: [LimitExceeded; SHARES],
    /// Messages a second of one user; 0 for any number.
    pub packets: LimitExceeded,
    /// Bytes of data a second of one user; 0 for any number.
    pub bytes: LimitExceeded,
    /// Look-ups at a time of one user.
    pub lookups: usize,
    /// Calls at a time that are made as one user.
    pub identities: usize,
}

impl Quota {
    /// The quota that these limits give.
    pub fn new(limits: &Limits) -> Self {
        // As in `limits!`, so that a refusal has the name that `session.limits` reports.
        macro_rules! limit {
            ($name:ident) => {
                LimitExceeded { name: stringify!($name), value: limits.$name }
            };
        }
        Self {
            own: [
                limit!(handles_per_user),
                limit!(calls_in_flight_per_user),
                limit!(buffered_bytes_per_user),
                limit!(buffered_descriptors_per_user),
                limit!(restriction_bytes_per_user),
                limit!(resolve_kept_bytes_per_user),
                limit!(kernel_bytes_per_user),
            ],
            all: [
                limit!(handles_in_all),
                limit!(calls_in_flight_in_all),
                limit!(buffered_bytes_in_all),
                limit!(buffered_descriptors_in_all),
                limit!(restriction_bytes_in_all),
                limit!(resolve_kept_bytes_in_all),
                limit!(kernel_bytes_in_all),
            ],
            packets: limit!(packets_per_second),
            bytes: limit!(bytes_per_second),
            lookups: size(limits.resolver_jobs_per_user),
            identities: size(limits.identity_jobs_per_user),
        }
    }
}

/// One user.
#[derive(Debug)]
pub struct User {
    key: PrincipalKey,
    quota: Arc<Quota>,
    own: [AtomicU64; SHARES],
    all: Arc<[AtomicU64; SHARES]>,
    packets: Option<Rate>,
    bytes: Option<Rate>,
    traffic: Traffic,
    /// The gate before the resolver.
    pub lookups: Arc<Semaphore>,
    /// The gate before threads that act as this user.
    pub identities: Arc<Semaphore>,
}

/// A part of a share in use; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    user: Arc<User>,
    share: Share,
    amount: u64,
}

impl User {
    fn new(key: PrincipalKey, quota: Arc<Quota>, all: Arc<[AtomicU64; SHARES]>) -> Self {
        let rate = |limit: LimitExceeded| (limit.value > 0).then(|| Rate::new(limit));
        Self {
            key,
            own: Default::default(),
            all,
            packets: rate(quota.packets),
            bytes: rate(quota.bytes),
            traffic: Traffic::default(),
            lookups: Arc::new(Semaphore::new(quota.lookups)),
            identities: Arc::new(Semaphore::new(quota.identities)),
            quota,
        }
    }

    /// The key of the principal.
    pub fn key(&self) -> &PrincipalKey {
        &self.key
    }

    /// How much of a share is in use.
    pub fn used(&self, share: Share) -> u64 {
        self.own[share as usize].load(Ordering::Relaxed)
    }

    /// Takes a part of a share, unless a limit stands in the way.
    pub fn take(self: &Arc<Self>, share: Share, amount: u64) -> Result<Reservation, LimitExceeded> {
        self.reserve(share, amount)?;
        Ok(Reservation { user: self.clone(), share, amount })
    }

    /// Takes back what was in use before a restart; no limit refuses it.
    pub fn take_back(self: &Arc<Self>, share: Share, amount: u64) -> Reservation {
        self.own[share as usize].fetch_add(amount, Ordering::Relaxed);
        self.all[share as usize].fetch_add(amount, Ordering::Relaxed);
        Reservation { user: self.clone(), share, amount }
    }

    fn reserve(&self, share: Share, amount: u64) -> Result<(), LimitExceeded> {
        let kind = share as usize;
        add(&self.own[kind], amount, self.quota.own[kind])?;
        let added = add(&self.all[kind], amount, self.quota.all[kind]);
        if added.is_err() {
            self.own[kind].fetch_sub(amount, Ordering::Relaxed);
        }
        added
    }

    fn give_back(&self, share: Share, amount: u64) {
        self.own[share as usize].fetch_sub(amount, Ordering::Relaxed);
        self.all[share as usize].fetch_sub(amount, Ordering::Relaxed);
    }

    /// How long the next message has to wait, and for which rate.
    pub fn delay(&self) -> Option<(Duration, LimitExceeded)> {
        let delay = |rate: &Option<Rate>| rate.as_ref().and_then(Rate::delay);
        delay(&self.packets).max_by_time(delay(&self.bytes))
    }

    /// Counts messages that were sent, and their bytes.
    pub fn sent(&self, packets: usize, bytes: usize) {
        self.traffic.sent.add(packets, bytes);
        self.spend(packets, bytes);
    }

    /// Counts messages that were received, and their bytes.
    pub fn received(&self, packets: usize, bytes: usize) {
        self.traffic.received.add(packets, bytes);
        self.spend(packets, bytes);
    }

    fn spend(&self, packets: usize, bytes: usize) {
        if let Some(rate) = &self.packets {
            rate.spend(packets as u64);
        }
        if let Some(rate) = &self.bytes {
            rate.spend(bytes as u64);
        }
    }

    fn is_idle(&self) -> bool {
        self.delay().is_none()
    }
}

fn add(counter: &AtomicU64, amount: u64, limit: LimitExceeded) -> Result<(), LimitExceeded> {
    let before = counter.fetch_add(amount, Ordering::Relaxed);
    if before.saturating_add(amount) > limit.value {
        counter.fetch_sub(amount, Ordering::Relaxed);
        return Err(limit);
    }
    Ok(())
}

impl Reservation {
    /// Whose it is.
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes as much as this now is, instead of what it was.
    pub fn resize(&mut self, amount: u64) -> Result<(), LimitExceeded> {
        if let Some(more) = amount.checked_sub(self.amount) {
            self.user.reserve(self.share, more)?;
        } else {
            self.user.give_back(self.share, self.amount - amount);
        }
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.user.give_back(self.share, self.amount);
    }
}

/// The later of two delays.
trait Later {
    fn max_by_time(self, other: Self) -> Self;
}

impl Later for Option<(Duration, LimitExceeded)> {
    fn max_by_time(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(if a.0 >= b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}

/// Every user that was here.
#[derive(Debug)]
pub struct Users {
    quota: Arc<Quota>,
    all: Arc<[AtomicU64; SHARES]>,
    known: Mutex<HashMap<PrincipalKey, Arc<User>>>,
    /// Of users that were forgotten.
    past: Traffic,
}

/// From so many users on, those that use nothing are forgotten.
const KNOWN: usize = 1024;

impl Users {
    /// No users yet.
    pub fn new(quota: Arc<Quota>) -> Self {
        Self { quota, all: Arc::default(), known: Mutex::default(), past: Traffic::default() }
    }

    /// The user of this id. It stays known when it has gone, so that it finds its debts again.
    pub fn user(&self, key: &PrincipalKey) -> Arc<User> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN && !known.contains_key(key) {
            known.retain(|_, user| {
                let stays = Arc::strong_count(user) > 1 || !user.is_idle();
                if !stays {
                    self.past.include(&user.traffic);
                }
                stays
            });
        }
        let user = || Arc::new(User::new(key.clone(), self.quota.clone(), self.all.clone()));
        known.entry(key.clone()).or_insert_with(user).clone()
    }

    /// What went through the sockets of all users so far.
    pub fn traffic(&self) -> Traffic {
        let all = Traffic::default();
        all.include(&self.past);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().for_each(|user| all.include(&user.traffic));
        all
    }

    /// How much of a share all users have in use.
    pub fn used(&self, share: Share) -> u64 {
        self.all[share as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn uid(uid: u32) -> PrincipalKey {
        PrincipalKey::of_uid(uid)
    }

    fn limit(name: &'static str, value: u64) -> LimitExceeded {
        LimitExceeded { name, value }
    }

    fn quota(own: u64, all: u64, packets: u64, bytes: u64) -> Arc<Quota> {
        Arc::new(Quota {
            own: [limit("own", own); SHARES],
            all: [limit("all", all); SHARES],
            packets: limit("packets", packets),
            bytes: limit("bytes", bytes),
            lookups: 1,
            identities: 1,
        })
    }

    /// A user with so much of each share.
    pub(crate) fn user(share: u64) -> Arc<User> {
        Users::new(quota(share, u64::MAX, 0, 0)).user(&uid(1))
    }

    /// A handle of a user without limits.
    pub(crate) fn handle() -> Reservation {
        let users = Users::new(quota(u64::MAX, u64::MAX, 0, 0));
        users.user(&uid(1)).take(Share::Handles, 1).unwrap()
    }

    #[test]
    fn a_share_is_limited_for_each_user_and_for_all() {
        let users = Users::new(quota(2, 3, 0, 0));
        let (one, two) = (users.user(&uid(1)), users.user(&uid(2)));
        let first = one.take(Share::Handles, 2).unwrap();
        assert_eq!(one.take(Share::Handles, 1).unwrap_err(), limit("own", 2));
        assert_eq!(two.take(Share::Handles, 2).unwrap_err(), limit("all", 3));
        let second = two.take(Share::Handles, 1).unwrap();
        assert_eq!((one.used(Share::Handles), users.used(Share::Handles)), (2, 3));
        assert_eq!(one.used(Share::Calls), 0);
        drop((first, second));
        assert_eq!((one.used(Share::Handles), users.used(Share::Handles)), (0, 0));
        assert!(two.take(Share::Handles, 2).is_ok());
    }

    #[test]
    fn what_is_taken_grows_and_shrinks_within_the_limit() {
        let users = Users::new(quota(10, 20, 0, 0));
        let user = users.user(&uid(1));
        let mut taken = user.take(Share::Bytes, 4).unwrap();
        taken.resize(10).unwrap();
        assert_eq!(taken.resize(11), Err(limit("own", 10)));
        assert_eq!(user.used(Share::Bytes), 10);
        taken.resize(1).unwrap();
        assert_eq!((user.used(Share::Bytes), users.used(Share::Bytes)), (1, 1));
        drop(taken);
        assert_eq!((user.used(Share::Bytes), users.used(Share::Bytes)), (0, 0));
    }

    #[test]
    fn a_seconds_worth_goes_at_once_and_then_the_rate_holds() {
        let user = Users::new(quota(1, 1, 100, 0)).user(&uid(1));
        for _ in 0..100 {
            assert_eq!(user.delay(), None);
            user.spend(1, 1 << 20);
        }
        // An hour's worth, of which this test may take a part.
        user.spend(360_000, 0);
        let (delay, crossed) = user.delay().unwrap();
        assert_eq!(crossed, limit("packets", 100));
        assert!((3000..=3600).contains(&delay.as_secs()), "{delay:?}");
    }

    #[test]
    fn the_slower_of_both_rates_counts_and_without_one_nothing_waits() {
        let user = Users::new(quota(1, 1, 1000, 10)).user(&uid(1));
        user.spend(1001, 100);
        assert_eq!(user.delay().unwrap().1, limit("bytes", 10));
        let free = Users::new(quota(1, 1, 0, 0)).user(&uid(1));
        free.spend(usize::MAX, usize::MAX);
        assert_eq!(free.delay(), None);
    }

    #[test]
    fn a_user_that_comes_back_finds_its_debts() {
        let users = Users::new(quota(1, 1, 1, 0));
        users.user(&uid(7)).spend(100, 0);
        assert!(users.user(&uid(7)).delay().is_some());
        assert!(users.user(&uid(8)).delay().is_none());
        for number in 1000..3000 {
            users.user(&uid(number));
        }
        assert!(users.user(&uid(7)).delay().is_some(), "a debt is not forgotten");
        assert!(users.known.lock().unwrap().len() <= KNOWN, "the others are");
    }
}
