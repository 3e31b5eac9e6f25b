//! The messages between the monitor and the workers, and, in the modules, those between other processes. Each variant has
//! a fixed number of descriptors.

mod build;
pub mod gateway;
mod helpers;
mod kept;
mod limits;
mod opener;
mod users;

use serde::{Deserialize, Serialize};
use sockbroker_policy::subject::RemoteIdentity;

use crate::channel::{Channel, Message};
use crate::claim::Claim;
pub use build::Build;
pub use helpers::{FromPolicyReader, FromReaper, ToPolicyReader, ToReaper};
pub use kept::{
    FromKept, Index, KeptSession, LOT_FORMAT, LOTS, LotHeader, PersistRefusal, Persisted, ToKept,
    Waiting, WaitingSession,
};
pub use limits::{MemoryLimit, SessionLimit};
pub use opener::{Description, FromOpener, ToOpener, WorkerPeer};
pub use users::{Granted, Subject, UserFacts};

/// What the worker of an administrator asks all other workers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Their sessions.
    Sessions,
    /// The handles of one session, by its number.
    Handles(u64),
    /// Their metrics.
    Metrics,
}

/// What a worker begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The generation of the policy.
    pub generation: u64,
    /// The first of the numbers that this worker gives to connections and sessions.
    pub first_number: u64,
    /// The number of this worker.
    pub epoch: u64,
    /// Whether the service manager made the control socket.
    pub activated: bool,
    /// The user and the group that the worker becomes; `None` if it stays the broker's.
    pub id: Option<u32>,
    pub caller: Caller,
    /// The principal, if it is not on this machine, and the number by which the broker counts for it.
    pub remote: Option<(u32, RemoteIdentity)>,
}

/// Whose calls a worker makes, as far as it matters for the ids of calls on `AF_UNIX` sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// Those of a caller with the ids and the rights of the worker, which makes all calls itself.
    Same,
    /// Those of the broker's own user. The worker has other ids, or fewer rights.
    Broker,
    /// Those of another user.
    Other,
    /// Those of a remote principal, which has no ids here.
    Remote,
}

/// Why the monitor does not start the process that makes calls with the ids of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallerRefusal {
    /// No rule of the policy grants a call that needs it.
    NotGranted,
    /// The monitor cannot change ids.
    Unable,
    /// `worker_starts_per_second`.
    Starts,
    /// The process cannot be started, with this error number.
    Failed(i32),
}

/// Why the monitor does not start the process that reads captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReaderRefusal {
    /// There is no opener, from which it would get its sockets.
    NoOpener,
    /// `worker_starts_per_second`.
    Starts,
    /// All ids of workers are in use.
    Ids,
    /// The process cannot be started, with this error number.
    Failed(i32),
}

/// From the monitor to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    Hello(Build),
    /// What the worker serves by. Descriptors: the text of the configuration, and the policy (sealed memory).
    Begin(Beginning),
    /// `Begin` of a broker that has an opener, which is described. Descriptors: as of `Begin`, and the channels to the
    /// opener, for prompt requests and for slow ones.
    BeginWithOpener(Beginning, Description),
    /// A connection. Descriptor: the connection. The worker answers `Received`, and `Closed` at its end.
    Connection {
        number: u64,
    },
    /// A new policy. Descriptor: the policy. The worker answers `InForce`.
    Policy {
        generation: u64,
    },
    /// The answer to `Reload`: the generation in force, or why the new policy cannot be used.
    Reloaded {
        request: u64,
        result: Result<u64, String>,
    },
    /// A query of another worker. This one answers `QueryResult`.
    Query {
        number: u64,
        query: Query,
    },
    /// One answer to `QueryOthers`, and the user of the worker that gave it. Descriptor: the answer.
    QueryResult {
        request: u64,
        uid: u32,
    },
    /// The last answer to `QueryOthers`: how many workers did not answer in time; `None` if the policy does not let
    /// this principal administer the broker.
    QueryEnd {
        request: u64,
        missing: Option<u64>,
    },
    /// The answer to `Lease`: the number of sessions that the worker can open in addition, or the limit that leaves
    /// none.
    Leased {
        request: u64,
        sessions: Result<u64, SessionLimit>,
    },
    /// The answer to `Claim`: whether the claim is this worker's.
    Claimed {
        request: u64,
        granted: bool,
    },
    /// The answer to `StartCaller`. Descriptors: the channels for calls and for sends (`caller/message.rs`).
    Caller {
        request: u64,
    },
    /// The answer to `StartCaller`: no process was started.
    CallerRefused {
        request: u64,
        refusal: CallerRefusal,
    },
    /// The answer to `StartReader`. Descriptor: the channel (`reader/message.rs`).
    Reader {
        request: u64,
    },
    /// The answer to `StartReader`: no process was started.
    ReaderRefused {
        request: u64,
        refusal: ReaderRefusal,
    },
    /// About sessions that outlive the worker.
    Kept(ToKept),
    /// The answer to `Idle`: no connection is on its way, and none will come.
    MayEnd,
    /// Ends the worker after its calls have ended, or after `drain_seconds`.
    Stop,
    /// The answer to `LeaseMemory`: the worker can use the bytes that it asked for, or the limit that does not allow it.
    MemoryLeased {
        request: u64,
        leased: Result<(), MemoryLimit>,
    },
    /// Ends a connection of a remote principal; its client learns the reason.
    EndConnection {
        number: u64,
        reason: String,
    },
    /// Closes all sessions: the remote principal is not admitted any longer.
    CloseSessions,
}

