//! Closes a session: its handles, and the tasks of its streams.

use std::sync::atomic::Ordering;

use crate::quota::closing::Length;
use crate::session::Session;
use crate::table::channel::ChannelEnd;

/// More handles are closed on a thread.
const CLOSED_AT_ONCE: usize = 64;

impl Session {
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
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
}
