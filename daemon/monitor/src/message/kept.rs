//! What the monitor keeps of persistent sessions.

use serde::{Deserialize, Serialize};

/// The lots of one principal. With as many as handles, closing one needs no copy of another.
pub const LOTS: u64 = 64;

/// The sessions of one principal, as the monitor knows them. It is stored, and a later broker can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// The cookie of the network namespace.
    pub network: Option<u64>,
    /// The number of the worker that had the lots last.
    pub serial: u64,
    /// The workers that ended while they recovered these sessions.
    pub crashes: u32,
    pub sessions: Vec<KeptSession>,
}

/// A session. What the worker wrote is not read by the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSession {
    pub number: u64,
    /// How long it waits for a connection.
    pub linger_seconds: u64,
    /// What the worker wrote when the session was opened.
    pub facts: Vec<u8>,
    /// What it gave up later, oldest first. It only grows.
    pub restrictions: Vec<Vec<u8>>,
}

/// What a worker gets for its persistent sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    /// The number of handles that it may park, and of the states of sessions.
    pub handles: u64,
    /// Whether the service manager has the lots.
    pub service: bool,
}

/// Why the monitor does not keep a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PersistRefusal {
    /// `persistent_sessions_per_user`.
    SessionsOfUser,
    /// `persistent_sessions_in_all`.
    Sessions,
    /// `persistent_handles_in_all`.
    Handles,
    /// A system call failed with this error number.
    Failed(i32),
}

/// From the monitor to a worker, about sessions that outlive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKept {
    /// A lot for sockets. Descriptors: its ends.
    Lot,
    /// The sessions that an earlier worker left in the lots that were sent. Descriptor: `Index` (sealed memory). The
    /// worker answers `Recovered`.
    Recover(Persisted),
    /// The answer to `Persist`. Lots come before.
    Persisted { request: u64, result: Result<Persisted, PersistRefusal> },
    /// The answer to `Restricted`.
    Noted { request: u64 },
}

/// From a worker to the monitor, about sessions that outlive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKept {
    /// Asks the monitor to keep a session for the next worker. Descriptor: what it is to keep (sealed memory). The
    /// monitor answers `Persisted`.
    Persist { request: u64, session: u64, linger_seconds: u64 },
    /// A kept session gave up rights. Descriptor: which (sealed memory). The monitor answers `Noted`.
    Restricted { request: u64, session: u64 },
    /// A kept session has ended.
    Over { session: u64 },
    /// The worker has recovered this number of sessions, with this number of handles.
    Recovered { sessions: u64, handles: u64 },
}
