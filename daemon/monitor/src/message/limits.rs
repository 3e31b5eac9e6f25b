//! Why the monitor leases nothing to a worker: the limit that leaves nothing.

use serde::{Deserialize, Serialize};

/// Why a worker can open no further session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionLimit {
    /// `sessions`.
    InAll,
    /// `sessions_per_user`.
    OfUser,
}

/// Why a worker can use no further kernel memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryLimit {
    /// `kernel_bytes_in_all`.
    InAll,
    /// `kernel_bytes_per_user`.
    OfUser,
}
