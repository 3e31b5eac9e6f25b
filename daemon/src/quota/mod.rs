//! Quotas: what each principal uses, over all of its connections and sessions, and its rates.
//!
//! A share is counted in two atomic numbers, the principal's and that of all; a rate is one number. A call
//! takes no lock, so a principal at its limit does not delay others. Limits and errors say `user` for a
//! principal, as the configuration does.

pub mod closing;
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
use crate::quota::closing::{Closing, Length};
use crate::quota::rate::Rate;
use crate::quota::traffic::Traffic;

/// What is counted for each user and for all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Open handles.
    Handles,
    /// Waiting calls.
    Calls,
    /// Bytes held for waiting calls, incomplete messages, unread answers, and what `MSG_WAITALL` gathers.
    Bytes,
    /// Descriptors held for waiting calls and incomplete messages, and those that are being closed.
    Descriptors,
    /// Bytes of the restrictions of sessions.
    Restrictions,
    /// Bytes of answers and ids kept for `call.resolve`.
    Resolvable,
    /// Bytes of kernel memory that socket options take.
    Kernel,
    /// Captures.
    Captures,
    /// Bytes of the rings of captures.
    CaptureBytes,
    /// Calls of `capture.replay` that send.
    Replays,
    /// Channels.
    Channels,
}

/// How many kinds of [`Share`] there are.
const SHARES: usize = 11;

/// The limits of all users.
#[derive(Debug)]
pub struct Quota {
    /// The limit of each [`Share`] for one user, in the order of the enumeration.
    pub own: [LimitExceeded; SHARES],
    /// The limits for all together.
    pub all: [LimitExceeded; SHARES],
    /// Messages a second of one user; 0 means no limit.
    pub packets: LimitExceeded,
    /// Bytes of data a second of one user; 0 means no limit.
    pub bytes: LimitExceeded,
    /// Concurrent look-ups of one user.
    pub lookups: usize,
    /// Concurrent calls made with the identity of one user.
    pub identities: usize,
    /// Concurrent closes that may wait, in all and of one user.
    pub closes: (usize, usize),
}

impl Quota {
    /// The quota of a configuration.
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
                limit!(captures_per_user),
                limit!(capture_bytes_per_user),
                limit!(replays_per_user),
                limit!(channels_per_user),
            ],
            all: [
                limit!(handles_in_all),
                limit!(calls_in_flight_in_all),
                limit!(buffered_bytes_in_all),
                limit!(buffered_descriptors_in_all),
                limit!(restriction_bytes_in_all),
                limit!(resolve_kept_bytes_in_all),
                limit!(kernel_bytes_in_all),
                limit!(captures_in_all),
                limit!(capture_bytes_in_all),
                limit!(replays_in_all),
                limit!(channels_in_all),
            ],
            packets: limit!(packets_per_second),
            bytes: limit!(bytes_per_second),
            lookups: size(limits.resolver_jobs_per_user),
            identities: size(limits.identity_jobs_per_user),
            closes: (size(limits.closing_jobs), size(limits.closing_jobs_per_user)),
        }
    }
}

/// What one principal uses of the limits.
#[derive(Debug)]
pub struct User {
    key: PrincipalKey,
    quota: Arc<Quota>,
    own: [AtomicU64; SHARES],
    all: Arc<[AtomicU64; SHARES]>,
    packets: Option<Rate>,
    bytes: Option<Rate>,
    traffic: Traffic,
    /// Limits concurrent look-ups.
    pub lookups: Arc<Semaphore>,
    /// Limits concurrent threads with this user's ids.
    pub identities: Arc<Semaphore>,
    closing: Arc<Closing>,
}

/// A part of a share in use; returned when dropped.
#[derive(Debug)]
pub struct Reservation {
    user: Arc<User>,
    share: Share,
    amount: u64,
}

