//! Where the handles of a persistent session lie: each is in the lots before its call is answered, and out of them before
//! its `close` is answered.
//!
//! Sockets of other network namespaces are not there: they end with the last connection, which does not outlive the
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sockbroker_proto::api::session::Persistence as Reach;
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::session::lots::{Held, Key, Lots, ParkError};
use crate::session::monitor_link::MonitorLink;
use crate::session::record::{SessionState, StreamRecord, encode, to_memory};
use crate::session::socket_record::SocketRecord;
use crate::table::entry::Entry;
use crate::table::timeout::TimeoutCell;
use crate::table::{Resource, Table, generation};
use sockbroker_policy::namespace::Namespace;

/// What is stored of the session itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) number: u64,
    pub(super) default_timeout: &'a TimeoutCell,
    pub(super) exactly_once: bool,
}

/// The generations of handles that are reserved at a time.
pub(super) const RESERVED: u64 = 1024;

/// Where the handles of a session lie.
#[derive(Debug)]
pub struct Persistence {
    pub(super) lots: Arc<Lots>,
    pub(super) reach: Reach,
    pub(super) monitor: MonitorLink,
    /// The first generation that is not reserved.
    pub(super) reserved: AtomicU64,
    /// Whether the session stays in the lots, because this process ends.
    pub(super) left: AtomicBool,
}

fn park_error(error: ParkError, limit: u64) -> OpError {
    match error {
        ParkError::Full => OpError::Limit { name: "persistent_handles_per_user", value: limit },
        ParkError::System(error) => OpError::os("sendmsg", error),
    }
}

impl Persistence {
    /// Fails if no further handle can be parked.
    pub(super) fn check_room(&self) -> OpResult<()> {
        let full = || park_error(ParkError::Full, self.lots.allowed());
        self.lots.has_room().then_some(()).ok_or_else(full)
    }

    /// Parks a new handle, within the lock of the table. A stream follows ([`Self::save_stream`]), or only its number
    /// outlives the process.
    pub(super) fn add(
        &self,
        session: &Owner<'_>,
        table: &Table,
        handle: Handle,
        resource: &Resource,
    ) -> OpResult<()> {
        if self.left.load(Ordering::Acquire) {
            return Err(OpError::Session("the broker is shutting down"));
        }
        if generation(handle) >= self.reserved.load(Ordering::Relaxed) {
            self.save_state(session, generation(handle) + RESERVED)?;
        }
        match resource {
            Resource::Socket(entry) => self.save_all(session, table, handle, entry),
            Resource::Stream(_) => Ok(()),
        }
    }

    /// Parks the state of a handle and of its duplicates.
    pub(super) fn save_all(
        &self,
        session: &Owner<'_>,
        table: &Table,
        handle: Handle,
        entry: &Arc<Entry>,
    ) -> OpResult<()> {
        if !entry.ends.is_shared() {
            return self.save(session, table, handle, entry);
        }
        for (handle, resource) in table.resources() {
            if let Resource::Socket(other) = resource
                && other.ends.identity() == entry.ends.identity()
            {
                self.save(session, table, handle, &other)?;
            }
        }
        Ok(())
    }

    /// Parks the state of a handle, in place of an earlier one.
    pub(super) fn save(
        &self,
        session: &Owner<'_>,
        table: &Table,
        handle: Handle,
        entry: &Arc<Entry>,
    ) -> OpResult<()> {
        if *entry.namespace() != Namespace::Broker {
            return Ok(());
        }
        let original = if entry.ends.is_shared() { original(table, handle, entry) } else { None };
        let record = encode(&SocketRecord::of(entry, original));
        let record = record.map_err(|error| OpError::Plain(error.to_string()))?;
        let key = Key { session: session.number, handle: handle.number() };
        let held: Held = entry.descriptor().clone();
        let parked = self.lots.park(key, &record, Some(held));
        parked.map_err(|error| park_error(error, self.lots.allowed()))
    }

    /// Parks a stream with what the next process has to know of it.
    pub(super) fn save_stream(
        &self,
        session: u64,
        handle: Handle,
        (kind, state): (&str, &[u8]),
    ) -> OpResult<()> {
        let record = encode(&StreamRecord { stream: kind.to_owned() });
        let record = record.map_err(|error| OpError::Plain(error.to_string()))?;
        let memory = to_memory(state);
        let held: Held = Arc::new(memory.map_err(|error| OpError::os("memfd_create", error))?);
        let key = Key { session, handle: handle.number() };
        let parked = self.lots.park(key, &record, Some(held));
        parked.map_err(|error| park_error(error, self.lots.allowed()))
    }

    pub(super) fn save_state(&self, session: &Owner<'_>, generation: u64) -> OpResult<()> {
        let Owner { default_timeout, exactly_once, .. } = *session;
        let default_timeout = default_timeout.get();
        let state = SessionState { generation, default_timeout, exactly_once };
        let state = encode(&state).map_err(|error| OpError::Plain(error.to_string()))?;
        let key = Key { session: session.number, handle: 0 };
        let parked = self.lots.park(key, &state, None);
        parked.map_err(|error| park_error(error, self.lots.allowed()))?;
        self.reserved.store(generation, Ordering::Relaxed);
        Ok(())
    }

    /// Drops a handle from the lots.
    pub(super) fn remove(&self, session: u64, handle: Handle) {
        if !self.left.load(Ordering::Acquire) {
            self.lots.unpark(Key { session, handle: handle.number() });
        }
    }

    /// Drops the session from the lots.
    pub(super) fn end(&self, session: u64) {
        if !self.left.load(Ordering::Acquire) {
            self.lots.unpark_session(session);
        }
    }
}

/// A lower handle of the same socket.
fn original(table: &Table, handle: Handle, entry: &Entry) -> Option<u64> {
    let same = |resource: &Resource| match resource {
        Resource::Socket(other) => other.ends.identity() == entry.ends.identity(),
        Resource::Stream(_) => false,
    };
    let mut resources = table.resources().into_iter();
    let (first, _) = resources.find(|(_, resource)| same(resource))?;
    Some(first.number()).filter(|first| *first < handle.number())
}
