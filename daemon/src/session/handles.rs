//! The handles of a session.

use std::sync::Arc;

use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::quota::{Reservation, Share, User};
use crate::session::Session;
use crate::table::Resource;
use crate::table::channel::ChannelEnd;
use crate::table::entry::Entry;
use crate::table::stream::Stream;

impl Session {
    /// Gives a socket a handle.
    pub fn insert(&self, entry: Arc<Entry>) -> OpResult<Handle> {
        self.insert_resource(Resource::Socket(entry))
    }

    pub(super) fn insert_resource(&self, resource: Resource) -> OpResult<Handle> {
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
}
