//! What the monitor keeps of persistent sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sockbroker_sys::clock;

use crate::claim::Claim;

/// The lots that are made for one principal. With as many as handles, closing one needs no copy of another. Those that an
/// earlier broker has stored can be fewer.
pub const LOTS: u64 = 128;

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
    /// The user id of that worker, if it was not the monitor's: the sockets belong to it.
    pub worker_id: Option<u32>,
    /// The workers that ended while they recovered these sessions.
    pub crashes: u32,
    pub sessions: Vec<KeptSession>,
    /// What their sockets do not share with other principals.
    pub claims: Vec<Claim>,
}

/// A session. What the worker wrote is not read by the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSession {
    pub number: u64,
    /// How long its handles outlive its last connection.
    pub linger: Duration,
    /// When it became persistent, as `CLOCK_BOOTTIME`.
    pub began: Duration,
    /// Since when it has no connection, and when its handles close; `None` while it has one.
    pub waiting: Option<Waiting>,
    /// What the worker wrote when the session was opened.
    pub facts: Vec<u8>,
    /// What it gave up later, oldest first. It only grows.
    pub restrictions: Vec<Vec<u8>>,
}

/// How long a session waits for a connection. Both are times of `CLOCK_BOOTTIME`: sockets do not outlive the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub since: Duration,
    pub until: Duration,
}

impl Waiting {
    /// How much longer it waits.
    pub fn left(self) -> Duration {
        self.until.saturating_sub(clock::since_boot())
    }
}

/// A session without a worker, for the list of all sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingSession {
    pub number: u64,
    pub uid: u32,
    pub linger: Duration,
    /// The time since it became persistent.
    pub age: Duration,
    /// The time since it has no worker, or no connection.
    pub since: Duration,
    /// The time until its handles close.
    pub until: Duration,
    pub handles: u64,
    /// Whether the service manager has its sockets.
    pub is_stored: bool,
}

/// The version of the messages in the lots of a worker.
pub const LOT_FORMAT: u8 = 1;

/// What a message in a lot begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LotHeader {
    /// The newest message about a handle counts.
    pub sequence: u64,
    pub session: u64,
    /// 0 for the state of the session.
    pub handle: u64,
}

impl LotHeader {
    /// The length of a header, and of the version before it.
    pub const LENGTH: usize = 1 + 3 * size_of::<u64>();

    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [LOT_FORMAT; Self::LENGTH];
        let numbers = [self.sequence, self.session, self.handle];
        for (to, number) in
            bytes.iter_mut().skip(1).zip(numbers.iter().flat_map(|n| n.to_le_bytes()))
        {
            *to = number;
        }
        bytes
    }

    /// Reads the header of a message. The error is the version of one that is newer.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Option<u8>> {
        let (version, mut rest) = bytes.split_first().ok_or(None::<u8>)?;
        if *version > LOT_FORMAT {
            return Err(Some(*version));
        }
        let mut next = || {
            let (number, left) = rest.split_first_chunk().ok_or(None::<u8>)?;
            rest = left;
            Ok::<_, Option<u8>>(u64::from_le_bytes(*number))
        };
        let (sequence, session, handle) = (next()?, next()?, next()?);
        Ok((Self { sequence, session, handle }, rest))
    }
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
    /// `persistent_bytes_per_user`.
    Bytes,
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
    Noted { request: u64, result: Result<(), PersistRefusal> },
    /// One answer to `QueryOthers`: the sessions that have no worker. Descriptor: `Vec<WaitingSession>` (sealed memory).
    Waiting { request: u64 },
}

/// From a worker to the monitor, about sessions that outlive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKept {
    /// Asks the monitor to keep a session for the next worker. Descriptor: what it is to keep (sealed memory). The
    /// monitor answers `Persisted`.
    Persist { request: u64, session: u64, linger: Duration },
    /// A kept session gave up rights. Descriptor: which (sealed memory). The monitor answers `Noted`.
    Restricted { request: u64, session: u64 },
    /// A kept session has another linger.
    Linger { session: u64, linger: Duration },
    /// A kept session has its first connection, or has lost its last one.
    Attached { session: u64, attached: bool },
    /// A recovered socket has a claim of the earlier worker. The claims that are not repeated before `Recovered` end.
    Claimed { claim: Claim },
    /// A kept session has ended.
    Over { session: u64 },
    /// The worker has recovered this number of sessions, with this number of handles.
    Recovered { sessions: u64, handles: u64 },
}