/// From a worker to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMonitor {
    Hello(Build),
    /// The worker holds the connection: the monitor forgets its copy.
    Received {
        number: u64,
    },
    /// The worker cannot open more files: the connection came without its descriptor, and is to be passed again.
    NotReceived {
        number: u64,
    },
    /// The connection has ended.
    Closed {
        number: u64,
    },
    /// The policy of this generation is in force.
    InForce {
        generation: u64,
    },
    /// Asks the monitor to read the policy again. It answers `Reloaded`.
    Reload {
        request: u64,
    },
    /// Queries the other workers. The monitor answers `QueryResult`s and `QueryEnd`.
    QueryOthers {
        request: u64,
        query: Query,
    },
    /// The answer to `Query`. Descriptor: sealed memory.
    QueryResult {
        number: u64,
    },
    /// Asks for this number of further sessions. The monitor answers `Leased`.
    Lease {
        request: u64,
        sessions: u64,
    },
    /// Gives leased sessions back.
    Return {
        sessions: u64,
    },
    /// Claims a port or a group. The monitor answers `Claimed`.
    Claim {
        request: u64,
        claim: Claim,
    },
    /// The last socket with a claim is closed.
    Unclaim {
        claim: Claim,
    },
    /// The counters of the worker, which the monitor keeps after its end. Descriptor: the page of metrics (sealed memory).
    Counters,
    /// Asks for a process that makes calls with the ids of the caller, in place of an earlier one. The monitor answers
    /// `Caller` or `CallerRefused`.
    StartCaller {
        request: u64,
    },
    /// Asks for the process that reads captures, in place of an earlier one. The monitor answers `Reader` or
    /// `ReaderRefused`.
    StartReader {
        request: u64,
    },
    /// About a session that outlives the worker.
    Kept(FromKept),
    /// The worker has nothing to do after this number of connections. The monitor may answer `MayEnd`.
    Idle {
        taken: u64,
    },
    /// Asks for this number of further bytes of kernel memory. The monitor answers `MemoryLeased`.
    LeaseMemory {
        request: u64,
        bytes: u64,
    },
    /// Gives leased bytes of kernel memory back.
    ReturnMemory {
        bytes: u64,
    },
}

impl Message for ToWorker {
    fn descriptors(&self) -> usize {
        match self {
            Self::BeginWithOpener(..) => 4,
            Self::Begin(_) | Self::Caller { .. } | Self::Kept(ToKept::Lot) => 2,
            Self::Connection { .. }
            | Self::Kept(ToKept::Recover(_) | ToKept::Waiting { .. })
            | Self::Policy { .. }
            | Self::QueryResult { .. }
            | Self::Reader { .. } => 1,
            Self::Hello(_)
            | Self::EndConnection { .. }
            | Self::CloseSessions
            | Self::Reloaded { .. }
            | Self::Query { .. }
            | Self::QueryEnd { .. }
            | Self::Leased { .. }
            | Self::MemoryLeased { .. }
            | Self::Claimed { .. }
            | Self::CallerRefused { .. }
            | Self::ReaderRefused { .. }
            | Self::Kept(ToKept::Persisted { .. } | ToKept::Noted { .. })
            | Self::MayEnd
            | Self::Stop => 0,
        }
    }
}

impl Message for ToMonitor {
    fn descriptors(&self) -> usize {
        match self {
            Self::QueryResult { .. }
            | Self::Counters
            | Self::Kept(FromKept::Persist { .. } | FromKept::Restricted { .. }) => 1,
            Self::Hello(_)
            | Self::Received { .. }
            | Self::NotReceived { .. }
            | Self::Lease { .. }
            | Self::Return { .. }
            | Self::LeaseMemory { .. }
            | Self::ReturnMemory { .. }
            | Self::Claim { .. }
            | Self::Unclaim { .. }
            | Self::Closed { .. }
            | Self::InForce { .. }
            | Self::Reload { .. }
            | Self::QueryOthers { .. }
            | Self::StartCaller { .. }
            | Self::StartReader { .. }
            | Self::Kept(
                FromKept::Over { .. }
                | FromKept::Recovered { .. }
                | FromKept::Linger { .. }
                | FromKept::Attached { .. }
                | FromKept::Claimed { .. },
            )
            | Self::Idle { .. } => 0,
        }
    }
}

/// The monitor's end of the channel to a worker.
pub type WorkerChannel = Channel<ToWorker, ToMonitor>;
/// A worker's end.
pub type MonitorChannel = Channel<ToMonitor, ToWorker>;
