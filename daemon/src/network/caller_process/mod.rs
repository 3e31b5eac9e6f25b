//! The process that makes calls with the ids of this worker's caller (`sockbroker_monitor::caller`).
//!
//! The monitor starts it at the first call. Its user can stop and kill it: a call in progress then fails, and the next
//! call starts another one.

mod call;
mod sends;
mod follower;
mod link;

pub(crate) use call::{Descriptors, Failure, Reply};
pub(crate) use link::Link;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_monitor::message::CallerRefusal;
use tokio::sync::oneshot;

/// The worker's ends of the channels for calls and for sends, or why there is no process.
pub type Started = Result<(OwnedFd, OwnedFd), CallerRefusal>;
/// Asks the monitor to start the process.
pub type Starter = Box<dyn Fn() -> oneshot::Receiver<Started> + Send + Sync>;
/// The process, started when it is needed.
pub struct CallerProcess {
    start: Starter,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

impl fmt::Debug for CallerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerProcess")
    }
}

impl CallerProcess {
    pub fn new(start: Starter) -> Self {
        Self { start, link: tokio::sync::Mutex::new(None) }
    }

    /// The process, which is started if it does not run.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut running = self.link.lock().await;
        if let Some(link) = running.as_ref().filter(|link| !link.is_lost()) {
            link.note_use();
            return Ok(link.clone());
        }
        *running = None;
        let started = (self.start)().await.map_err(|_ended| Failure::Ended)?;
        let (calls, sends) = started.map_err(Failure::Refused)?;
        let link = Link::begin(calls, sends).await.map_err(|error| {
            tracing::error!(error, "the process that acts as the caller did not start");
            Failure::Ended
        })?;
        Ok(running.insert(Arc::new(link)).clone())
    }

    /// Whether the process runs, or is about to.
    pub(crate) fn is_running(&self) -> bool {
        self.link.try_lock().map_or(true, |running| running.is_some())
    }

    /// Ends the process if it had nothing to do for this time.
    pub(crate) fn end_idle(&self, longest: Duration) {
        // A call that holds the lock uses the process.
        if let Ok(mut running) = self.link.try_lock()
            && running.as_ref().is_some_and(|link| link.is_idle(longest))
        {
            *running = None;
        }
    }
}

#[cfg(test)]
mod tests;
