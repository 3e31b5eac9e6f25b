//! Sessions: what the handles of a principal live in.
//!
//! A [`Session`] owns sockets, streams and the streams' tasks; [`connection::Connection`]s are attached to
//! it. Every connection begins in an implicit session of its own, which `session.open` makes known by a
//! token. A session closes when its last connection has ended and the linger that it asked for is over.

pub mod token;
pub mod finished;
pub mod lookups;
pub mod restriction;
pub mod tasks;
mod handles;
mod streams;
mod opening;
mod waiting;
mod call_outcome;
mod restricting;
mod derived;
mod closing;
pub mod connection;
pub mod broker;
mod lifecycle;
pub mod channel_place;
pub mod pending_channels;
pub mod policy;
mod reload;
mod revocation;
pub mod monitor_link;
pub mod session_lease;
pub mod memory_lease;
mod claim;
pub mod persistence;
mod saving;
pub mod parking;
pub mod lots;
pub mod socket_record;
pub mod record;
pub mod restore;
pub mod recovery;
pub mod sweep_schedule;
pub mod sweep;
pub mod activity;
mod idleness;
mod shutdown;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::limits::{Limits, size};
use crate::network::known::KnownNetworks;
use crate::principal::Principal;
use crate::session::finished::Finished;
use crate::session::lookups::Lookups;
use crate::session::parking::Persistence;
use crate::session::restriction::SessionRestriction;
use crate::session::tasks::Tasks;
use crate::session::token::KnownToken;
use crate::table::Table;
use crate::table::timeout::{Timeout, TimeoutCell};

#[derive(Debug)]
pub struct Session {
    number: u64,
    principal: Principal,
    began: Instant,
    limits: SessionLimits,
    /// `setdefaulttimeout`.
    pub default_timeout: TimeoutCell,
    /// Where it was given sockets without a handle.
    pub networks: KnownNetworks,
    /// The addresses that its look-ups returned.
    pub lookups: Lookups,
    /// What its handles name; apart from the rest because every call looks a handle up.
    table: Mutex<Table>,
    state: Mutex<State>,
    /// How often it gave rights up.
    restricted: AtomicUsize,
    opened: AtomicBool,
    closed: AtomicBool,
    /// Notified whenever a connection has ended.
    ended: Notify,
    tasks: Tasks,
    /// The number of its channels.
    channels: Arc<AtomicU64>,
    /// Where its handles lie, if it outlives this process.
    persistence: Mutex<Option<Arc<Persistence>>>,
    /// Whether it was recovered, and has had no connection since.
    awaits_client: AtomicBool,
    /// Whether it was recovered, and no connection has made a call in it since.
    is_unused: AtomicBool,
    /// Whether a call has asked that it outlives this process.
    asked_to_persist: AtomicBool,
    /// The restrictions that the monitor has noted.
    noted: AtomicUsize,
    /// Whether received bytes stay in their sockets until the response is sent.
    exactly_once: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct SessionLimits {
    handles: usize,
    restrictions: usize,
    resolve_seconds: u64,
}

#[derive(Debug)]
struct State {
    connections: HashSet<u64>,
    token: Option<KnownToken>,
    linger: Duration,
    /// When a session without connections closes.
    expires: Option<Instant>,
    /// Until when a session that was recovered waits for a client to use it.
    reattach: Option<Instant>,
    finished: Finished,
    restrictions: Vec<SessionRestriction>,
}

impl Session {
    /// An empty session.
    pub fn new(number: u64, principal: &Principal, limits: &Limits) -> Self {
        let longest = Duration::from_secs(limits.resolve_kept_seconds);
        let finished =
            Finished::new(size(limits.resolve_kept), size(limits.resolve_kept_bytes), longest);
        Self {
            number,
            principal: principal.clone(),
            began: Instant::now(),
            limits: SessionLimits {
                handles: size(limits.handles),
                restrictions: size(limits.restrictions),
                resolve_seconds: limits.resolve_seconds,
            },
            default_timeout: TimeoutCell::new(Timeout::Blocking),
            networks: KnownNetworks::default(),
            lookups: Lookups::new(size(limits.lookups_kept)),
            table: Mutex::new(Table::default()),
            state: Mutex::new(State {
                connections: HashSet::new(),
                token: None,
                linger: Duration::ZERO,
                expires: None,
                reattach: None,
                finished,
                restrictions: Vec::new(),
            }),
            restricted: AtomicUsize::new(0),
            opened: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: Notify::new(),
            tasks: Tasks::default(),
            channels: Arc::default(),
            persistence: Mutex::default(),
            awaits_client: AtomicBool::new(false),
            is_unused: AtomicBool::new(false),
            asked_to_persist: AtomicBool::new(false),
            noted: AtomicUsize::new(0),
            exactly_once: AtomicBool::new(false),
        }
    }

    /// The session's number, which is never used again.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The user id of its principal, for reports.
    pub fn uid(&self) -> u32 {
        self.principal.subject().uid
    }

    /// The time since it began.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    // Both are consistent after every statement, so a panic of another call does not spoil them.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
