//! Who calls, for how long, and what they hold.
//!
//! A [`Session`] owns handles; [`connection::Connection`]s are attached to it. Every connection
//! begins in an implicit session of its own, which `session.open` makes known by a token. The handles
//! close when the last connection has gone, after the linger it asked for.

pub mod token;
pub mod finished;
pub mod connection;
pub mod policy;
pub mod lookups;
mod rights;
pub mod broker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sockbroker_proto::api::session::RequestId;
use sockbroker_proto::handle::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::config::limits::{Limits, size};
use crate::error::{OpError, OpResult};
use crate::principal::Principal;
use crate::quota::{Reservation, Share, User};
use crate::session::finished::{Fate, Finished, KeptAnswer, LastCalls};
use crate::session::lookups::Lookups;
use crate::session::rights::GivenUp;
use crate::session::token::Token;
use crate::table::Table;
use crate::table::entry::Entry;
use crate::table::timeout::{Timeout, TimeoutCell};

/// What a principal's handles live in.
#[derive(Debug)]
pub struct Session {
    number: u64,
    /// Whose it is: who began it.
    principal: Principal,
    began: Instant,
    table: Mutex<Table>,
    handle_limit: usize,
    restriction_limit: usize,
    resolve_seconds: u64,
    /// `setdefaulttimeout`.
    pub default_timeout: TimeoutCell,
    /// What it has given up, and how often.
    restrictions: Mutex<Vec<GivenUp>>,
    restricted: AtomicUsize,
    /// Addresses that look-ups gave.
    lookups: Mutex<Lookups>,
    life: Mutex<Life>,
    closed: AtomicBool,
    opened: AtomicBool,
    ended: Notify,
}

/// Who is attached, and what is kept of those who were.
#[derive(Debug)]
struct Life {
    connections: HashSet<u64>,
    token: Option<Token>,
    linger: Duration,
    /// When a session without connections closes.
    expires: Option<Instant>,
    finished: Finished,
}

