//! The messages of the policy reader and of the reaper.

use serde::{Deserialize, Serialize};

use crate::channel::Message;

/// From the monitor to the policy reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPolicyReader {
    /// Where to write the result. Descriptors: memory for the policy, for `UserFacts`, and for the credentials of the
    /// gateway. The reader passes no descriptor itself: the kernel can refuse that to a process without capabilities
    /// (`ETOOMANYREFS`).
    Result,
}

/// From the policy reader to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromPolicyReader {
    /// A warning about the files, for the log.
    Warning(String),
    /// The memory of the result is written and sealed. The credentials of the gateway are empty without one.
    Policy {
        /// Whether rules of it need a capability that only the opener has.
        needs_opener: bool,
        /// Whether rules of it grant something in other network namespaces.
        reaches_networks: bool,
    },
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

impl Message for ToPolicyReader {
    fn descriptors(&self) -> usize {
        match self {
            Self::Result => 3,
        }
    }
}

impl Message for FromPolicyReader {
    fn descriptors(&self) -> usize {
        match self {
            Self::Policy { .. } | Self::Warning(_) | Self::Unusable(_) => 0,
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
