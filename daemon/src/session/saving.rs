//! Saves each change of a persistent session in the lots.

use std::sync::atomic::Ordering;

use sockbroker_proto::handle::Handle;

use crate::error::OpResult;
use crate::session::Session;
use crate::session::parking::Owner;
use crate::table::Resource;
use crate::table::entry::Entry;

impl Session {
    /// What is stored of the session itself.
    pub(super) fn owner(&self) -> Owner<'_> {
        let exactly_once = self.is_exactly_once();
        Owner { number: self.number, default_timeout: &self.default_timeout, exactly_once }
    }

    /// Parks the state of a handle after a change that the kernel does not keep.
    pub fn save(&self, handle: Handle) -> OpResult<()> {
        let Some(persistence) = self.persistence() else { return Ok(()) };
        let table = self.table();
        // A call on another connection may have closed it.
        let Some(Resource::Socket(entry)) = table.get(handle) else { return Ok(()) };
        if persistence.left.load(Ordering::Acquire) {
            return Ok(());
        }
        persistence.save_all(&self.owner(), &table, handle, &entry)
    }

    /// Parks the state of its handles, which others can receive from as well now.
    pub fn save_handles(&self) -> OpResult<()> {
        if !self.is_exactly_once() {
            return Ok(());
        }
        self.entries().into_iter().try_for_each(|(handle, _)| self.save(handle))
    }

    /// Parks the state of the session after a change.
    pub fn save_state(&self) -> OpResult<()> {
        let Some(persistence) = self.persistence() else { return Ok(()) };
        let _table = self.table();
        if self.is_closed() || persistence.left.load(Ordering::Acquire) {
            return Ok(());
        }
        persistence.save_state(&self.owner(), persistence.reserved.load(Ordering::Relaxed))
    }

    /// Whether received bytes stay in their sockets until the response is sent.
    pub fn is_exactly_once(&self) -> bool {
        self.exactly_once.load(Ordering::Acquire)
    }

    /// Sets whether received bytes stay in their sockets until the response is sent, if the client asks for either.
    pub fn set_exactly_once(&self, wanted: Option<bool>) -> OpResult<()> {
        let Some(wanted) = wanted else { return Ok(()) };
        self.exactly_once.store(wanted, Ordering::Release);
        self.save_state()
    }

    /// Notes that a call receives out-of-band data, which no position counts.
    pub fn note_urgent(&self, handle: Handle, entry: &Entry, flags: i32) -> OpResult<()> {
        if flags & libc::MSG_OOB != 0 && self.is_exactly_once() && entry.share_queue() {
            return self.save(handle);
        }
        Ok(())
    }
}
