//! The policy in force, and its replacement.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::session::monitor_link::MonitorLink;
use sockbroker_policy::Policy;

/// Reads the policy again; the error is text for the log.
pub type Loader = dyn Fn() -> Result<Policy, String> + Send + Sync;

/// Where the next policy comes from.
pub enum NextPolicy {
    /// There is none.
    Nowhere,
    /// This process reads it.
    Loader(Box<Loader>),
    /// The monitor reads it, and sends it to every worker.
    Monitor(MonitorLink),
}

/// The policy in force. Each has a generation, which begins at 1.
pub struct PolicyInForce {
    current: Mutex<Arc<Policy>>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
    pub(super) next: NextPolicy,
}

impl fmt::Debug for NextPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nowhere => "Nowhere",
            Self::Loader(_) => "Loader",
            Self::Monitor(_) => "Monitor",
        })
    }
}

impl fmt::Debug for PolicyInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyInForce({})", self.generation())
    }
}

impl PolicyInForce {
    pub fn new(policy: Policy) -> Self {
        Self {
            current: Mutex::new(Arc::new(policy)),
            generation: AtomicU64::new(1),
            changes: watch::Sender::new(1),
            next: NextPolicy::Nowhere,
        }
    }

    /// Sets where the next policy comes from, and the generation of this one.
    #[must_use]
    pub fn followed_by(self, next: NextPolicy, generation: u64) -> Self {
        self.generation.store(generation, Ordering::Release);
        self.changes.send_replace(generation);
        Self { next, ..self }
    }

    /// The generation of the policy in force.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The policy in force and its generation.
    pub fn current(&self) -> (Arc<Policy>, u64) {
        let current = self.lock();
        (current.clone(), self.generation())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Policy>> {
        // One value, set in one statement: so a panic of another call does not spoil it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the policy, and notifies those who wait for it.
    pub fn replace(&self, policy: Policy, generation: u64) {
        let mut current = self.lock();
        *current = Arc::new(policy);
        self.generation.store(generation, Ordering::Release);
        drop(current);
        self.changes.send_replace(generation);
    }

    /// Waits until the generation differs from this one, and returns it.
    pub async fn changed_from(&self, known: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        // The sender is a field of this value, so the channel is open.
        let changed = changes.wait_for(|generation| *generation != known).await;
        changed.map_or_else(|_gone| self.generation(), |generation| *generation)
    }
}
