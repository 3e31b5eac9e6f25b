//! Writes a session as a record, and rebuilds the session of a record.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sockbroker_proto::handle::Handle;

use crate::config::limits::Limits;
use crate::error::OpError;
use crate::quota::User;
use crate::session::Session;
use crate::session::record::{OwnerRecord, RecordError, SessionRecord};
use crate::session::restriction::SessionRestriction;
use crate::session::socket_record::SocketRecord;
use crate::session::streams::RestoredStream;
use crate::session::token::KnownToken;
use crate::table::claims::Claims;
use crate::table::entry::Entry;
use crate::table::{Resource, Table, UnknownHandle};

/// What a session needs of the broker that restores it.
#[derive(Debug, Clone, Copy)]
pub struct Restored<'a> {
    /// The limits in force. They apply to what the session opens later.
    pub limits: &'a Limits,
    /// Its principal's use of the limits.
    pub user: &'a Arc<User>,
    /// The fan-out groups of all principals.
    pub claims: &'a Claims,
}

impl Session {
    /// Writes the state of the session.
    pub fn record(&self) -> SessionRecord {
        let mut originals: HashMap<usize, u64> = HashMap::new();
        let sockets = self.entries().into_iter().map(|(handle, entry)| {
            let handle = handle.number();
            let first = *originals.entry(entry.ends.identity()).or_insert(handle);
            (handle, SocketRecord::of(&entry, (first != handle).then_some(first)))
        });
        let sockets = sockets.collect();
        let numbers = self.table().numbers();
        let state = self.state();
        SessionRecord {
            session: self.number,
            owner: OwnerRecord::from(&self.principal),
            token: state.token.as_ref().map(KnownToken::hash),
            restrictions: state.restrictions.iter().map(|one| one.text().clone()).collect(),
            default_timeout: self.default_timeout.get(),
            linger: state.linger,
            numbers,
            sockets,
        }
    }

    /// Rebuilds the session of a record, with the descriptors of its sockets by handle, and its streams. A socket without its
    /// descriptor is closed: its handle is void.
    pub fn restore(
        record: SessionRecord,
        mut descriptors: HashMap<u64, OwnedFd>,
        streams: BTreeMap<u64, RestoredStream>,
        broker: Restored<'_>,
    ) -> Result<Self, RecordError> {
        let Restored { limits, user, claims } = broker;
        let session = Self::new(record.session, &record.owner.into(), limits);
        let mut restored: BTreeMap<u64, Arc<Entry>> = BTreeMap::new();
        let mut open = Vec::with_capacity(record.sockets.len());
        for (number, socket) in record.sockets {
            let Some(descriptor) = descriptors.remove(&number) else { continue };
            let handle = Handle::new(number).ok_or(RecordError::Handle(number))?;
            let original = socket.duplicate_of.and_then(|first| restored.get(&first));
            let entry =
                Arc::new(socket.restore(descriptor, original.map(|one| &**one), user, claims));
            restored.insert(number, entry.clone());
            open.push((handle, Resource::Socket(entry)));
        }
        for (number, stream) in streams {
            let handle = Handle::new(number).ok_or(RecordError::Handle(number))?;
            open.push((handle, session.restored_stream(stream)));
        }
        let table = Table::resume(record.numbers, open);
        let table = table.map_err(|UnknownHandle(handle)| RecordError::Handle(handle.number()))?;
        let restrictions = record.restrictions.into_iter().map(|text| {
            let fail = |error: OpError| RecordError::Restriction(format!("{error:?}"));
            SessionRestriction::restore(text, user).map_err(fail)
        });
        session.set_restrictions(restrictions.collect::<Result<_, _>>()?);
        *session.table() = table;
        session.default_timeout.set(record.default_timeout);
        session.opened.store(record.token.is_some(), Ordering::Release);
        {
            let mut state = session.state();
            state.linger = record.linger;
            state.token = record.token.map(KnownToken::Hashed);
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests;
