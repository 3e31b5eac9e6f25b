//! The end of the process: it closes its sessions, and leaves persistent ones to the next process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::session::Session;
use crate::session::broker::Broker;
use crate::table::Resource;

impl Session {
    /// Leaves its handles in the lots: whatever happens to them in this process, the next one has them.
    pub(super) fn leave_parked(&self) {
        if let Some(persistence) = self.persistence() {
            // Within the lock, so that no change is under way.
            let table = self.table();
            persistence.left.store(true, Ordering::Release);
            for (_, resource) in table.resources() {
                if let Resource::Stream(stream) = resource {
                    stream.leave();
                }
            }
        }
    }
}

impl Broker {
    /// Whether this process is about to end, and leaves persistent sessions to the next one.
    pub fn stopping(&self) -> &Arc<AtomicBool> {
        &self.stopping
    }

    /// Leaves persistent sessions to the next process: they no longer end with their connections.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Closes the session of a connection that was its last, unless the session waits for the next process.
    pub(super) fn close_left(&self, session: &Arc<Session>) {
        if session.reach().is_none() || !self.stopping.load(Ordering::Acquire) {
            self.close(session);
        }
    }

    /// Ends every session, and waits until the tasks of all of them have ended. Tasks that do not end
    /// within `drain_seconds` are logged.
    pub async fn close_all(&self) {
        let all = self.sessions();
        for session in &all {
            session.leave_parked();
        }
        self.forget_all();
        for session in &all {
            self.end(session);
        }
        let ending = std::mem::take(&mut self.lock().ending);
        let ended = async {
            for session in &ending {
                session.tasks_ended().await;
            }
            // What they have counted is in the audit then.
            self.captures.ended().await;
        };
        if timeout(Duration::from_secs(self.limits.drain_seconds), ended).await.is_err() {
            let tasks: usize = ending.iter().map(|session| session.tasks().running()).sum();
            tracing::warn!(tasks, "tasks of sessions did not end within drain_seconds");
        }
    }

    fn forget_all(&self) {
        let mut sessions = self.lock();
        sessions.opened.clear();
        sessions.implicit.clear();
    }
}
