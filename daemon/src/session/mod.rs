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
pub mod channels;
mod rights;
pub mod record;
pub mod monitor_link;
pub mod parking;
pub mod lots;
pub mod persistence;
pub mod policy;
pub mod recovery;
pub mod restore;
pub mod revocation;
pub mod activity;
pub mod broker;
pub mod sweep;
mod waiting;
pub mod sweeps;
pub mod places;
pub mod memory_lease;
pub mod connection;
mod streams;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sockbroker_proto::api::session::RequestId;
use sockbroker_proto::handle::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::config::limits::{Limits, size};
use crate::error::{OpError, OpResult};
use crate::network::known::KnownNetworks;
use crate::principal::Principal;
use crate::quota::closing::Length;
use crate::quota::{Reservation, Share, User};
use crate::session::finished::{CallOutcome, Finished, KeptAnswer};
use crate::session::lookups::Lookups;
use crate::session::parking::Persistence;
use crate::session::restriction::SessionRestriction;
use crate::session::tasks::Tasks;
use crate::session::token::{KnownToken, Token};
use crate::table::channel::ChannelEnd;
use crate::table::entry::Entry;
use crate::table::stream::Stream;
use crate::table::timeout::{Timeout, TimeoutCell};
use crate::table::{Resource, Table};

/// More handles are closed on a thread.
const CLOSED_AT_ONCE: usize = 64;

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
    lookups: Lookups,
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
            table: Mutex::new(Table::default()),
            state: Mutex::new(State {
                connections: HashSet::new(),
                token: None,
                linger: Duration::ZERO,
                expires: None,
                reattach: None,
                finished,
                restrictions: Vec::new(),
                lookups: Lookups::new(size(limits.lookups_kept)),
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

/// Handles.
impl Session {
    /// Gives a socket a handle.
    pub fn insert(&self, entry: Arc<Entry>) -> OpResult<Handle> {
        self.insert_resource(Resource::Socket(entry))
    }

    fn insert_resource(&self, resource: Resource) -> OpResult<Handle> {
        let mut table = self.table();
        if self.is_closed() {
            return Err(OpError::Session("the session is closed"));
        }
        let named = resource.clone();
        let handle =
            table.insert(resource, self.limits.handles).map_err(|_full| self.too_many_handles())?;
        if let Some(persistence) = self.persistence()
            && let Err(error) = persistence.add(&self.owner(), &table, handle, &named)
        {
            table.remove(handle);
            return Err(error);
        }
        Ok(handle)
    }

    fn too_many_handles(&self) -> OpError {
        OpError::Limit { name: "handles", value: self.limits.handles as u64 }
    }

    /// Reserves a handle of a user, unless the session or the user has too many.
    pub fn reserve_handle(&self, user: &Arc<User>) -> OpResult<Reservation> {
        if self.handles() >= self.limits.handles {
            return Err(self.too_many_handles());
        }
        if let Some(persistence) = self.persistence() {
            persistence.check_room()?;
        }
        Ok(user.take(Share::Handles, 1)?)
    }

    fn resource(&self, handle: Handle) -> OpResult<Resource> {
        self.table().get(handle).ok_or(OpError::Handle(handle))
    }

    /// The socket of a handle.
    pub fn entry(&self, handle: Handle) -> OpResult<Arc<Entry>> {
        match self.resource(handle)? {
            Resource::Socket(entry) => Ok(entry),
            Resource::Stream(stream) => {
                Err(OpError::HandleKind { handle, kind: stream.kind(), wanted: "socket" })
            }
        }
    }

    /// The stream of a handle.
    pub fn stream(&self, handle: Handle) -> OpResult<Arc<Stream>> {
        match self.resource(handle)? {
            Resource::Stream(stream) => Ok(stream),
            Resource::Socket(_) => {
                Err(OpError::HandleKind { handle, kind: "socket", wanted: "stream" })
            }
        }
    }

    /// Removes what a handle names; the handle is void from then on. Dropping the result closes the socket
    /// or ends the stream.
    pub fn remove(&self, handle: Handle) -> OpResult<Resource> {
        let mut table = self.table();
        let removed = table.remove(handle).ok_or(OpError::Handle(handle))?;
        if let Some(persistence) = self.persistence() {
            persistence.remove(self.number, handle);
        }
        drop(table);
        if let Resource::Socket(entry) = &removed {
            entry.channels.end(ChannelEnd::Closed);
        }
        Ok(removed)
    }

    /// The sockets with their handles, lowest first.
    pub fn entries(&self) -> Vec<(Handle, Arc<Entry>)> {
        let resources = self.table().resources().into_iter();
        let socket = |(handle, resource)| match resource {
            Resource::Socket(entry) => Some((handle, entry)),
            Resource::Stream(_) => None,
        };
        resources.filter_map(socket).collect()
    }

    /// The number of open handles.
    pub fn handles(&self) -> usize {
        self.table().open()
    }

    /// The tasks of its streams.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

/// Connections, and the end.
impl Session {
    /// The number of attached connections.
    pub fn connections(&self) -> usize {
        self.state().connections.len()
    }

    /// Whether it has a token, so that other connections can attach and ask for lost answers.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The token of an open session.
    pub fn token(&self) -> Option<Token> {
        self.state().token.as_ref().and_then(KnownToken::token).cloned()
    }

    /// Whether a token is this session's.
    pub fn accepts(&self, token: &Token) -> bool {
        self.state().token.as_mut().is_some_and(|own| own.accepts(token))
    }

    /// How long handles outlive the last connection.
    pub fn linger(&self) -> Duration {
        self.state().linger
    }

    /// Opens the session: returns its token, the same each time.
    pub fn open(&self, linger: Option<Duration>) -> OpResult<Token> {
        let mut state = self.state();
        if let Some(linger) = linger {
            if state.linger != linger
                && let Some(persistence) = self.persistence()
            {
                persistence.monitor.linger(self.number, linger);
            }
            state.linger = linger;
        }
        if let Some(token) = state.token.as_ref().and_then(KnownToken::token) {
            return Ok(token.clone());
        }
        let token = Token::new(self.number)?;
        state.token = Some(KnownToken::from(token.clone()));
        self.opened.store(true, Ordering::Release);
        Ok(token)
    }

    /// Closes every handle and aborts the tasks; new handles are refused from then on.
    /// [`Session::tasks_ended`] waits for the tasks.
    pub fn close(&self) {
        let mut table = self.table();
        self.closed.store(true, Ordering::Release);
        let resources = std::mem::take(&mut *table);
        if let Some(persistence) = self.persistence() {
            persistence.end(self.number);
        }
        drop(table);
        resources.end_channels(ChannelEnd::Session);
        // Thousands of closes take long even if none of them waits.
        match resources.user() {
            Some(user) if resources.open() > CLOSED_AT_ONCE => {
                user.close_apart(Length::Unknown, move || drop(resources));
            }
            Some(_) | None => drop(resources),
        }
    }

    /// Waits until the tasks of a closed session have ended.
    pub async fn tasks_ended(&self) {
        self.tasks.ended().await;
    }

    /// What became of a call on another connection of this session. Waits for the connection's end.
    pub async fn call_outcome(
        &self,
        connection: u64,
        request: &RequestId,
        check: impl Fn(&KeptAnswer) -> OpResult<()>,
    ) -> OpResult<CallOutcome> {
        let value = self.limits.resolve_seconds;
        let wait = async {
            loop {
                // Registered before the connection is looked up, so that no end is missed between the two.
                let ended = self.ended.notified();
                {
                    let mut state = self.state();
                    if !state.connections.contains(&connection) {
                        return state.finished.take(connection, request, &check);
                    }
                }
                ended.await;
            }
        };
        let late = OpError::Limit { name: "resolve_seconds", value };
        timeout(Duration::from_secs(value), wait).await.map_err(|_elapsed| late)?
    }

    /// A session without handles, with the same restrictions.
    #[must_use]
    pub fn child(&self, number: u64, limits: &Limits) -> Self {
        let child = Self::new(number, &self.principal, limits);
        let restrictions = self.state().restrictions.clone();
        child.set_restrictions(restrictions);
        child
    }

    /// A session with a duplicate of every socket under the same handle. Streams stay with this session:
    /// their handles are void in the clone.
    pub fn duplicate(&self, number: u64, limits: &Limits) -> OpResult<Self> {
        let clone = self.child(number, limits);
        *clone.table() = self.table().duplicate()?;
        clone.default_timeout.set(self.default_timeout.get());
        clone.state().linger = self.linger();
        Ok(clone)
    }
}

#[cfg(test)]
mod tests;
