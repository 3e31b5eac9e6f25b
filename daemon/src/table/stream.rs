//! A stream: a task of a session that moves data between calls, under a handle like a socket.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::error::OpResult;
use crate::quota::Reservation;
use sockbroker_policy::rights::Rights;

/// Whether these rights grant a stream.
pub type Granted = dyn Fn(&Rights) -> bool + Send + Sync;

/// Makes a stream outlive its process. The result is what the next process has to know; `None` if it cannot outlive it.
pub type Keeping = Pin<Box<dyn Future<Output = OpResult<Option<Vec<u8>>>> + Send>>;

/// What a stream is for the stages above.
pub trait Body: Any + Send + Sync {
    /// The policy no longer grants it. Its handle is closed afterwards.
    fn revoked(&self);

    /// Makes it outlive this process.
    fn keep(self: Arc<Self>) -> Keeping;

    /// The next process has it, if it outlives this one: whatever happens to it here, it goes on.
    fn left(&self);

    /// Its handle is closed. Calls on it that wait can still hold it.
    fn closed(&self);
}

/// A stream that a handle names. Its task is aborted when the last holder drops it.
pub struct Stream {
    kind: &'static str,
    task: AbortHandle,
    granted: Box<Granted>,
    body: Option<Arc<dyn Body>>,
    /// Its part of the user's handles, shared with the task: it counts until both have ended.
    _handle: Arc<Reservation>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Stream {
    /// The stream of a task.
    pub fn new(
        kind: &'static str,
        task: AbortHandle,
        granted: Box<Granted>,
        body: Option<Arc<dyn Body>>,
        handle: Arc<Reservation>,
    ) -> Self {
        Self { kind, task, granted, body, _handle: handle }
    }

    /// What kind of stream it is, such as `capture`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether these rights grant it.
    pub fn is_granted(&self, rights: &Rights) -> bool {
        (self.granted)(rights)
    }

    /// What it is for the stages above.
    pub fn body(&self) -> Option<Arc<dyn Body>> {
        self.body.clone()
    }

    /// Ends it, because the policy no longer grants it.
    pub fn revoke(&self) {
        if let Some(body) = &self.body {
            body.revoked();
        }
    }

    /// Leaves it to the next process, if it outlives this one.
    pub fn leave(&self) {
        if let Some(body) = &self.body {
            body.left();
        }
    }

    /// Whether its task has ended. The handle stays until it is closed.
    pub fn is_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            body.closed();
        }
        self.task.abort();
    }
}
