//! The messages between the monitor and the other processes. Each variant has a fixed number of descriptors.

use serde::{Deserialize, Serialize};

use crate::channel::{Channel, Message};
use crate::claim::Claim;

/// Identifies the build. Both sides of a channel send theirs first; there is no compatibility between builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build(u64);

/// FNV-1a of this file: a change of the messages changes the build.
const MESSAGES: u64 = {
    let (text, mut hash, mut at) = (include_bytes!("message.rs"), 0xcbf2_9ce4_8422_2325_u64, 0);
    while at < text.len() {
        hash = (hash ^ text[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
};

impl Build {
    /// The build of this process.
    pub const OWN: Self = Self(MESSAGES);
}

/// What the worker of an administrator shows about all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// Their sessions.
    Sessions,
    /// The handles of one session, by its number.
    Handles(u64),
    /// Their metrics.
    Metrics,
}

/// From the monitor to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    Hello(Build),
    /// What the worker serves by. Descriptors: the text of the configuration, and the policy (sealed memory).
    Begin {
        /// The generation of the policy.
        generation: u64,
        /// The first of the numbers that this worker gives to connections and sessions.
        first_number: u64,
        /// Whether the service manager made the control socket.
        activated: bool,
    },
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
    /// A question about this worker. It answers `Seen`.
    Look {
        question: u64,
        view: View,
    },
    /// A part of the answer to `View`. Descriptor: what one worker answered (sealed memory).
    Part {
        request: u64,
    },
    /// The end of the answer to `View`: how many workers did not answer in time.
    Complete {
        request: u64,
        missing: u64,
    },
    /// The answer to `Lease`: the number of sessions that the worker can open in addition.
    Leased {
        request: u64,
        sessions: u64,
    },
    /// The answer to `Claim`: whether the claim is this worker's.
    Claimed {
        request: u64,
        granted: bool,
    },
    /// The answer to `Idle`: no connection is on its way, and none will come.
    MayEnd,
    /// Ends the worker after its calls have ended, or after `drain_seconds`.
    Stop,
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
    /// Asks for a view of the other workers. The monitor answers `Part`s and `Complete`.
    View {
        request: u64,
        view: View,
    },
    /// The answer to `Look`. Descriptor: sealed memory.
    Seen {
        question: u64,
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
    /// The worker has nothing to do after this number of connections. The monitor may answer `MayEnd`.
    Idle {
        taken: u64,
    },
}

/// From the policy reader to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromReader {
    /// A warning about the files, for the log.
    Warning(String),
    /// The policy. Descriptor: sealed memory.
    Policy,
    /// Why the files cannot be used.
    Unusable(String),
}

/// From the monitor to the reaper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReaper {
    /// A descriptor whose last close may wait.
    Hold,
    /// The monitor has no copy of what the reaper holds: the reaper closes it.
    Close,
}

/// From the reaper to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromReaper {
    /// Many closes wait: the monitor is to start another reaper, and to close this one's channel.
    Full,
}

/// A process that sends nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nothing {}

impl Message for ToWorker {
    fn descriptors(&self) -> usize {
        match self {
            Self::Begin { .. } => 2,
            Self::Connection { .. } | Self::Policy { .. } | Self::Part { .. } => 1,
            Self::Hello(_)
            | Self::Reloaded { .. }
            | Self::Look { .. }
            | Self::Complete { .. }
            | Self::Leased { .. }
            | Self::Claimed { .. }
            | Self::MayEnd
            | Self::Stop => 0,
        }
    }
}

impl Message for ToMonitor {
    fn descriptors(&self) -> usize {
        match self {
            Self::Seen { .. } => 1,
            Self::Hello(_)
            | Self::Received { .. }
            | Self::NotReceived { .. }
            | Self::Lease { .. }
            | Self::Return { .. }
            | Self::Claim { .. }
            | Self::Unclaim { .. }
            | Self::Closed { .. }
            | Self::InForce { .. }
            | Self::Reload { .. }
            | Self::View { .. }
            | Self::Idle { .. } => 0,
        }
    }
}

impl Message for FromReader {
    fn descriptors(&self) -> usize {
        match self {
            Self::Policy => 1,
            Self::Warning(_) | Self::Unusable(_) => 0,
        }
    }
}

impl Message for ToReaper {
    fn descriptors(&self) -> usize {
        match self {
            Self::Hold => 1,
            Self::Close => 0,
        }
    }
}

impl Message for FromReaper {
    fn descriptors(&self) -> usize {
        match self {
            Self::Full => 0,
        }
    }
}

impl Message for Nothing {
    fn descriptors(&self) -> usize {
        match *self {}
    }
}

/// The monitor's end of the channel to a worker.
pub type WorkerChannel = Channel<ToWorker, ToMonitor>;
/// A worker's end.
pub type MonitorChannel = Channel<ToMonitor, ToWorker>;
