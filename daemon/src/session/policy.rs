//! The policy in force, and its replacement.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use sockbroker_policy::Policy;

/// Reads the policy again; the error is text for the log.
pub type Loader = dyn Fn() -> Result<Policy, String> + Send + Sync;

/// The policy in force. Each has a generation, which begins at 1.
pub struct PolicyInForce {
    current: Mutex<Arc<Policy>>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
    loader: Option<Box<Loader>>,
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
            loader: None,
        }
    }

    /// Adds a way to read the next policy.
    #[must_use]
    pub fn reloading(self, loader: Box<Loader>) -> Self {
        Self { loader: Some(loader), ..self }
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

    /// Reads the next policy, which may block; `None` where there is nothing to read it from.
    pub(super) fn load(&self) -> Option<Result<Policy, String>> {
        self.loader.as_ref().map(|loader| loader())
    }

    /// Replaces the policy and notifies those who wait for it. Returns the new generation.
    pub fn replace(&self, policy: Policy) -> u64 {
        let mut current = self.lock();
        *current = Arc::new(policy);
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(current);
        self.changes.send_replace(generation);
        generation
    }

    /// Waits until the generation differs from this one, and returns it.
    pub async fn changed_from(&self, known: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        // The sender is a field of this value, so the channel is open.
        let changed = changes.wait_for(|generation| *generation != known).await;
        changed.map_or_else(|_gone| self.generation(), |generation| *generation)
    }
}