impl User {
    fn new(
        key: PrincipalKey,
        quota: Arc<Quota>,
        all: Arc<[AtomicU64; SHARES]>,
        closing: Arc<Closing>,
    ) -> Self {
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
            closing,
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

    /// Reserves a part of a share, or returns the limit that it would exceed.
    pub fn take(self: &Arc<Self>, share: Share, amount: u64) -> Result<Reservation, LimitExceeded> {
        self.reserve(share, amount)?;
        Ok(Reservation { user: self.clone(), share, amount })
    }

    /// Takes what is in use already, such as before a restart or until a descriptor is closed; no limit refuses it.
    pub fn take_back(self: &Arc<Self>, share: Share, amount: u64) -> Reservation {
        self.own[share as usize].fetch_add(amount, Ordering::Relaxed);
        self.all[share as usize].fetch_add(amount, Ordering::Relaxed);
        Reservation { user: self.clone(), share, amount }
    }

    /// Whether more of a share is in use than the limit of one user allows, which only [`User::take_back`] causes.
    pub fn exceeds(&self, share: Share) -> bool {
        self.used(share) > self.quota.own[share as usize].value
    }

    /// Runs a job that closes descriptors of the user, on a thread, because the close may wait.
    pub fn close_apart(&self, length: Length, job: impl FnOnce() + Send + 'static) {
        self.closing.run(&self.key, length, Box::new(job));
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

    /// How long the next message has to wait, and which rate delays it.
    pub fn delay(&self) -> Option<(Duration, LimitExceeded)> {
        let delay = |rate: &Option<Rate>| rate.as_ref().and_then(Rate::delay);
        delay(&self.packets).max_by_time(delay(&self.bytes))
    }

    /// Counts messages that were sent, and their bytes.
    pub fn sent(&self, packets: usize, bytes: usize) {
        self.traffic.sent.add(packets, bytes);
        self.charge(packets, bytes);
    }

    /// Counts messages that were received, and their bytes.
    pub fn received(&self, packets: usize, bytes: usize) {
        self.traffic.received.add(packets, bytes);
        self.charge(packets, bytes);
    }

    fn charge(&self, packets: usize, bytes: usize) {
        if let Some(rate) = &self.packets {
            rate.charge(packets as u64);
        }
        if let Some(rate) = &self.bytes {
            rate.charge(bytes as u64);
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
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Its amount.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Changes the amount. An amount beyond a limit is refused and changes nothing.
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

/// Every principal that the broker has served.
#[derive(Debug)]
pub struct Users {
    quota: Arc<Quota>,
    all: Arc<[AtomicU64; SHARES]>,
    known: Mutex<HashMap<PrincipalKey, Arc<User>>>,
    /// The traffic of users that were removed.
    past: Traffic,
    closing: Arc<Closing>,
}

/// At this number of users, those that use nothing are removed.
const KNOWN: usize = 1024;

impl Users {
    pub fn new(quota: Arc<Quota>) -> Self {
        let closing = Arc::new(Closing::new(quota.closes.0, quota.closes.1));
        let (all, known, past) = (Arc::default(), Mutex::default(), Traffic::default());
        Self { quota, all, known, past, closing }
    }

    /// The user with this key. Its debts remain while it has no connection.
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
        let user = || {
            let (quota, all) = (self.quota.clone(), self.all.clone());
            Arc::new(User::new(key.clone(), quota, all, self.closing.clone()))
        };
        known.entry(key.clone()).or_insert_with(user).clone()
    }

    /// Whether no user owes anything to a rate.
    pub fn are_idle(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().all(|user| user.is_idle())
    }

    /// The traffic of the sockets of all users.
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
            closes: (1, 1),
        })
    }

    /// A user with this limit on each share.
    pub(crate) fn user(share: u64) -> Arc<User> {
        Users::new(quota(share, u64::MAX, 0, 0)).user(&uid(1))
    }

    /// A handle of a user without limits.
    pub(crate) fn handle() -> Reservation {
        let users = Users::new(quota(u64::MAX, u64::MAX, 0, 0));
        users.user(&uid(1)).take(Share::Handles, 1).unwrap()
    }

    #[test]
    fn shares_are_limited_for_each_user_and_for_all() {
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
    fn a_reservation_grows_and_shrinks_within_the_limit() {
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
    fn a_second_of_traffic_passes_at_once_and_then_the_rate_holds() {
        let user = Users::new(quota(1, 1, 100, 0)).user(&uid(1));
        for _ in 0..100 {
            assert_eq!(user.delay(), None);
            user.charge(1, 1 << 20);
        }
        // An hour's worth. This test may take a part of that time.
        user.charge(360_000, 0);
        let (delay, exceeded) = user.delay().unwrap();
        assert_eq!(exceeded, limit("packets", 100));
        assert!((3000..=3600).contains(&delay.as_secs()), "{delay:?}");
    }

    #[test]
    fn the_slower_rate_delays_and_without_rates_nothing_waits() {
        let user = Users::new(quota(1, 1, 1000, 10)).user(&uid(1));
        user.charge(1001, 100);
        assert_eq!(user.delay().unwrap().1, limit("bytes", 10));
        let free = Users::new(quota(1, 1, 0, 0)).user(&uid(1));
        free.charge(usize::MAX, usize::MAX);
        assert_eq!(free.delay(), None);
    }

    #[test]
    fn rate_debt_is_kept_after_the_last_connection_ends() {
        let users = Users::new(quota(1, 1, 1, 0));
        users.user(&uid(7)).charge(100, 0);
        assert!(users.user(&uid(7)).delay().is_some());
        assert!(users.user(&uid(8)).delay().is_none());
        for number in 1000..3000 {
            users.user(&uid(number));
        }
        assert!(users.user(&uid(7)).delay().is_some(), "the debt remains");
        assert!(users.known.lock().unwrap().len() <= KNOWN, "the others are removed");
    }
}