impl Session {
    /// An empty session of a principal.
    pub fn new(number: u64, principal: &Principal, limits: &Limits) -> Self {
        let longest = Duration::from_secs(limits.resolve_kept_seconds);
        Self {
            number,
            principal: principal.clone(),
            began: Instant::now(),
            table: Mutex::new(Table::default()),
            handle_limit: size(limits.handles),
            restriction_limit: size(limits.restrictions),
            resolve_seconds: limits.resolve_seconds,
            default_timeout: TimeoutCell::new(Timeout::Blocking),
            restrictions: Mutex::default(),
            restricted: AtomicUsize::new(0),
            lookups: Mutex::new(Lookups::new(size(limits.lookups_kept))),
            life: Mutex::new(Life {
                connections: HashSet::new(),
                token: None,
                linger: Duration::ZERO,
                expires: None,
                finished: Finished::new(
                    size(limits.resolve_kept),
                    size(limits.resolve_kept_bytes),
                    longest,
                ),
            }),
            closed: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// The number, for logs and people.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The user id of its principal, for reports.
    pub fn uid(&self) -> u32 {
        self.principal.subject().uid
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    // Both are whole after every statement, so a panic of another call does not spoil them.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names a new socket.
    pub fn insert(&self, entry: Arc<Entry>) -> OpResult<Handle> {
        let mut table = self.table();
        if self.closed.load(Ordering::Acquire) {
            return Err(OpError::Session("the session is closed"));
        }
        let limit = self.handle_limit;
        table
            .insert(entry, limit)
            .map_err(|_error| OpError::Limit { name: "handles", value: limit as u64 })
    }

    /// A handle for a new socket of a user, unless a limit stands in the way.
    pub fn room(&self, user: &Arc<User>) -> OpResult<Reservation> {
        if self.handles() >= self.handle_limit {
            let value = self.handle_limit as u64;
            return Err(OpError::Limit { name: "handles", value });
        }
        Ok(user.take(Share::Handles, 1)?)
    }

    /// The socket of a handle.
    pub fn entry(&self, handle: Handle) -> OpResult<Arc<Entry>> {
        self.table().get(handle).ok_or(OpError::Handle(handle))
    }

    /// Takes a socket out; its handle is void.
    pub fn remove(&self, handle: Handle) -> OpResult<Arc<Entry>> {
        self.table().remove(handle).ok_or(OpError::Handle(handle))
    }

    /// The open handles with their sockets, lowest first.
    pub fn entries(&self) -> Vec<(Handle, Arc<Entry>)> {
        self.table().entries()
    }

    /// How many handles are open.
    pub fn handles(&self) -> usize {
        self.table().open()
    }

    /// How many connections are attached.
    pub fn connections(&self) -> usize {
        self.life().connections.len()
    }

    /// Whether it was opened: whether others may attach or ask for lost answers.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Whether it was closed for good.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The token, once the session was opened.
    pub fn token(&self) -> Option<Token> {
        self.life().token.clone()
    }

    /// How long handles outlive the last connection.
    pub fn linger(&self) -> Duration {
        self.life().linger
    }

    /// Makes the session known: gives it a token, the same each time.
    pub fn open(&self, linger: Option<Duration>) -> OpResult<Token> {
        let mut life = self.life();
        if let Some(linger) = linger {
            life.linger = linger;
        }
        if let Some(token) = &life.token {
            return Ok(token.clone());
        }
        let token = Token::new(self.number)?;
        life.token = Some(token.clone());
        self.opened.store(true, Ordering::Release);
        Ok(token)
    }

    /// Attaches a connection.
    pub fn join(&self, connection: u64) {
        let mut life = self.life();
        life.connections.insert(connection);
        life.expires = None;
    }

    /// Detaches a connection and remembers how its calls ended. `true` if the session is to be closed.
    pub fn leave(&self, connection: u64, calls: LastCalls) -> bool {
        let mut life = self.life();
        life.connections.remove(&connection);
        if life.token.is_some() {
            life.finished.record(connection, calls);
        }
        let last = life.connections.is_empty();
        if last {
            life.expires = Some(Instant::now() + life.linger);
        }
        let over = last && (life.linger.is_zero() || life.token.is_none());
        drop(life);
        self.ended.notify_waiters();
        over
    }

    /// Lets a session that nobody is attached to wait so long for a connection.
    pub fn expect_connection(&self, within: Duration) {
        self.life().expires = Some(Instant::now() + within);
    }

    /// Whether nobody is attached and the time to wait is over.
    pub fn is_over(&self) -> bool {
        let mut life = self.life();
        life.finished.forget_old();
        life.connections.is_empty() && life.expires.is_some_and(|at| at <= Instant::now())
    }

    /// Closes every handle; new ones are refused from now on.
    pub fn close(&self) {
        let mut table = self.table();
        self.closed.store(true, Ordering::Release);
        let handles = std::mem::take(&mut *table);
        drop(table);
        drop(handles);
    }

    /// What became of a call on another connection of this session. Waits for the connection's end.
    pub async fn fate(
        &self,
        connection: u64,
        request: &RequestId,
        check: impl Fn(&KeptAnswer) -> OpResult<()>,
    ) -> OpResult<Fate> {
        let patience = Duration::from_secs(self.resolve_seconds);
        let wait = async {
            loop {
                // Registered before the look, so that no end is missed between the two.
                let ended = self.ended.notified();
                {
                    let mut life = self.life();
                    if !life.connections.contains(&connection) {
                        return life.finished.take(connection, request, &check);
                    }
                }
                ended.await;
            }
        };
        let late = OpError::Limit { name: "resolve_seconds", value: self.resolve_seconds };
        timeout(patience, wait).await.map_err(|_error| late)?
    }

    /// A session without handles that has given up as much.
    #[must_use]
    pub fn child(&self, number: u64, limits: &Limits) -> Self {
        let child = Self::new(number, &self.principal, limits);
        child.set_given_up(self.given_up());
        child
    }

    /// A session with every handle duplicated under the same number.
    pub fn duplicate(&self, number: u64, limits: &Limits) -> OpResult<Self> {
        let clone = self.child(number, limits);
        *clone.table() = self.table().duplicate()?;
        clone.default_timeout.set(self.default_timeout.get());
        clone.life().linger = self.linger();
        Ok(clone)
    }
}

#[cfg(test)]
mod tests;
