//! The policy in force, and how another takes its place.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use sockbroker_policy::Policy;

/// Reads the policy anew; the error is for people.
pub type Loader = dyn Fn() -> Result<Policy, String> + Send + Sync;

/// The policy in force. Each has a number, the first is 1.
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
    /// The first policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            current: Mutex::new(Arc::new(policy)),
            generation: AtomicU64::new(1),
            changes: watch::Sender::new(1),
            loader: None,
        }
    }

    /// With a way to read the next.
    #[must_use]
    pub fn reloading(self, loader: Box<Loader>) -> Self {
        Self { loader: Some(loader), ..self }
    }

    /// The number of the policy in force.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The policy in force and its number.
    pub fn current(&self) -> (Arc<Policy>, u64) {
        let current = self.lock();
        (current.clone(), self.generation())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Policy>> {
        // One value, set in one statement: a panic elsewhere does not spoil it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the next policy, which may block; `None` where there is no file to read.
    pub(super) fn load(&self) -> Option<Result<Policy, String>> {
        self.loader.as_ref().map(|loader| loader())
    }

    /// Puts another in its place, whole, and tells those who wait. Gives its number.
    pub fn replace(&self, policy: Policy) -> u64 {
        let mut current = self.lock();
        *current = Arc::new(policy);
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(current);
        self.changes.send_replace(generation);
        generation
    }

    /// Waits until the number is another than this one, and gives it.
    pub async fn changed_from(&self, known: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        // The sender is a field of this value, so it cannot have gone.
        let changed = changes.wait_for(|generation| *generation != known).await;
        changed.map_or_else(|_gone| self.generation(), |generation| *generation)
    }
}
