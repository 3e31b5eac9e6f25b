//! When sweeps are due. Nothing wakes the process while nothing waits for its time: what begins to wait requests a sweep,
//! and each sweep returns when the next one is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The time between two sweeps at least.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// Requests for sweeps.
#[derive(Debug, Clone, Default)]
pub struct Sweeps(Arc<Notify>);

impl Sweeps {
    /// Requests a sweep, because something has begun to wait for its time.
    pub fn request(&self) {
        self.0.notify_one();
    }

    /// Waits for a request.
    pub async fn requested(&self) {
        self.0.notified().await;
    }
}

/// Waits until a sweep is due; for ever if none is.
pub async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// When the next sweep is due after a request for one.
pub fn soon(due: Option<Instant>) -> Option<Instant> {
    let soon = Instant::now() + PAUSE;
    Some(due.map_or(soon, |due| due.min(soon)))
}
