//! The messages between the monitor and the opener.

use serde::{Deserialize, Serialize};
use sockbroker_policy::subject::RemoteIdentity;

use super::build::Build;
use crate::channel::Message;

/// What `broker.info` reports about the opener, as the program around it encodes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description(pub Vec<u8>);

/// The principal of a worker, as the kernel reported it for each of its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPeer {
    pub uid: u32,
    /// The user for whom its captures count.
    pub account: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub network: Option<u64>,
    /// Then the ids have no meaning.
    pub remote: Option<RemoteIdentity>,
}

/// From the monitor to the opener. Workers have numbers, and connections their cookies (`SO_COOKIE`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToOpener {
    Hello(Build),
    /// What the opener begins with. Descriptors: the text of the configuration, and the policy (sealed memory). The
    /// opener answers `Ready`.
    Begin {
        generation: u64,
    },
    /// A worker starts. Descriptors: the channels to it, for prompt requests and for slow ones, and its `WorkerPeer` (sealed
    /// memory: a user can have 65 536 groups).
    Worker {
        worker: u64,
    },
    /// The reader of a worker starts, in place of an earlier one. Descriptor: the channel to it.
    Reader {
        worker: u64,
    },
    /// A connection is about to be passed to the worker.
    Accepted {
        worker: u64,
        cookie: u64,
    },
    /// A connection of the worker has ended.
    Closed {
        worker: u64,
        cookie: u64,
    },
    /// The worker has ended. The opener answers `Forgotten`.
    Ended {
        worker: u64,
    },
    /// A new policy. Descriptor: the policy. The opener answers `InForce`.
    Policy {
        generation: u64,
    },
}

/// From the opener to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromOpener {
    Hello(Build),
    /// The opener is confined, and serves workers.
    Ready(Description),
    /// The policy of this generation is in force.
    InForce {
        generation: u64,
    },
    /// The opener knows that a worker has ended. The answers have the order of the messages.
    Forgotten,
    /// The worker broke the rules of its channel, and is to be ended.
    Nonsense {
        worker: u64,
    },
}

impl Message for ToOpener {
    fn descriptors(&self) -> usize {
        match self {
            Self::Worker { .. } => 3,
            Self::Begin { .. } => 2,
            Self::Policy { .. } | Self::Reader { .. } => 1,
            Self::Hello(_) | Self::Accepted { .. } | Self::Closed { .. } | Self::Ended { .. } => 0,
        }
    }
}

impl Message for FromOpener {
    fn descriptors(&self) -> usize {
        match self {
            Self::Hello(_)
            | Self::Ready(_)
            | Self::InForce { .. }
            | Self::Forgotten
            | Self::Nonsense { .. } => 0,
        }
    }
}
